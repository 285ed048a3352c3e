"""The network that diffusion and flow heads share: (features, noisy actions, time) to a direction in action space."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from simscaleai_jax.models.layers import compute_dtype, gelu, linear, make_rngs

BASE = 10000.0


class SinusoidalPosEmbed(nnx.Module):
    """Sines, then cosines of `dim // 2` frequencies from 1 down to 1/10000."""

    def __init__(self, dim: int) -> None:
        if dim < 4 or dim % 2:
            raise ValueError(f"dim is {dim}; wanted an even number of at least 4.")
        self.dim = dim

    def forward(self, t: Num[Array, "*B"]) -> Float[Array, "*B D"]:
        """(B,) times to (B, dim) float32."""
        half = self.dim // 2
        frequencies = jnp.exp(-math.log(BASE) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
        angles = jax.lax.mul(*jnp.broadcast_arrays(jnp.asarray(t, jnp.float32)[..., None], frequencies))
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    def __call__(self, t: Num[Array, "*B"]) -> Float[Array, "*B D"]:
        """Same as `forward`."""
        return self.forward(t)


class ResidualBlock(nnx.Module):
    """[linear, GELU] x2 plus a skip, which is linear where the widths differ."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        *,
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        rngs = make_rngs(rngs)
        self.linear1 = linear(input_dim, hidden_dim, dtype=dtype, rngs=rngs)
        self.linear2 = linear(hidden_dim, output_dim, dtype=dtype, rngs=rngs)
        self.skip = nnx.data(None if input_dim == output_dim else linear(input_dim, output_dim, dtype=dtype, rngs=rngs))

    def forward(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """(..., input_dim) to (..., output_dim)."""
        skip = x if self.skip is None else self.skip(x)
        return gelu(self.linear2(gelu(self.linear1(x)))) + skip

    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """Same as `forward`."""
        return self.forward(x)


class Denoiser(nnx.Module):
    """[features; time; noisy actions] through residual blocks to a vector of the actions' size."""

    def __init__(
        self, input_dim: int, action_size: int, hidden_dim: int, n_layers: int, *, dtype: str, rngs: nnx.Rngs
    ) -> None:
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}; wanted at least 1.")
        self.dtype = dtype
        self.sinusoid = SinusoidalPosEmbed(hidden_dim)
        self.time_embed = linear(hidden_dim, hidden_dim, dtype=dtype, rngs=rngs)
        self.condition_proj = linear(input_dim, hidden_dim, dtype=dtype, rngs=rngs)
        widths = [2 * hidden_dim + action_size, *[hidden_dim] * (n_layers - 1)]
        self.blocks = nnx.List([ResidualBlock(w, hidden_dim, hidden_dim, dtype=dtype, rngs=rngs) for w in widths])
        self.final = linear(hidden_dim, action_size, dtype=dtype, rngs=rngs)

    def condition(self, features: Float[Array, "B D"]) -> Float[Array, "B H"]:
        """The features' projection, computed once for a whole sampling chain."""
        return self.condition_proj(features)

    def __call__(
        self, condition: Float[Array, "B H"], actions: Float[Array, "B A"], time: Num[Array, "B"]
    ) -> Float[Array, "B A"]:
        """Direction (B, A) float32 at noisy `actions` (B, A) and `time` (B,), in units of diffusion steps."""
        embedded = gelu(self.time_embed(self.sinusoid(time)))
        hidden: Any = jnp.concatenate([condition, embedded, actions.astype(compute_dtype(self.dtype))], axis=-1)
        for block in self.blocks:
            hidden = block(hidden)
        return self.final(hidden).astype(jnp.float32)
