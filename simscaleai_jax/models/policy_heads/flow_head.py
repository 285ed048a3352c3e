"""Flow matching over actions and action chunks: a straight path from noise to action, followed by a few Euler steps.

x_t = (1 - t) noise + t action; the network learns the velocity action - noise. https://arxiv.org/abs/2210.02747
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from simscaleai_jax.models.losses import masked_mean
from simscaleai_jax.models.policy_heads.generative import DirectionFn, GenerativeHead

TIME_SCALE = 100.0  # the sinusoid's unit is one of 100 steps, as in the diffusion head


class FlowActionHead(GenerativeHead):
    """Flow-matching head with the diffusion head's network. Actions lie in [-1, 1]; h > 1 makes chunks (B, h, A)."""

    time_scale = TIME_SCALE

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
        _check_steps(num_inference_steps)
        super().__init__(input_dim, action_dim, hidden_dim, n_layers, num_inference_steps, action_horizon, dtype, rngs)

    def draw_time(self, key: Array, batch: int) -> Float[Array, "B"]:
        """A time in [0, 1) for each sample."""
        return jax.random.uniform(key, (batch,))

    def score(
        self, features: Array, actions: Array, time: Array, noise: Array, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Same as `match`."""
        return self.match(features, actions, time, noise, valid)

    def predict_velocity(
        self, features: Float[Array, "B D"], actions: Float[Array, "B ..."], time: Float[Array, "B"]
    ) -> Float[Array, "B ..."]:
        """The velocity at `actions`, in their shape, at `time` (B,) in [0, 1]."""
        return self.direction(features, actions, time)

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

    def sampling_path(self, num_steps: int) -> tuple[Array, Array]:
        """Time and length of each step, (num_steps,) each."""
        _check_steps(num_steps)
        return jnp.arange(num_steps, dtype=jnp.float32) / num_steps, jnp.full(num_steps, 1.0 / num_steps)

    def advance(self, direction_fn: DirectionFn, actions: Array, point: Any) -> Array:
        """One Euler step."""
        time, length = point
        return actions + length * direction_fn(actions, time)


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_inference_steps is {num_steps}; wanted at least 1.")
