"""An environment of ours with LeRobot's names, on host physics."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from simscaleai_jax import sim
from simscaleai_jax.core.observations import LANGUAGE, image_keys
from simscaleai_jax.datagen.formats.lerobot_features import ENVIRONMENT, STATE, split_keys
from simscaleai_jax.datagen.language import draw_instruction

NAMES = {STATE: "agent_pos", ENVIRONMENT: "environment_state"}


class LeRobotEnv(gymnasium.Wrapper):
    """Observations {"agent_pos" (n,), "environment_state" (m,), "pixels": {camera: (H, W, 3) uint8}}, of these what
    the environment has; `info` has `is_success`.

    Attributes:
      task: name of the environment. task_description: the instruction; where each episode has its own, that one.
      vectors: LeRobot's name -> our observation keys that it joins. cameras: our key -> camera.
    """

    def __init__(self, env: Any, task: str, instruction: str = "") -> None:
        super().__init__(env)
        self.task, self.task_description = task, instruction or draw_instruction(task, 0, 0)
        self._max_episode_steps = env.unwrapped.config.max_episode_steps
        known = env.observation_space.spaces
        pictures = image_keys(known)
        keys = sorted(set(known) - {*pictures, LANGUAGE})
        self.vectors = {NAMES[name]: keys for name, keys in split_keys(keys).items()}
        names = [camera.name for camera in env.unwrapped.config.cameras]
        self.cameras = {key: names[0] if key == "image" else key.removeprefix("image_") for key in pictures}
        boxes: dict[str, spaces.Space] = {
            name: spaces.Box(*(self._joined(keys, side) for side in ("low", "high")), dtype=np.float32)
            for name, keys in self.vectors.items()
        }
        if self.cameras:
            boxes["pixels"] = spaces.Dict({camera: known[key] for key, camera in self.cameras.items()})
        self.observation_space = spaces.Dict(boxes)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; LeRobot's options mean nothing here."""
        obs, info = self.env.reset(seed=seed)
        self.task_description = info.get("instruction", self.task_description)
        return self._observation(obs), info | {"is_success": False}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One control step."""
        obs, reward, terminated, truncated, info = self.env.step(np.clip(action, -1.0, 1.0))
        return self._observation(obs), reward, terminated, truncated, info | {"is_success": bool(info["success"])}

    def _observation(self, obs: dict[str, np.ndarray]) -> dict[str, Any]:
        named: dict[str, Any] = {
            name: np.concatenate([np.ravel(obs[key]) for key in keys]).astype(np.float32)
            for name, keys in self.vectors.items()
        }
        pixels = {camera: obs[key] for key, camera in self.cameras.items()}
        return named | ({"pixels": pixels} if pixels else {})

    def _joined(self, keys: list[str], side: str) -> np.ndarray:
        known = self.env.observation_space
        return np.concatenate([np.ravel(getattr(known[key], side)) for key in keys])


def make_env(task: str, settings: dict[str, Any], instruction: str = "") -> LeRobotEnv:
    """Builds one that can draw itself (`render_mode="rgb_array"`)."""
    return LeRobotEnv(sim.make_env(task, "rgb_array", **settings), task, instruction)
