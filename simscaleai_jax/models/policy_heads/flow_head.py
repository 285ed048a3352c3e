"""Flow matching over actions and action chunks: a straight path from noise to action, followed by a few Euler steps.

x_t = (1 - t) noise + t action; the network learns the velocity action - noise. https://arxiv.org/abs/2210.02747
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from simscaleai_jax.models.layers import make_rngs
from simscaleai_jax.models.losses import masked_mean
from simscaleai_jax.models.policy_heads.chunks import chunk_shape, draw_key, flatten_chunk
from simscaleai_jax.models.policy_heads.denoiser import Denoiser

TIME_SCALE = 100.0  # the sinusoid's unit is one of 100 steps, as in the diffusion head


class FlowActionHead(nnx.Module):
    """Flow-matching head with the diffusion head's network. Actions lie in [-1, 1]; h > 1 makes chunks (B, h, A)."""

    def __init__(
        self,
        input_dim: int = 256,
        action_dim: int = 4,
        hidden_dim: int = 256,
        n_layers: int = 4,
        num_inference_steps: int = 10,
        *,
        action_horizon: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs | None = None,
    ) -> None:
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; wanted at least 1.")
        self.input_dim = input_dim
        self.action_dim = action_dim
        self.hidden_dim = hidden_dim
        self.n_layers = n_layers
        self.num_inference_steps = num_inference_steps
        self.action_horizon = action_horizon
        self.dtype = dtype
        self.deterministic = False
        size = action_dim * action_horizon
        self.network = Denoiser(input_dim, size, hidden_dim, n_layers, dtype=dtype, rngs=make_rngs(rngs))

    def forward(
        self,
        features: Float[Array | np.ndarray, "B D"],
        target_actions: Float[Array | np.ndarray, "B ..."] | None = None,
        *,
        key: Array | None = None,
        valid: Bool[Array | np.ndarray, "B ..."] | None = None,
    ) -> dict[str, Array]:
        """As `DiffusionActionHead.forward`: "predicted_actions" and, with targets, "loss"."""
        features = jnp.asarray(features)
        key_noise, key_time = jax.random.split(draw_key(key))
        if target_actions is None:
            return {"predicted_actions": self.sample(features, key=key_noise)}
        target_actions = jnp.asarray(target_actions, jnp.float32)
        mask = None if valid is None else jnp.asarray(valid)
        noise = jax.random.normal(key_noise, target_actions.shape)
        time = jax.random.uniform(key_time, (features.shape[0],))
        loss, estimate = self.match(features, target_actions, time, noise, mask)
        actions = estimate if not self.deterministic else self.sample(features, key=key_noise)
        return {"loss": loss, "predicted_actions": actions}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Same as `forward`."""
        return self.forward(*args, **kwargs)

    def predict_velocity(
        self, features: Float[Array, "B D"], actions: Float[Array, "B ..."], time: Float[Array, "B"]
    ) -> Float[Array, "B ..."]:
        """The velocity at `actions`, in their shape, at `time` (B,) in [0, 1]."""
        velocity = self.network(self.network.condition(features), flatten_chunk(actions), TIME_SCALE * time)
        return velocity.reshape(actions.shape)

    def match(
        self,
        features: Float[Array, "B D"],
        actions: Float[Array, "B ..."],
        time: Float[Array, "B"],
        noise: Float[Array, "B ..."],
        valid: Bool[Array, "B ..."] | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, "B ..."]]:
        """(velocity loss, estimate of the clean actions) at given times and noise."""
        fraction = time.reshape(-1, *[1] * (actions.ndim - 1))
        here = (1.0 - fraction) * noise + fraction * actions
        velocity = self.predict_velocity(features, here, time)
        estimate = jnp.clip(here + (1.0 - fraction) * velocity, -1.0, 1.0)
        return masked_mean(jnp.square(velocity - (actions - noise)), valid), estimate

    def sample(
        self,
        features: Float[Array, "B D"],
        *,
        key: Array | None = None,
        noise: Float[Array, "B ..."] | None = None,
        num_steps: int | None = None,
    ) -> Float[Array, "B ..."]:
        """Actions (B, A) or (B, h, A) from `noise` (drawn from `key` when None) in exactly `num_steps` Euler steps."""
        shape = chunk_shape(features.shape[0], self.action_horizon, self.action_dim)
        start = jax.random.normal(draw_key(key), shape) if noise is None else noise
        count = self.num_inference_steps if num_steps is None else num_steps
        condition = self.network.condition(features)

        def euler(actions: Array, time: Array) -> tuple[Array, None]:
            velocity = self.network(condition, actions, jnp.broadcast_to(time, actions.shape[:1]))
            return actions + velocity / count, None

        times = TIME_SCALE * jnp.arange(count, dtype=jnp.float32) / count
        actions, _ = jax.lax.scan(euler, flatten_chunk(start), times)
        return jnp.clip(actions, -1.0, 1.0).reshape(shape)
