"""Linear layers, norms and perceptrons in torch's default initialisation, with a separate dtype for computing."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt32

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.models.dropout import dropout

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
LAYER_NORM_EPSILON = 1e-5
LANGUAGE_MLP_RATIO = 4


def compute_dtype(name: str) -> Any:
    """The jnp dtype of a `dtype` argument; parameters, softmax, norms and losses stay float32."""
    if name not in DTYPES:
        raise unknown_name("dtype", name, DTYPES)
    return DTYPES[name]


def make_rngs(rngs: nnx.Rngs | None) -> nnx.Rngs:
    """`rngs`, or generators seeded with 0."""
    return nnx.Rngs(0) if rngs is None else rngs


def linear(
    in_dim: int, out_dim: int, *, dtype: str = "float32", std: float | None = None, rngs: nnx.Rngs
) -> nnx.Linear:
    """A linear layer: weights and bias uniform within 1/sqrt(in_dim), or weights of `std` and zero bias."""
    if std is None:
        kernel_init = bias_init = fan_in_uniform(in_dim)
    else:
        kernel_init, bias_init = uniform_of_std(std), nnx.initializers.zeros_init()
    return nnx.Linear(
        in_dim, out_dim, dtype=compute_dtype(dtype), kernel_init=kernel_init, bias_init=bias_init, rngs=rngs
    )


def layer_norm(dim: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer norm over the last axis, in float32."""
    return nnx.LayerNorm(dim, epsilon=LAYER_NORM_EPSILON, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)


def fan_in_uniform(fan_in: int) -> nnx.initializers.Initializer:
    """Uniform within 1/sqrt(fan_in), torch's default for linear layers and convolutions."""
    return _uniform(fan_in**-0.5)


def uniform_of_std(std: float) -> nnx.initializers.Initializer:
    """Uniform with standard deviation `std`; a normal of the same spread takes several times as long to compile."""
    return _uniform(std * 3.0**0.5)


def embedding(shape: tuple[int, ...], std: float, rngs: nnx.Rngs) -> nnx.Param:
    """A table of learned vectors of `std`."""
    return nnx.Param(uniform_of_std(std)(rngs.params(), shape))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, x Phi(x), through erf: `jax.nn.gelu` uses erfc, which costs twice as much on a CPU."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(2.0**-0.5, x.dtype)))


class MLP(nnx.Module):
    """`num_hidden` x [linear, activation, dropout], then one linear layer without activation."""

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        num_hidden: int,
        *,
        activation: Callable[[Array], Array],
        dropout: float,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ) -> None:
        if num_hidden < 1:
            raise ValueError(f"n_layers is {num_hidden}; wanted at least 1.")
        self.activation = activation
        self.dropout = dropout
        sizes = [in_dim, *[hidden_dim] * num_hidden, out_dim]
        self.layers = nnx.List([linear(a, b, dtype=dtype, rngs=rngs) for a, b in pairwise(sizes)])

    @property
    def num_sites(self) -> int:
        """Dropout sites, one after each hidden layer."""
        return len(self.layers) - 1

    def __call__(self, x: Float[Array, "*B I"], seeds: UInt32[Array, "sites 2"] | None = None) -> Float[Array, "*B O"]:
        """(..., in_dim) to (..., out_dim); with the `seeds` of its dropout sites, in training mode."""
        for i, layer in enumerate(self.layers[:-1]):
            x = self.activation(layer(x))
            x = dropout(x, self.dropout, None if seeds is None else seeds[i])
        return self.layers[-1](x)


def _uniform(bound: float) -> nnx.initializers.Initializer:
    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
