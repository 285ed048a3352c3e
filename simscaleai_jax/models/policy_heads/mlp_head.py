"""A perceptron from features to actions."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from simscaleai_jax.models.dropout import dropout_seeds
from simscaleai_jax.models.layers import MLP, gelu, make_rngs


class MLPActionHead(nnx.Module):
    """`n_layers` hidden layers with GELU and dropout; tanh at the end unless `tanh_output` is False."""

    def __init__(
        self,
        input_dim: int = 256,
        action_dim: int = 4,
        hidden_dim: int = 256,
        n_layers: int = 2,
        dropout: float = 0.1,
        tanh_output: bool = True,
        *,
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        self.input_dim = input_dim
        self.action_dim = action_dim
        self.hidden_dim = hidden_dim
        self.n_layers = n_layers
        self.dropout = dropout
        self.tanh_output = tanh_output
        self.dtype = dtype
        self.deterministic = False
        self.net = MLP(
            input_dim,
            hidden_dim,
            action_dim,
            n_layers,
            activation=gelu,
            dropout=dropout,
            dtype=dtype,
            rngs=make_rngs(rngs),
        )

    def forward(self, features: Float[Array | np.ndarray, "*B D"], *, key: Array | None = None) -> Float[Array, "*B A"]:
        """(B, input_dim) to (B, action_dim) float32; dropout in training mode when a key is given."""
        seeds = None if self.deterministic else dropout_seeds(key, self.net.num_sites)
        actions = self.net(jnp.asarray(features), seeds).astype(jnp.float32)
        return jnp.tanh(actions) if self.tanh_output else actions

    def __call__(
        self, features: Float[Array | np.ndarray, "*B D"], *, key: Array | None = None
    ) -> Float[Array, "*B A"]:
        """Same as `forward`."""
        return self.forward(features, key=key)
