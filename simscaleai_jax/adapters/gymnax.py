"""A functional environment as a gymnax `Environment`, and with the five-part step that rejax 0.1 unpacks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from simscaleai_jax.adapters.states import flat_bounds
from simscaleai_jax.core.observations import state_vector


@struct.dataclass
class GymnaxParams:
    """What gymnax's wrappers and trainers ask of an environment's parameters; the time limit is the environment's."""

    max_steps_in_episode: int = struct.field(pytree_node=False)


class GymnaxEnv(Environment):
    """Observations are the state vector; `info` has the reward terms and the task's documented keys.

    `step` draws a new start where an episode has ended; keys may be raw uint32 ones.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.max_episode_steps = env.max_episode_steps

    @property
    def default_params(self) -> Any:
        """The time limit, which cannot be changed here."""
        return GymnaxParams(self.max_episode_steps)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        """(observation (S,), state) of a new episode."""
        state = self.env.reset(key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key))
        return state_vector(state.obs), state

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        """(observation, state, reward, terminated, info), without reset; nothing random is left for `key`."""
        state = self.env.step(state, action)
        info = {**state.info, "reward_terms": state.reward_terms}
        return state_vector(state.obs), state, state.reward, state.terminated, info

    def observe(self, key: jax.Array, state: Any, action: Any, params: Any) -> jax.Array:
        """The state vector."""
        return state_vector(state.obs)

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Whether the time limit has cut the episode."""
        return state.truncated

    def is_terminated(self, state: Any, params: Any) -> jax.Array:
        """Whether the task has ended it."""
        return state.terminated

    @property
    def name(self) -> str:
        """The task's."""
        return str(self.env.task.name)

    @property
    def num_actions(self) -> int:
        """Length of an action in [-1, 1]."""
        return self.env.action_size

    def action_space(self, params: Any = None) -> spaces.Box:
        """[-1, 1]^A."""
        return spaces.Box(-1.0, 1.0, (self.env.action_size,), jnp.float32)

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Bounds of the state vector."""
        low, high = flat_bounds(self.env)
        return spaces.Box(jnp.asarray(low), jnp.asarray(high), low.shape, jnp.float32)


class RejaxEnv(GymnaxEnv):
    """`step` gives (observation, state, reward, done, info): time limits are ends to rejax."""

    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One control step, a new episode where one has ended."""
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return obs, state, reward, terminated | truncated, info
