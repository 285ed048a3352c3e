"""The batch as a Stable-Baselines3 `VecEnv`, which resets within the step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from simscaleai_jax.adapters.states import check_same_step, flat_space
from simscaleai_jax.core.observations import state_vector


class Sb3VecEnv(VecEnv):
    """`infos` hold the step's documented keys, `is_success`, and where an episode ended "terminal_observation" and
    "TimeLimit.truncated". Seeds are taken at the next reset, as SB3 does; single copies cannot be changed.
    """

    def __init__(self, envs: Any, flatten: bool = True) -> None:
        check_same_step(envs)
        self.envs, self.flatten = envs, flatten
        self._actions = np.zeros(envs.action_space.shape, np.float32)
        space = envs.single_observation_space
        super().__init__(envs.num_envs, flat_space(space) if flatten else space, envs.single_action_space)

    def reset(self) -> Any:
        """First observations."""
        seeds = self._seeds
        obs, _ = self.envs.reset(seed=None if seeds[0] is None else seeds)
        self._reset_seeds()
        return self._observation(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = np.asarray(actions, np.float32)

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """(observations, rewards, dones, infos)."""
        obs, reward, terminated, truncated, info = self.envs.step(self._actions)
        infos = [self._info(info, i) for i in range(self.num_envs)]
        for i in np.flatnonzero(terminated | truncated):
            infos[i]["terminal_observation"] = self._observation(info["final_obs"][i])
            infos[i]["TimeLimit.truncated"] = bool(truncated[i])
        return self._observation(obs), reward.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Forgets the state."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The batch's attribute, once for each copy."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: the copies are one batch."""
        raise NotImplementedError(f"The copies of a batch have no attributes of their own to set ({attr_name!r}).")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refused: the copies are one batch."""
        raise NotImplementedError(f"The copies of a batch have no methods of their own to call ({method_name!r}).")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No copy is wrapped; VecMonitor counts episodes from outside."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """No pictures for people: the batch draws none."""
        return [None] * self.num_envs

    def _observation(self, obs: Any) -> Any:
        return state_vector(obs) if self.flatten else obs

    def _info(self, info: dict[str, Any], i: int) -> dict[str, Any]:
        values = {key: info[key][i] for key in info if f"_{key}" in info and not key.startswith("final")}
        return values | {"is_success": bool(info["success"][i])}
