"""Normalisation statistics that travel with a model: whoever trains computes them, everybody else reads them.

A checkpoint of kind "model" keeps them under "statistics" in its tree. Models see normalised states and predict
normalised actions; policies take and give physical ones.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.core.observations import image_keys, state_keys, state_vector

MIN_STD = 1e-6


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How a model wants its data; a class says so by an attribute `scaling`.

    Attributes:
      state_floor: least deviation that a state is divided by, in the state's units: what moves less is noise.
      state_clip: largest magnitude of a normalised state, against inputs that training has never seen.
      actions: whether the range of the data's actions becomes [-1, 1].
    """

    state_floor: float = 0.0
    state_clip: float | None = None
    actions: bool = False


CAREFUL = Scaling(state_floor=1e-3, state_clip=10.0, actions=True)


@struct.dataclass
class Statistics:
    """Mean and scale of the state vector and the action.

    Attributes:
      state_mean: (S,) of the state vector (all state keys in sorted order).
      state_std: (S,); numbers that never changed have 1.
      action_mean: (A,); for min-max scaling to [-1, 1], the middle of the range.
      action_std: (A,); for min-max scaling, half the range.
      state_clip: [] largest magnitude of a normalised state; None for no limit.
    """

    state_mean: Any
    state_std: Any
    action_mean: Any
    action_std: Any
    state_clip: Any = None

    @classmethod
    def identity(cls, state_dim: int, action_dim: int) -> "Statistics":
        """Statistics that change nothing."""
        zeros, ones = np.zeros, np.ones
        return cls(
            state_mean=zeros(state_dim, np.float32),
            state_std=ones(state_dim, np.float32),
            action_mean=zeros(action_dim, np.float32),
            action_std=ones(action_dim, np.float32),
        )

    @classmethod
    def from_arrays(cls, states: np.ndarray, actions: np.ndarray, *, normalize_actions: bool = False) -> "Statistics":
        """From states (..., S) and actions (..., A); actions already lie in [-1, 1] and stay unless asked otherwise."""
        identity = cls.identity(states.shape[-1], actions.shape[-1])
        state_mean, state_std = _moments(states)
        statistics = identity.replace(state_mean=state_mean, state_std=state_std)
        if not normalize_actions:
            return statistics
        action_mean, action_std = _moments(actions)
        return statistics.replace(action_mean=action_mean, action_std=action_std)

    def arrays(self) -> dict[str, Any]:
        """The fields that are there, by name, as a checkpoint keeps them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def normalize_observations(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        """Images as they are, and the normalised state vector under "state" when there is any state."""
        out = {name: observations[name] for name in image_keys(observations)}
        if state_keys(observations):
            state = _affine_in(jnp.asarray(state_vector(observations)), self.state_mean, self.state_std)
            out["state"] = state if self.state_clip is None else jnp.clip(state, -self.state_clip, self.state_clip)
        return out

    def normalize_actions(self, actions: Float[Array | np.ndarray, "*B A"]) -> Float[Array, "*B A"]:
        """Physical to model actions."""
        return _affine_in(jnp.asarray(actions), self.action_mean, self.action_std)

    def denormalize_actions(self, actions: Float[Array | np.ndarray, "*B A"]) -> Float[Array, "*B A"]:
        """Model to physical actions."""
        mean, std = (_align(part, actions.ndim) for part in (self.action_mean, self.action_std))
        return jnp.asarray(actions) * std + mean

    def normalize_batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A training batch with normalised observations and actions."""
        out = {**batch, "observations": self.normalize_observations(batch["observations"])}
        if "actions" in batch:
            out["actions"] = self.normalize_actions(batch["actions"])
        return out


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = np.asarray(values, np.float64).reshape(-1, np.shape(values)[-1])
    std = flat.std(axis=0)
    return flat.mean(axis=0).astype(np.float32), np.where(std < MIN_STD, 1.0, std).astype(np.float32)


def _align(part: Any, ndim: int) -> Array:
    return jnp.asarray(part, jnp.float32).reshape(*[1] * (ndim - 1), -1)


def _affine_in(values: Array, mean: Any, std: Any) -> Array:
    return (values - _align(mean, values.ndim)) / _align(std, values.ndim)
