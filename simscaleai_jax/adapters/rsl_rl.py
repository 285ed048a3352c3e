"""The batch as an rsl_rl `VecEnv`: torch tensors, episodes reset within the step, time limits in "time_outs"."""

from typing import Any

import numpy as np
import torch
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from simscaleai_jax.adapters.states import check_same_step
from simscaleai_jax.core.observations import state_vector


class RslRlVecEnv(VecEnv):
    """rsl_rl's runner sets `episode_length_buf` to random ages at the start; ours are staggered already, and the
    buffer tells, not sets, how old the episodes are.
    """

    def __init__(self, envs: Any, device: str = "cpu") -> None:
        check_same_step(envs)
        self.envs, self.device = envs, device
        self.num_envs, self.num_actions = envs.num_envs, envs.single_action_space.shape[0]
        self.max_episode_length = envs.batched.max_episode_steps
        self.cfg = {"env": getattr(envs.batched.functional.task, "name", "")}
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long, device=device)
        self._obs, _ = envs.reset()

    def get_observations(self) -> TensorDict:
        """{"policy": (N, S)} of the state vector."""
        return TensorDict({"policy": self._tensor(state_vector(self._obs))}, batch_size=[self.num_envs])

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """(observations, rewards (N,), dones (N,), {"time_outs", "log"})."""
        self._obs, reward, terminated, truncated, info = self.envs.step(actions.detach().cpu().numpy())
        done = terminated | truncated
        self.episode_length_buf = torch.where(self._tensor(done), 0, self.episode_length_buf + 1)
        log = {"success": float(np.mean(info["success"][done]))} if done.any() else {}
        extras = {"time_outs": self._tensor(truncated), "log": log}
        return self.get_observations(), self._tensor(reward.astype(np.float32)), self._tensor(done), extras

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, device=self.device)
