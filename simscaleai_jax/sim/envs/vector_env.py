"""A `gymnasium.vector.VectorEnv` over the batched functional environment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from simscaleai_jax.core.streams import Stream, check_seed, draw_key, seed_key
from simscaleai_jax.sim.envs.batched import BatchedEnv, BatchState


class Jitted:
    """A pure function, jitted. A deep copy shares what was compiled; where it is unpickled it is compiled anew."""

    def __init__(self, function: Callable) -> None:
        self._function, self._jitted = function, jax.jit(function)

    def __call__(self, *args: Any) -> Any:
        return self._jitted(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Jitted":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Jitted, (self._function,)


class BatchedVectorEnv(VectorEnv):
    """`num_envs` copies in one jitted call, auto-reset in the same step (`final_obs` and `final_info` hold the end).

    With cameras, `final_obs` holds the state keys alone: a finished episode's last picture is not drawn.
    Observations, rewards and flags are NumPy arrays. Episodes are staggered at the first reset: the first episode of
    each copy starts at a random age, so that their time limits do not coincide.
    """

    def __init__(self, env: BatchedEnv, num_envs: int) -> None:
        if not isinstance(num_envs, int) or num_envs < 1:
            raise ValueError(f"num_envs must be a positive integer, got {num_envs!r}")
        self.batched = env
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.render_mode = None
        self.single_observation_space = _observation_space(env)
        self.single_action_space = spaces.Box(-1.0, 1.0, (env.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: BatchState | None = None
        self._init = Jitted(env.init)
        self._step = Jitted(env.step)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start every copy anew; seed 0 is a seed. None takes the config's seed the first time, if it has one, and
        else draws from the environment's own generator.
        """
        stream = Stream.VECTOR_EPISODES
        if seed is None and self._state is None:
            seed = self.batched.functional.config.seed
        super().reset(seed=None if seed is None else check_seed(seed))
        key = draw_key(self.np_random, stream) if seed is None else seed_key(seed, stream)
        state = self._state = self._init(key, jnp.arange(self.num_envs))
        return _to_numpy(state.obs), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control step of every copy.

        Raises:
          ValueError: wrong shape or NaN in `actions`.
          RuntimeError: `reset` was not called first.
        """
        if self._state is None:
            raise RuntimeError("call reset before step")
        actions = np.asarray(actions, np.float32)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions must have shape {self.action_space.shape}, got {actions.shape}")
        if np.isnan(actions).any():
            raise ValueError("actions must not hold NaN")
        state = self._state = self._step(self._state, actions)
        terminated, truncated = np.asarray(state.terminated), np.asarray(state.truncated)
        info = _info(state, terminated | truncated)
        return _to_numpy(state.obs), np.asarray(state.reward, np.float64), terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Forget the state."""
        self._state = None


def _observation_space(env: BatchedEnv) -> spaces.Dict:
    bounds = env.functional.task.observation_bounds()
    boxes: dict[str, spaces.Space] = {}
    for key, spec in env.observation_spec.items():
        if key in bounds:
            low, high = (np.broadcast_to(np.asarray(side, np.float32), spec.shape) for side in bounds[key])
            boxes[key] = spaces.Box(low, high, dtype=np.float32)
        else:
            boxes[key] = spaces.Box(0, 255, spec.shape, np.uint8)
    return spaces.Dict(boxes)


def _info(state: BatchState, done: np.ndarray) -> dict[str, Any]:
    """Gymnasium's vector info: arrays with a mask beside each, and the end of each finished episode."""
    everyone = np.ones_like(done)
    info: dict[str, Any] = {}
    for key, value in state.info.items():
        info[key], info[f"_{key}"] = np.asarray(value), everyone
    if done.any():
        final = _to_numpy(state.final_obs)
        ended = np.full(done.shape, None, dtype=object)
        for index in np.flatnonzero(done):
            ended[index] = {key: value[index] for key, value in final.items()}
        info["final_obs"], info["_final_obs"] = ended, done
        info["final_info"] = {key: info[key] for key in state.info}
        info["final_info"]["episode"] = {
            "r": np.asarray(state.episode_return),
            "l": np.asarray(state.episode_length),
        }
        info["_final_info"] = done
    return info


def _to_numpy(tree: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in tree.items()}
