"""A functional environment as a brax `Env`, for brax's own wrappers and trainers."""

from typing import Any

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State

from simscaleai_jax.core.observations import state_size, state_vector


class BraxEnv(Env):
    """Observations are the state vector; `metrics` are the reward terms and the success of each step."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.max_episode_steps = env.max_episode_steps

    def reset(self, rng: jax.Array) -> State:
        """The first state of an episode; `rng` may be a raw uint32 key."""
        state = self.env.reset(rng if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(rng))
        return self._state(state, {}, {})

    def step(self, state: State, action: jax.Array) -> State:
        """One control step. `done` is the task's own end: brax counts the time limit itself, and its wrappers' metrics
        and infos are kept.
        """
        return self._state(self.env.step(state.pipeline_state, action), state.metrics, state.info)

    @property
    def observation_size(self) -> int:
        """Length of the state vector."""
        return state_size(self.env.observation_spec)

    @property
    def action_size(self) -> int:
        """Length of an action in [-1, 1]."""
        return self.env.action_size

    @property
    def backend(self) -> str:
        """The physics."""
        return "mjx"

    def _state(self, state: Any, metrics: dict[str, Any], info: dict[str, Any]) -> State:
        success = jnp.asarray(state.info["success"], jnp.float32)
        metrics = {**metrics, **state.reward_terms, "success": success}
        done = jnp.asarray(state.terminated, jnp.float32)
        return State(state, state_vector(state.obs), state.reward, done, metrics, info)
