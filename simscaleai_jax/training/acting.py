"""The model in training as a pure policy, for closed-loop evaluation while it trains."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from simscaleai_jax.core.observations import state_keys
from simscaleai_jax.models.normalization import Statistics

IMAGE_RANK = 3


class ModelPolicy:
    """policy(obs, key) -> action of one observation, (A,), or of a batch, (B, A); physical units, clipped to [-1, 1].

    One object serves a whole run: new weights replace `params`, and nothing is compiled again.
    `apply(params, obs, key)` is the same as a pure function of the weights.
    """

    def __init__(self, graphdef: Any, params: Any, statistics: Statistics | None, tokens: Any = None) -> None:
        self.params = params
        self._graphdef, self._statistics, self._tokens = graphdef, statistics, tokens
        self._jitted = jax.jit(self.apply)

    def __call__(self, obs: Mapping[str, Any], key: Array) -> Array:
        return self._jitted(self.params, {name: value for name, value in obs.items() if name != "language"}, key)

    def apply(self, params: Any, obs: Mapping[str, Any], key: Array) -> Array:
        """The action; of a chunk the first one."""
        names = state_keys(obs)
        name, rank = (names[0], 1) if names else (next(iter(obs)), IMAGE_RANK)
        is_single = jnp.ndim(obs[name]) == rank
        observations = {
            key: jnp.asarray(value)[None] if is_single else jnp.asarray(value) for key, value in obs.items()
        }
        size = observations[name].shape[0]
        batch: dict[str, Any] = {"observations": observations}
        if self._tokens is not None:
            batch["language"] = jnp.broadcast_to(self._tokens, (size, self._tokens.shape[-1]))
        if self._statistics is not None:
            batch = self._statistics.normalize_batch(batch)
        actions = nnx.merge(self._graphdef, nnx.State(params)).forward(batch, key=key)["predicted_actions"]
        if self._statistics is not None:
            actions = self._statistics.denormalize_actions(actions)
        actions = actions.reshape(size, -1, actions.shape[-1])[:, 0]
        actions = jnp.clip(actions, -1.0, 1.0)
        return actions[0] if is_single else actions
