"""What the diffusion and the flow head share: one network that turns noise into actions, a step at a time.

A head says how far from the noise a sample is (`draw_time`), what the network learns there (`score`), which points a
sampler visits (`sampling_path`) and how it moves on from one (`advance`).
"""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Num

from simscaleai_jax.models.layers import make_rngs
from simscaleai_jax.models.policy_heads.chunks import chunk_shape, draw_key, flatten_chunk
from simscaleai_jax.models.policy_heads.denoiser import Denoiser

# (actions (B, N), time ()) -> the network's answer (B, N)
DirectionFn = Callable[[Array, Array], Array]


class GenerativeHead(nnx.Module):
    """Actions in [-1, 1] drawn from a learned distribution; `action_horizon` h > 1 makes chunks (B, h, A).

    `time_scale` is the network's unit of time: one step of diffusion.
    """

    time_scale = 1.0

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        hidden_dim: int,
        n_layers: int,
        num_inference_steps: int,
        action_horizon: int,
        dtype: str,
        rngs: nnx.Rngs | None,
    ) -> None:
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

    @abc.abstractmethod
    def draw_time(self, key: Array, batch: int) -> Num[Array, "B"]:
        """A random time for each sample of a batch."""

    @abc.abstractmethod
    def score(
        self, features: Array, actions: Array, time: Array, noise: Array, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """(loss, estimate of the clean actions) at given times and noise."""

    @abc.abstractmethod
    def sampling_path(self, num_steps: int) -> Any:
        """Arrays that lead with `num_steps`: what `advance` needs to know about each step.

        Raises:
          ValueError: a number of steps that the head cannot take.
        """

    @abc.abstractmethod
    def advance(self, direction_fn: DirectionFn, actions: Array, point: Any) -> Array:
        """One sampling step of `actions` (B, N) from `point` to the next."""

    def forward(
        self,
        features: Float[Array | np.ndarray, "B D"],
        target_actions: Float[Array | np.ndarray, "B ..."] | None = None,
        *,
        key: Array | None = None,
        valid: Bool[Array | np.ndarray, "B ..."] | None = None,
    ) -> dict[str, Array]:
        """Returns {"predicted_actions"} and, with targets, {"loss"}; the same key gives the same result (None: key 0).

        Predictions are samples, except in training mode with targets, where they are the estimate that one network
        call makes from the noised target: free, and good enough to watch.

        Args:
          features: (B, input_dim).
          target_actions: (B, A) or (B, h, A) in [-1, 1].
          valid: steps that count, (B,) or (B, h).
        """
        features = jnp.asarray(features)
        key_noise, key_time = jax.random.split(draw_key(key))
        if target_actions is None:
            return {"predicted_actions": self.sample(features, key=key_noise)}
        target_actions = jnp.asarray(target_actions, jnp.float32)
        mask = None if valid is None else jnp.asarray(valid)
        noise = jax.random.normal(key_noise, target_actions.shape)
        time = self.draw_time(key_time, features.shape[0])
        loss, estimate = self.score(features, target_actions, time, noise, mask)
        actions = estimate if not self.deterministic else self.sample(features, key=key_noise)
        return {"loss": loss, "predicted_actions": actions}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Same as `forward`."""
        return self.forward(*args, **kwargs)

    def direction(
        self, features: Float[Array, "B D"], actions: Float[Array, "B ..."], time: Num[Array, "B"]
    ) -> Float[Array, "B ..."]:
        """The network's answer at `actions`, in their shape, and `time` (B,)."""
        answer = self.network(self.network.condition(features), flatten_chunk(actions), self._network_time(time))
        return answer.reshape(actions.shape)

    def sample(
        self,
        features: Float[Array, "B D"],
        *,
        key: Array | None = None,
        noise: Float[Array, "B ..."] | None = None,
        num_steps: int | None = None,
    ) -> Float[Array, "B ..."]:
        """Actions (B, A) or (B, h, A) from `noise` (None: drawn from `key`) in exactly `num_steps` network calls."""
        shape = chunk_shape(features.shape[0], self.action_horizon, self.action_dim)
        start = jax.random.normal(draw_key(key), shape) if noise is None else noise
        path = self.sampling_path(self.num_inference_steps if num_steps is None else num_steps)
        condition = self.network.condition(features)

        def direction(actions: Array, time: Array) -> Array:
            return self.network(condition, actions, self._network_time(jnp.broadcast_to(time, actions.shape[:1])))

        actions, _ = jax.lax.scan(
            lambda x, point: (self.advance(direction, x, point), None), flatten_chunk(start), path
        )
        return jnp.clip(actions, -1.0, 1.0).reshape(shape)

    def _network_time(self, time: Array) -> Array:
        return time if self.time_scale == 1.0 else self.time_scale * time
