"""Images to tokens: patches, positions, a class token and a transformer."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from simscaleai_jax.models.inputs import scale_image
from simscaleai_jax.models.layers import compute_dtype, embedding, layer_norm, linear, make_rngs
from simscaleai_jax.models.transformer import TransformerEncoder


class PatchEmbedding(nnx.Module):
    """Cuts an image into square patches, projects each and adds its position's embedding."""

    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 256,
        *,
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}.")
        rngs = make_rngs(rngs)
        self.image_size = image_size
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.dtype = dtype
        self.num_patches = (image_size // patch_size) ** 2
        self.proj = linear(patch_size * patch_size * in_channels, embed_dim, dtype=dtype, rngs=rngs)
        self.pos_embed = embedding((1, self.num_patches, embed_dim), 0.02, rngs)

    def forward(self, x: Any) -> Float[Array, "B N D"]:
        """Float (B, C, H, W) in [0, 1] or uint8 (B, H, W, C) to (B, num_patches, embed_dim), row by row."""
        return self.embed(scale_image(x, self.in_channels, self.image_size))

    def __call__(self, x: Any) -> Float[Array, "B N D"]:
        """Same as `forward`."""
        return self.forward(x)

    def embed(self, image: Float[Array, "B H W C"]) -> Float[Array, "B N D"]:
        """Scaled images (B, H, W, C) to tokens: a strided convolution, written as one matrix product."""
        side, patch = self.image_size // self.patch_size, self.patch_size
        cut = image.reshape(-1, side, patch, side, patch, self.in_channels)
        cut = jnp.transpose(cut, (0, 1, 3, 2, 4, 5)).reshape(-1, self.num_patches, patch * patch * self.in_channels)
        tokens = self.proj(cut.astype(compute_dtype(self.dtype)))
        return tokens + self.pos_embed[...].astype(tokens.dtype)


class VisionEncoder(nnx.Module):
    """Vision transformer: [class token, patches], `num_layers` layers, a norm."""

    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        *,
        dtype: str = "float32",
        scan_layers: bool = False,
        remat: bool = False,
        attention: str = "auto",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        rngs = make_rngs(rngs)
        self.dtype = dtype
        self.deterministic = False
        self.patch_embed = PatchEmbedding(image_size, patch_size, in_channels, embed_dim, dtype=dtype, rngs=rngs)
        self.cls_token = embedding((1, 1, embed_dim), 0.02, rngs)
        self.encoder = TransformerEncoder(
            embed_dim,
            num_heads,
            num_layers,
            int(mlp_ratio * embed_dim),
            dropout=dropout,
            dtype=dtype,
            scan_layers=scan_layers,
            remat=remat,
            attention=attention,
            rngs=rngs,
        )
        self.norm = layer_norm(embed_dim, rngs=rngs)

    def forward(self, images: Any, *, key: Array | None = None) -> Float[Array, "B N D"]:
        """Float (B, C, H, W) in [0, 1] or uint8 (B, H, W, C) to (B, num_patches + 1, embed_dim), class token first."""
        return self.encode(scale_image(images, self.patch_embed.in_channels, self.patch_embed.image_size), key=key)

    def __call__(self, images: Any, *, key: Array | None = None) -> Float[Array, "B N D"]:
        """Same as `forward`."""
        return self.forward(images, key=key)

    def encode(self, image: Float[Array, "B H W C"], *, key: Array | None = None) -> Float[Array, "B N D"]:
        """The same for scaled images (B, H, W, C)."""
        patches = self.patch_embed.embed(image)
        first = jnp.broadcast_to(self.cls_token[...].astype(patches.dtype), (patches.shape[0], 1, patches.shape[2]))
        tokens = jnp.concatenate([first, patches], axis=1)
        tokens = self.encoder(tokens, key=None if self.deterministic else key)
        return self.norm(tokens).astype(compute_dtype(self.dtype))
