"""One face for gymnasium's environments: single ones, and vector ones in either autoreset mode."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of N environments.

    Attributes:
      obs: observations to act on, leaves lead with N.
      reward: (N,) rewards.
      terminated: (N,) no further reward.
      truncated: (N,) cut by a time limit.
      final_obs: observations before any reset.
      success: (N,) the step's info["success"] (or "is_success"), False where there is none.
      next_valid: (N,) False where the next step only resets (gymnasium's NEXT_STEP mode).
    """

    obs: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: Any
    success: np.ndarray
    next_valid: np.ndarray


class SingleEnv:
    """A plain gymnasium environment, reset when its episode ends."""

    def __init__(self, env: Any, seed: int) -> None:
        self.num_envs = 1
        self._env, self._seed = env, seed

    def reset(self) -> Any:
        """Starts the first episode."""
        return _batch(self._env.reset(seed=self._seed)[0])

    def step(self, action: np.ndarray) -> Step:
        """Steps with one action (1, A) in the environment's units, clipped."""
        obs, reward, terminated, truncated, info = self._env.step(_clip(action[0], self._env.action_space))
        final = _batch(obs)
        if terminated or truncated:
            obs = self._env.reset()[0]
        success = [bool(info.get("success", info.get("is_success", False)))]
        flags = np.array([[bool(terminated)], [bool(truncated)]])
        rewards = np.array([reward], np.float32)
        return Step(_batch(obs), rewards, flags[0], flags[1], final, np.array(success), np.ones(1, bool))


class VectorEnv:
    """A gymnasium vector environment."""

    def __init__(self, env: Any, seed: int) -> None:
        mode = str(env.metadata.get("autoreset_mode", "")).rpartition(".")[2].upper()
        if mode not in ("NEXT_STEP", "SAME_STEP"):
            raise ValueError(
                f"PPO needs a vector environment that resets itself (NEXT_STEP or SAME_STEP); got {mode!r}."
            )
        self.num_envs = env.num_envs
        self._env, self._seed, self._is_same_step = env, seed, mode == "SAME_STEP"

    def reset(self) -> Any:
        """Starts the first episodes."""
        return self._env.reset(seed=self._seed)[0]

    def step(self, action: np.ndarray) -> Step:
        """Steps with actions (N, A) in the environment's units, clipped."""
        obs, reward, terminated, truncated, info = self._env.step(_clip(action, self._env.single_action_space))
        done = terminated | truncated
        final, ended_info = obs, info
        if self._is_same_step and done.any():
            final = _with_rows(obs, info["final_obs"], done)
            ended_info = info.get("final_info", info)
        success = ended_info.get("success", ended_info.get("is_success", np.zeros(self.num_envs, bool)))
        valid = np.ones_like(done) if self._is_same_step else ~done
        flags = np.asarray(terminated, bool), np.asarray(truncated, bool)
        return Step(obs, np.asarray(reward, np.float32), *flags, final, np.asarray(success, bool), valid)


def as_plain_envs(env: Any, seed: int) -> SingleEnv | VectorEnv:
    """Wraps a gymnasium environment, whichever it is."""
    return VectorEnv(env, seed) if hasattr(env, "num_envs") else SingleEnv(env, seed)


def _clip(action: np.ndarray, space: Any) -> np.ndarray:
    whole = np.rint(action) if np.issubdtype(space.dtype, np.integer) else action
    return np.clip(whole, space.low, space.high).astype(space.dtype)


def _batch(obs: Any) -> Any:
    if isinstance(obs, dict):
        return {key: np.asarray(value)[None] for key, value in obs.items()}
    return np.asarray(obs)[None]


def _with_rows(obs: Any, rows: Any, where: np.ndarray) -> Any:
    """`obs` with the rows named by `where` replaced by those of an object array of single observations."""
    if isinstance(obs, dict):
        return {key: _with_rows(value, [row and row.get(key) for row in rows], where) for key, value in obs.items()}
    changed = np.array(obs)
    for i in np.flatnonzero(where):
        if rows[i] is not None:
            changed[i] = rows[i]
    return changed
