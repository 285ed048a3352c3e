"""`--env.type=simscale`: one of our environments, by name or as a data set was recorded in."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from gymnasium import vector
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES, OBS_STATE

from lerobot_env_simscale.environment import LeRobotEnv, make_env

RECORD = "meta/simscaleai.json"  # of a data set that simscaleai_jax has exported


@EnvConfig.register_subclass("simscale")
@dataclasses.dataclass
class SimscaleEnv(EnvConfig):
    """Options of an environment.

    Attributes:
      task: a name of `simscale list-envs`.
      fps: control steps per second.
      dataset: a LeRobot data set that simscaleai_jax has exported: its task, control rate and settings are taken,
        whatever else is said here but for `episode_length`.
      robot, controller, domain_randomization: as in SimConfig.
      dt: seconds per physics step.
      cameras, image_size: names, and pixels of a side.
      episode_length: control steps, 0 for the data set's, or 200.
      instruction: what the policy is told; "" for the task's first.
    """

    task: str | None = "reach"
    fps: int = 20
    dataset: str = ""
    robot: str = ""
    controller: str = "cartesian"
    domain_randomization: bool = False
    dt: float = 0.002
    cameras: list[str] = dataclasses.field(default_factory=list)
    image_size: int = 64
    episode_length: int = 0
    instruction: str = ""

    def __post_init__(self) -> None:
        """Builds the environment once to learn its features.

        Raises:
          ValueError: an unknown task or option. FileNotFoundError: `dataset` is not an export of ours.
        """
        env = make_env(*self.settings(), self.instruction)
        self.task, self.fps = env.task, env.metadata["render_fps"]
        self.features, self.features_map = features_of(env)
        env.close()

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Settings of the environment, fields of SimConfig and of its task."""
        return self.settings()[1]

    def settings(self) -> tuple[str, dict[str, Any]]:
        """(task, settings of `simscaleai_jax.sim.make_env`)."""
        length = {"max_episode_steps": self.episode_length} if self.episode_length else {}
        if self.dataset:
            record = json.loads((Path(self.dataset) / RECORD).read_text())
            return record["env_name"], {"cameras": []} | record["env_kwargs"] | {"impl": "auto"} | length
        cameras = [{"name": name, "width": self.image_size, "height": self.image_size} for name in self.cameras]
        chosen = {"robot": self.robot, "controller": self.controller, "domain_randomization": self.domain_randomization}
        return str(self.task), chosen | {"dt": self.dt, "control_dt": 1.0 / self.fps, "cameras": cameras} | length

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, vector.VectorEnv]]:
        """{"simscale": {0: the environments}}; asynchronous ones are processes that start anew, for JAX cannot fork."""
        make = [functools.partial(make_env, *self.settings(), self.instruction) for _ in range(n_envs)]
        mode = vector.AutoresetMode.SAME_STEP
        if use_async_envs and n_envs > 1:
            return {self.type: {0: vector.AsyncVectorEnv(make, context="spawn", autoreset_mode=mode)}}
        return {self.type: {0: vector.SyncVectorEnv(make, autoreset_mode=mode)}}


def features_of(env: LeRobotEnv) -> tuple[dict[str, PolicyFeature], dict[str, str]]:
    """(features, and their names in policies and data sets)."""
    spaces = env.observation_space.spaces
    features = {ACTION: PolicyFeature(FeatureType.ACTION, env.action_space.shape)}
    names = {ACTION: ACTION}
    kinds = {"agent_pos": (FeatureType.STATE, OBS_STATE), "environment_state": (FeatureType.ENV, OBS_ENV_STATE)}
    for key, (kind, name) in kinds.items():
        if key in spaces:
            features[key], names[key] = PolicyFeature(kind, spaces[key].shape), name
    for camera, box in spaces["pixels"].spaces.items() if "pixels" in spaces else ():
        features[f"pixels/{camera}"] = PolicyFeature(FeatureType.VISUAL, box.shape)
        names[f"pixels/{camera}"] = f"{OBS_IMAGES}.{camera}"
    return features, names
