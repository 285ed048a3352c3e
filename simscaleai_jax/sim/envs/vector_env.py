"""A `gymnasium.vector.VectorEnv` over batched functional environments, with each of gymnasium's ways to reset."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from simscaleai_jax.core.errors import check_names, unknown_name
from simscaleai_jax.core.forks import check_not_forked
from simscaleai_jax.core.streams import Stream, check_seed, draw_key, seed_key
from simscaleai_jax.sim.envs.batched import BatchedEnv, BatchState
from simscaleai_jax.sim.envs.waiting import WaitingBatch
from simscaleai_jax.sim.trees import select


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
    """`num_envs` copies in one jitted call.

    `autoreset_mode`, a `gymnasium.vector.AutoresetMode` or its value, says what follows the end of an episode:

      SAME_STEP (default): the next episode within the same step; `final_obs` and `final_info` hold the end, with
        cameras the state keys alone (a finished episode's last picture is not drawn). The first episodes after a full
        reset start at random ages, so that their time limits do not coincide.
      NEXT_STEP: the step after it begins the next episode; that step's action means nothing and its reward is 0.
      DISABLED: nothing, until `reset(options={"reset_mask": mask})`.

    Observations, rewards and flags are NumPy arrays of the caller's own.
    """

    def __init__(
        self, env: BatchedEnv, num_envs: int, autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP
    ) -> None:
        if not isinstance(num_envs, int) or num_envs < 1:
            raise ValueError(f"num_envs must be a positive integer, got {num_envs!r}")
        check_not_forked()
        self.batched = env
        self.num_envs = num_envs
        self.autoreset_mode = _mode(autoreset_mode)
        fps = env.functional.config.render_fps
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": [], "render_fps": fps}
        self.render_mode = None
        self.single_observation_space = _observation_space(env)
        self.single_action_space = spaces.Box(-1.0, 1.0, (env.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: Any = None
        self._ended = np.zeros(num_envs, bool)
        self._resets_at_once = self.autoreset_mode == AutoresetMode.SAME_STEP
        programs: Any = env if self._resets_at_once else WaitingBatch(env.functional)
        self._init, self._step = Jitted(programs.init), Jitted(programs.step)
        self._begin, self._select = Jitted(_from_their_start), Jitted(select)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start every copy anew, or those of `options["reset_mask"]`.

        Args:
          seed: one for all (copies differ by their index; 0 is a seed), or one for each: copies with equal seeds play
            equal episodes, and None draws. None takes the config's seed the first time, if it has one, and else draws
            from the environment's own generator.
          options: {"reset_mask": bool array [num_envs]}: the others stay where they are.
        Raises:
          ValueError: an unknown option, or a list of seeds or a mask of another length.
        """
        check_names("reset option", options or {}, ["reset_mask"])
        mask = self._reset_mask((options or {}).get("reset_mask"))
        if seed is None and self._state is None:
            seed = self.batched.functional.config.seed
        if seed is not None and not isinstance(seed, Sequence | np.ndarray):
            seed = check_seed(seed)
        super().reset(seed=seed if isinstance(seed, int) else None)
        state = self._init(*self._keys(seed))
        if mask is None:
            self._ended[:] = False
        else:
            state = self._select(mask, self._begin(state) if self._resets_at_once else state, self._state)
            self._ended &= ~mask
        self._state = state
        return _to_numpy(state.env.obs), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control step of every copy.

        Raises:
          ValueError: wrong shape or NaN in `actions`.
          RuntimeError: `reset` was not called first, or not for an episode that ended (DISABLED).
        """
        if self._state is None:
            raise RuntimeError("call reset before step")
        actions = np.asarray(actions, np.float32)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions must have shape {self.action_space.shape}, got {actions.shape}")
        if np.isnan(actions).any():
            raise ValueError("actions must not hold NaN")
        if self._resets_at_once:
            state = ended = self._state = self._step(self._state, actions)
        else:
            self._check_waiting()
            state = self._state = self._step(self._state, actions, self._ended)
            ended = state.env
        terminated, truncated = np.array(ended.terminated), np.array(ended.truncated)
        self._ended = terminated | truncated
        info = _info(ended.info)
        if self._resets_at_once and self._ended.any():
            info |= _final_info(state, self._ended, info)
        return _to_numpy(state.env.obs), np.array(ended.reward, np.float64), terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Forget the state."""
        self._state = None

    def _reset_mask(self, given: Any) -> np.ndarray | None:
        if given is None:
            return None
        mask = np.asarray(given)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"reset_mask must be a bool array of shape ({self.num_envs},) with at least one True, got dtype "
                f"{mask.dtype} and shape {mask.shape}: {mask!r}"
            )
        if self._state is None:
            raise RuntimeError("call reset without a reset_mask first")
        return mask

    def _keys(self, seed: int | Sequence[int | None] | None) -> tuple[Any, Any]:
        """(one key or [B] keys, environment ids): with seeds of their own, ids do not tell copies apart."""
        if seed is None or isinstance(seed, int):
            return self._key(seed), jnp.arange(self.num_envs)
        if len(seed) != self.num_envs:
            raise ValueError(f"a list of seeds must hold one for each of {self.num_envs} environments, got {len(seed)}")
        return jnp.stack([self._key(one) for one in seed]), jnp.zeros(self.num_envs, jnp.int32)

    def _key(self, seed: int | None) -> Any:
        stream = Stream.VECTOR_EPISODES
        return draw_key(self.np_random, stream) if seed is None else seed_key(check_seed(seed), stream)

    def _check_waiting(self) -> None:
        if self.autoreset_mode == AutoresetMode.DISABLED and self._ended.any():
            raise RuntimeError(
                f"the episodes of environments {np.flatnonzero(self._ended).tolist()} have ended; reset them with "
                'reset(options={"reset_mask": mask}) before the next step'
            )


def _mode(given: AutoresetMode | str) -> AutoresetMode:
    choices = {mode.value: mode for mode in AutoresetMode}
    if isinstance(given, AutoresetMode):
        return given
    if given not in choices:
        raise unknown_name("autoreset_mode", str(given), choices)
    return choices[given]


def _from_their_start(state: BatchState) -> BatchState:
    """First episodes that are not staggered: single copies are reset at any time anyway."""
    return state.replace(env=state.env.replace(step=jnp.zeros_like(state.env.step)))


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


def _info(values: dict[str, jax.Array]) -> dict[str, Any]:
    """Gymnasium's vector info: arrays with a mask beside each."""
    info: dict[str, Any] = {}
    for key, value in values.items():
        info[key] = np.array(value)
        info[f"_{key}"] = np.ones(len(info[key]), bool)
    return info


def _final_info(state: BatchState, done: np.ndarray, info: dict[str, Any]) -> dict[str, Any]:
    """The end of each finished episode."""
    final = _to_numpy(state.final_obs)
    ended = np.full(done.shape, None, dtype=object)
    for index in np.flatnonzero(done):
        ended[index] = {key: value[index].copy() for key, value in final.items()}
    totals = {"r": np.array(state.episode_return), "l": np.array(state.episode_length)}
    final_info = {key: info[key].copy() for key in state.info} | {"episode": totals}
    return {"final_obs": ended, "_final_obs": done.copy(), "final_info": final_info, "_final_info": done.copy()}


def _to_numpy(tree: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    return {key: np.array(value) for key, value in tree.items()}
