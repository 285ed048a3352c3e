"""Characters to token ids, and a small transformer over them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from simscaleai_jax.core.text import PAD, SYMBOLS, tokenize
from simscaleai_jax.models.layers import LANGUAGE_MLP_RATIO, compute_dtype, embedding, layer_norm, make_rngs
from simscaleai_jax.models.transformer import TransformerEncoder


class SimpleLanguageEncoder(nnx.Module):
    """Character embeddings plus positions, `num_layers` transformer layers, a norm.

    With `mask_padding` nothing attends to what is behind the end of a text.
    """

    def __init__(
        self,
        vocab_size: int = 1000,
        max_len: int = 64,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.1,
        *,
        dtype: str = "float32",
        scan_layers: bool = False,
        remat: bool = False,
        attention: str = "auto",
        mask_padding: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        if vocab_size <= len(SYMBOLS):
            raise ValueError(f"vocab_size is {vocab_size}; the tokenizer has ids up to {len(SYMBOLS)}.")
        rngs = make_rngs(rngs)
        self.vocab_size = vocab_size
        self.max_len = max_len
        self.embed_dim = embed_dim
        self.dtype = dtype
        self.mask_padding = mask_padding
        self.deterministic = False
        self.token_embed = embedding((vocab_size, embed_dim), 1.0, rngs)
        self.pos_embed = embedding((1, max_len, embed_dim), 0.02, rngs)
        self.encoder = TransformerEncoder(
            embed_dim,
            num_heads,
            num_layers,
            LANGUAGE_MLP_RATIO * embed_dim,
            dropout=dropout,
            dtype=dtype,
            scan_layers=scan_layers,
            remat=remat,
            attention=attention,
            rngs=rngs,
        )
        self.norm = layer_norm(embed_dim, rngs=rngs)

    def tokenize(self, texts: list[str], device: Any = None) -> np.ndarray:
        """(B, max_len) int32 on the host; `device` is accepted for compatibility and not used."""
        return tokenize(texts, self.max_len)

    def forward(self, token_ids: Int[Array | np.ndarray, "B L"], *, key: Array | None = None) -> Float[Array, "B L D"]:
        """(B, L) ids, L <= max_len, to (B, L, embed_dim)."""
        token_ids = jnp.asarray(token_ids, jnp.int32)
        if token_ids.ndim != 2 or token_ids.shape[1] > self.max_len:
            raise ValueError(f"'language' has shape {token_ids.shape}; wanted (B, L) ids with L up to {self.max_len}.")
        length = token_ids.shape[1]
        hidden = self.token_embed[...][token_ids] + self.pos_embed[...][:, :length]
        hidden = self.encoder(
            hidden.astype(compute_dtype(self.dtype)),
            key=None if self.deterministic else key,
            mask=self.mask(token_ids),
        )
        return self.norm(hidden).astype(compute_dtype(self.dtype))

    def mask(self, token_ids: Int[Array, "B L"]) -> Bool[Array, "B L"] | None:
        """Where the text is, its first place always; None where padding is read like text."""
        return (token_ids != PAD).at[:, 0].set(True) if self.mask_padding else None

    def __call__(self, token_ids: Int[Array | np.ndarray, "B L"], *, key: Array | None = None) -> Float[Array, "B L D"]:
        """Same as `forward`."""
        return self.forward(token_ids, key=key)
