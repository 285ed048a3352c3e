"""Pre-norm transformer encoder with stacked layers: every parameter leads with the layer axis.

One layout serves both ways of running it: `scan_layers=True` compiles one layer and loops (large models), False unrolls
(small ones, where XLA then fuses across layers). Checkpoints do not depend on the choice. `remat=True` recomputes each
layer's activations in the backward pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt32

from simscaleai_jax.core.sharding import KEPT, whole
from simscaleai_jax.models.dropout import dropout, dropout_seeds
from simscaleai_jax.models.layers import compute_dtype, gelu, layer_norm, linear

SITES = 4  # dropout sites of a layer: attention weights, attention output, hidden units, output

Seeds = UInt32[Array, "4 2"] | None


class EncoderLayer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); GELU, one fused q, k, v projection."""

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_dim: int, dropout: float, dtype: str, attention: str, rngs: nnx.Rngs
    ) -> None:
        self.num_heads = num_heads
        self.dropout = dropout
        self.dtype = dtype
        self.attention = attention
        self.norm1 = layer_norm(embed_dim, rngs=rngs)
        self.norm2 = layer_norm(embed_dim, rngs=rngs)
        self.qkv = linear(embed_dim, 3 * embed_dim, dtype=dtype, std=(2.0 * embed_dim) ** -0.5, rngs=rngs)
        self.out = linear(embed_dim, embed_dim, dtype=dtype, std=0.02, rngs=rngs)
        self.linear1 = linear(embed_dim, mlp_dim, dtype=dtype, std=0.02, rngs=rngs)
        self.linear2 = linear(mlp_dim, embed_dim, dtype=dtype, std=0.02, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        seeds: Seeds = None,
        mask: Bool[Array, "B N"] | None = None,
        *,
        num_out: int | None = None,
    ) -> Float[Array, "B M D"]:
        """(B, N, D) to the first `num_out` of its tokens, (B, M, D); all of them when None. Nothing attends to tokens
        where `mask` is False.
        """
        site = [None] * SITES if seeds is None else list(seeds)
        normed = self.norm1(x).astype(compute_dtype(self.dtype))
        x = x[:, :num_out]
        x = x + dropout(self._attend(normed, num_out, site[0], mask), self.dropout, site[1])
        hidden = gelu(self.linear1(self.norm2(x).astype(compute_dtype(self.dtype))))
        hidden = dropout(hidden, self.dropout, site[2])
        return x + dropout(self.linear2(hidden), self.dropout, site[3])

    def _attend(self, x: Float[Array, "B N D"], num_out: int | None, seed: Any, mask: Any) -> Float[Array, "B M D"]:
        width, heads = x.shape[2], self.num_heads
        parts = jnp.split(self.qkv(x), 3, axis=-1)  # split, not slices: its gradient is one concatenation
        query, key, value = (part.reshape(*part.shape[:2], heads, width // heads) for part in parts)
        query = query[:, :num_out]
        mask = None if mask is None else mask[:, None, None, :]
        if seed is None or self.dropout == 0.0:
            implementation: Any = None if self.attention == "auto" else self.attention
            mixed = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)
        else:
            mixed = _attention_with_dropout(query, key, value, self.dropout, seed, mask)
        return self.out(mixed.reshape(*mixed.shape[:2], width))


class TransformerEncoder(nnx.Module):
    """`num_layers` encoder layers, without a final norm."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_layers: int,
        mlp_dim: int,
        *,
        dropout: float = 0.1,
        dtype: str = "float32",
        scan_layers: bool = False,
        remat: bool = False,
        attention: str = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}.")
        if attention not in ("auto", "xla", "cudnn"):
            raise ValueError(f"Unknown attention {attention!r}. Available: auto, xla, cudnn.")
        self.num_layers = num_layers
        self.scan_layers = scan_layers
        self.remat = remat

        keys = jax.random.split(rngs.params(), num_layers)
        self.layers = _make_layers(keys, (embed_dim, num_heads, mlp_dim, dropout, dtype, attention))

    def __call__(
        self,
        x: Float[Array, "B N D"],
        *,
        key: Array | None = None,
        num_out: int | None = None,
        mask: Bool[Array, "B N"] | None = None,
    ) -> Float[Array, "B M D"]:
        """(B, N, D) to the encoded first `num_out` tokens.

        The last layer computes nothing for the tokens that nobody reads. With `key` dropout is on. No token attends to
        those where `mask` is False; each row needs one where it is True.
        """
        graphdef, params = nnx.split(self.layers)
        seeds = dropout_seeds(key, self.num_layers, SITES)

        def run(params: Any, seeds: Seeds, x: Array, num_out: int | None) -> Array:
            params = whole(params, compute_dtype(self.layers.dtype))
            return nnx.merge(graphdef, params)(x, seeds, mask, num_out=num_out)

        if self.remat:
            run = jax.checkpoint(run, static_argnums=3, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
        if self.scan_layers:
            return _scan(run, params, seeds, x, num_out)
        last = self.num_layers - 1
        for i, layer in enumerate(_unstack(params, self.num_layers)):
            x = run(layer, None if seeds is None else seeds[i], x, num_out if i == last else None)
        return x


@partial(nnx.jit, static_argnums=1)
def _make_layers(keys: Array, arguments: tuple[Any, ...]) -> EncoderLayer:
    """One `EncoderLayer` whose parameters lead with the layer axis, from one key per layer."""
    return nnx.vmap(lambda key: EncoderLayer(*arguments, rngs=nnx.Rngs(key)))(keys)


def _scan(run: Callable[..., Array], params: Any, seeds: Any, x: Array, num_out: int | None) -> Array:
    """Loops over all layers but the last, which may read and write fewer tokens."""

    def body(x: Array, layer: Any) -> tuple[Array, None]:
        return run(*layer, x, None), None

    head, tail = (
        jax.tree.map(lambda leaf: leaf[:-1], (params, seeds)),
        jax.tree.map(lambda leaf: leaf[-1], (params, seeds)),
    )
    x, _ = jax.lax.scan(body, x, head)
    return run(*tail, x, num_out)


def _unstack(params: Any, num_layers: int) -> list[Any]:
    leaves, structure = jax.tree.flatten(params)
    split = [jnp.split(leaf, num_layers) for leaf in leaves]
    return [jax.tree.unflatten(structure, [parts[i][0] for parts in split]) for i in range(num_layers)]


def _attention_with_dropout(query: Array, key: Array, value: Array, rate: float, seed: Array, mask: Any) -> Array:
    """(B, M, H, K), (B, N, H, K), (B, N, H, K) to (B, M, H, K); softmax in float32, its weights dropped out."""
    logits = jnp.einsum("bmhk,bnhk->bhmn", query, key, preferred_element_type=jnp.float32)
    logits = logits * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits if mask is None else jnp.where(mask, logits, -jnp.inf), axis=-1)
    weights = dropout(weights, rate, seed).astype(value.dtype)
    return jnp.einsum("bhmn,bnhk->bmhk", weights, value)
