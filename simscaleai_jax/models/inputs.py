"""What models accept as observations, instructions and targets, checked and brought into one form in one place.

  image     uint8 (B, H, W, C), 0..255, as cameras and data sets give it; or float (B, C, H, W), already in [0, 1],
            the documented torch layout. Inside the models images are float (B, H, W, C) in [0, 1].
  state     observations["state"] (B, S), or every other non-image key concatenated in sorted order.
  language  list of B strings, one string for all, or token ids (B, L) int.

Windows of T steps, (B, T, ...), are cut to their first step by models that predict an action chunk.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.observations import state_keys, state_vector


def model_image(observations: Mapping[str, Any], channels: int, size: int) -> Float[Array, "B H W C"]:
    """The key "image" as float32 (B, size, size, channels) in [0, 1]; a window gives its first frame.

    Raises:
      ValueError: the key is missing, or its dtype, layout or size is not one of the accepted ones.
    """
    if "image" not in observations:
        hint = suggest("image", observations)
        raise ValueError(f"The model needs observations['image'], but the keys are {sorted(observations)}.{hint}")
    image = jnp.asarray(observations["image"])
    if image.ndim == 5:
        image = image[:, 0]
    return scale_image(image, channels, size)


def scale_image(image: Any, channels: int, size: int) -> Float[Array, "B H W C"]:
    """uint8 (B, H, W, C) or float (B, C, H, W) to float32 (B, H, W, C) in [0, 1]."""
    image = jnp.asarray(image)
    is_bytes = image.dtype == jnp.uint8
    wanted = (size, size, channels) if is_bytes else (channels, size, size)
    if image.ndim != 4 or image.shape[1:] != wanted or not (is_bytes or jnp.issubdtype(image.dtype, jnp.floating)):
        raise ValueError(
            f"'image' has shape {image.shape} and dtype {image.dtype}; wanted uint8 (B, {size}, {size}, {channels}) "
            f"or float in [0, 1] (B, {channels}, {size}, {size})."
        )
    if is_bytes:
        return image.astype(jnp.float32) / 255.0
    return jnp.transpose(image.astype(jnp.float32), (0, 2, 3, 1))


def model_state(observations: Mapping[str, Any], size: int) -> Float[Array, "*B S"]:
    """The state vector (..., size) of an observation dict.

    Raises:
      ValueError: no key holds state, or the keys add up to another size.
    """
    if not state_keys(observations):
        raise ValueError(
            f"The model needs observations['state'] or other state keys, but the keys are {sorted(observations)}."
        )
    state = jnp.asarray(state_vector(observations))
    if state.shape[-1] != size:
        names = ", ".join(state_keys(observations))
        raise ValueError(f"The state has {state.shape[-1]} numbers (from {names}); the model has state_dim={size}.")
    return state


def prepare_language(batch: Mapping[str, Any], tokenize: Any, batch_size: int) -> dict[str, Any]:
    """Replaces the strings under "language" by token ids (B, L) int32; for the host, before jit.

    Raises:
      ValueError: the number of strings differs from the batch size.
    """
    out = dict(batch)
    language = out.get("language")
    if language is None:
        out.pop("language", None)
        return out
    if isinstance(language, str):
        language = [language] * batch_size
    if is_text(language):
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in language]
        if len(texts) != batch_size:
            raise ValueError(f"'language' has {len(texts)} instructions for a batch of {batch_size}.")
        out["language"] = np.asarray(tokenize(texts), np.int32)
    return out


def is_text(language: Any) -> bool:
    """Whether `language` still holds strings instead of token ids."""
    if isinstance(language, np.ndarray):
        return language.dtype.kind in "OSU"
    return isinstance(language, str | bytes) or (
        isinstance(language, Sequence) and len(language) > 0 and isinstance(language[0], str | bytes)
    )


def leading_size(observations: Mapping[str, Any]) -> int:
    """Batch size B of an observation dict."""
    return int(np.shape(next(iter(observations.values())))[0])
