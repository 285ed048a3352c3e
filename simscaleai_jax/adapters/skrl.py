"""The batch as an skrl `Wrapper` for torch agents: the state vector, flags (N, 1), episodes reset within the step."""

from typing import Any

import numpy as np
import torch
from skrl.envs.wrappers.torch import Wrapper

from simscaleai_jax.adapters.states import check_same_step, flat_space
from simscaleai_jax.core.observations import state_vector


class SkrlEnv(Wrapper):
    """`infos["episode"]` has the share of ended episodes that succeeded, which skrl's trainers log.

    skrl calls `reset` whenever it pleases, after every evaluation for example: only the first call starts episodes, the
    others give the observations that there are.
    """

    def __init__(self, envs: Any, device: str = "cpu") -> None:
        check_same_step(envs)
        super().__init__(envs)
        self._device = torch.device(device)
        self._space = flat_space(envs.single_observation_space)
        self._obs: Any = None

    @property
    def observation_space(self) -> Any:
        """Of one copy."""
        return self._space

    @property
    def action_space(self) -> Any:
        """Of one copy, [-1, 1]^A."""
        return self._env.single_action_space

    def reset(self) -> tuple[torch.Tensor, dict[str, Any]]:
        """(observations (N, S), {})."""
        if self._obs is None:
            self._obs, _ = self._env.reset()
        return self._tensor(state_vector(self._obs)), {}

    def step(self, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Any]:
        """(observations (N, S), rewards, terminated, truncated (N, 1) each, infos)."""
        self._obs, reward, terminated, truncated, info = self._env.step(actions.detach().cpu().numpy())
        done = terminated | truncated
        log = {"success": self._tensor(np.float32(np.mean(info["success"][done])))} if done.any() else {}
        columns = (self._tensor(values)[:, None] for values in (reward.astype(np.float32), terminated, truncated))
        return self._tensor(state_vector(self._obs)), *columns, {"episode": log}

    def state(self) -> torch.Tensor | None:
        """Nothing beside the observations."""
        return None

    def render(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing: the batch draws no pictures for people."""
        return None

    def close(self) -> None:
        """Forgets the state."""
        self._env.close()

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values, device=self._device)
