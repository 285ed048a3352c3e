"""Image augmentation on the device: random shifts and colour jitter, one draw per sample.

`ImageAugmentation` is plain data and this module imports JAX only inside its functions, so that describing an
augmentation costs nothing. All frames of one window get the same shift and the same colours: a camera does not jump
between two frames.
"""

from dataclasses import dataclass
from typing import Any

from simscaleai_jax.core.config import settle

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


@dataclass(frozen=True)
class ImageAugmentation:
    """How far images are varied; zero switches a variation off.

    Attributes:
      shift: largest shift along each axis in pixels; edges are repeated (random crop of a padded image).
      brightness, contrast, saturation: factors are drawn from [1 - x, 1 + x].
    """

    shift: int = 4
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def __post_init__(self) -> None:
        settle(self)
        for name in ("shift", "brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")


def to_unit_images(images: Any) -> Any:
    """uint8 (..., H, W, C) to float32 (..., C, H, W) in [0, 1]."""
    import jax.numpy as jnp

    return jnp.moveaxis(images.astype(jnp.float32) / 255.0, -1, -3)


def augment_images(key: Any, images: Any, config: ImageAugmentation) -> Any:
    """Shifts and recolours each sample of a batch.

    Args:
      key: PRNG key; sample i uses fold_in(key, i), so a batch may be split over devices in any way.
      images: (B, C, H, W) or (B, T, C, H, W) float32 in [0, 1].

    Returns:
      The same shape, in [0, 1].
    """
    import jax
    import jax.numpy as jnp

    def one(index: Any, image: Any) -> Any:
        key_shift, key_colour = jax.random.split(jax.random.fold_in(key, index))
        return _jitter(key_colour, _shift(key_shift, image, config.shift), config)

    return jax.vmap(one)(jnp.arange(images.shape[0]), images)


def _shift(key: Any, image: Any, pixels: int) -> Any:
    """Moves an image (..., H, W) by up to `pixels` along each axis."""
    import jax
    import jax.numpy as jnp

    if not pixels:
        return image
    height, width = image.shape[-2:]
    offset = jax.random.randint(key, (2,), -pixels, pixels + 1)
    rows = jnp.clip(jnp.arange(height) + offset[0], 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + offset[1], 0, width - 1)
    return image[..., rows, :][..., columns]


def _jitter(key: Any, image: Any, config: ImageAugmentation) -> Any:
    """Brightness, then contrast about the mean grey, then saturation; image (..., C, H, W)."""
    import jax
    import jax.numpy as jnp

    spread = jnp.array([config.brightness, config.contrast, config.saturation], jnp.float32)
    bright, contrast, saturation = 1.0 + spread * jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
    image = image * bright
    if image.shape[-3] == 3:
        weights = jnp.array(GREY_WEIGHTS, jnp.float32)[:, None, None]
        grey = jnp.sum(image * weights, axis=-3, keepdims=True)
        image = grey + (image - grey) * saturation
        mean = jnp.mean(grey)
    else:
        mean = jnp.mean(image)
    return jnp.clip(mean + (image - mean) * contrast, 0.0, 1.0)
