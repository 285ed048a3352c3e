"""Characters to token ids, and what reads them: a small transformer, or a convolution that finds words."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from simscaleai_jax.core.text import PAD, SYMBOLS, tokenize
from simscaleai_jax.models.layers import (
    LANGUAGE_MLP_RATIO,
    compute_dtype,
    embedding,
    layer_norm,
    linear,
    make_rngs,
    uniform_of_std,
)
from simscaleai_jax.models.transformer import TransformerEncoder

CHARACTER_DIM = 16  # of a character where a convolution reads
WINDOW = 5  # characters that it reads at a time: a word's ends tell it from others


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
        check_vocabulary(vocab_size)
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
        token_ids = checked_ids(token_ids, self.max_len)
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


class WordEncoder(nnx.Module):
    """A convolution over characters, the maximum over the text, ReLU and a linear layer: a text as one token.

    After https://arxiv.org/abs/1408.5882. Where a word stands does not matter to it, which a transformer learns only
    from texts that have it everywhere. Padding is not read.
    """

    def __init__(
        self,
        vocab_size: int,
        max_len: int,
        embed_dim: int,
        *,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ) -> None:
        check_vocabulary(vocab_size)
        self.max_len, self.dtype = max_len, dtype
        self.token_embed = embedding((vocab_size, CHARACTER_DIM), 1.0, rngs)
        self.windows = nnx.Conv(
            CHARACTER_DIM,
            embed_dim,
            WINDOW,
            dtype=compute_dtype(dtype),
            kernel_init=uniform_of_std((2.0 / (WINDOW * CHARACTER_DIM)) ** 0.5),
            rngs=rngs,
        )
        self.out = linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)

    def tokenize(self, texts: list[str]) -> np.ndarray:
        """(B, max_len) int32 on the host."""
        return tokenize(texts, self.max_len)

    def __call__(self, token_ids: Int[Array | np.ndarray, "B L"], *, key: Array | None = None) -> Float[Array, "B 1 D"]:
        """(B, L) ids, L <= max_len, to (B, 1, embed_dim); there is no dropout."""
        token_ids = checked_ids(token_ids, self.max_len)
        is_text = (token_ids != PAD)[..., None]
        characters = jnp.where(is_text, self.token_embed[...][token_ids], 0.0)
        found = self.windows(characters.astype(compute_dtype(self.dtype)))
        found = jnp.max(jnp.where(is_text, jax.nn.relu(found), 0.0), axis=1, keepdims=True)
        return self.out(found)

    def mask(self, token_ids: Int[Array, "B L"]) -> None:
        """None: its one token is always read."""


def check_vocabulary(vocab_size: int) -> None:
    """ValueError for a table that is too small for the tokenizer's ids."""
    if vocab_size <= len(SYMBOLS):
        raise ValueError(f"vocab_size is {vocab_size}; the tokenizer has ids up to {len(SYMBOLS)}.")


def checked_ids(token_ids: Any, max_len: int) -> Int[Array, "B L"]:
    """`token_ids` as int32; a ValueError for another shape than (B, L), L <= max_len."""
    token_ids = jnp.asarray(token_ids, jnp.int32)
    if token_ids.ndim != 2 or token_ids.shape[1] > max_len:
        raise ValueError(f"'language' has shape {token_ids.shape}; wanted (B, L) ids with L up to {max_len}.")
    return token_ids
