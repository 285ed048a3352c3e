"""The settings of an environment as every command takes them: --env.NAME."""

import dataclasses
from typing import Any, Literal

from simscaleai_jax.core import paths
from simscaleai_jax.tools.arguments import given


@dataclasses.dataclass(frozen=True)
class EnvOptions:
    """Settings of the environment; left out, those of a checkpoint or the environment's own defaults hold.

    Attributes:
      dt: seconds per physics step.
      control_dt: seconds per control step.
      max_episode_steps: time limit in control steps.
      robot: another arm (see simscale list-robots).
      controller: how actions are read: "cartesian", "cartesian_position", "joint_position" or "joint_delta".
      xml_path: your own MJCF file in place of the environment's scene (see docs/custom_mjcf.md).
      domain_randomization: draw a new model for every episode.
      randomization: how much of it: "light", "default" or "heavy"; naming one turns domain_randomization on, unless
        that is set as well.
      impl: physics engine: "auto", "c", "jax" or "warp" (see docs/engines.md).
      cameras: cameras whose images are observed; a policy sees them with --ppo.encoder cnn.
      image_size: side of those images in pixels.
      image_fov: their vertical field of view in degrees.
      task: settings of the task, by the names in PickPlaceConfig or ReachConfig: --env.task.NAME VALUE.
    """

    dt: float | None = None
    control_dt: float | None = None
    max_episode_steps: int | None = None
    robot: str | None = None
    controller: Literal["cartesian", "cartesian_position", "joint_position", "joint_delta"] | None = None
    xml_path: str | None = None
    domain_randomization: bool | None = None
    randomization: Literal["light", "default", "heavy"] | None = None
    impl: Literal["auto", "c", "jax", "warp"] | None = None
    cameras: tuple[str, ...] | None = None
    image_size: int | None = None
    image_fov: float | None = None
    task: dict[str, Any] = dataclasses.field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What is set, as `make_env` and its relatives take it.

        Raises:
          ValueError: how pictures look is set, and no camera takes any.
        """
        chosen = given(dataclasses.asdict(self))
        if not chosen["task"]:
            del chosen["task"]
        if "randomization" in chosen:
            chosen.setdefault("domain_randomization", True)
        if "xml_path" in chosen:
            chosen["xml_path"] = str(paths.local(chosen["xml_path"], "A scene"))
        size, fov = chosen.pop("image_size", None), chosen.pop("image_fov", None)
        if not self.cameras and (size or fov):
            name = "image_size" if size else "image_fov"
            raise ValueError(f"{name} is set, but no cameras are: name those whose pictures you want (--env.cameras).")
        if self.cameras is not None:
            look = given({"width": size, "height": size, "fov": fov})
            chosen["cameras"] = [{"name": name, **look} for name in self.cameras]
        return chosen
