"""What a simulated environment is built from: `SimConfig` and its cameras, checked before anything is compiled."""

import dataclasses
from typing import Any

from simscaleai_jax.core.config import settle
from simscaleai_jax.core.streams import check_seed

IMPLEMENTATIONS = ("auto", "c", "jax", "warp")
RENDERERS = ("jax", "mujoco")
CONTROLLERS = ("cartesian", "cartesian_position", "joint_position", "joint_delta")
MIN_RAMP_STEPS = 5


@dataclasses.dataclass
class CameraConfig:
    """One camera of an environment.

    `name` is a camera of the scene (`wrist_cam`, `front_cam`, `side_cam`); `width` and `height` are pixels; `fov` is
    the vertical field of view in degrees and wins over the model's own. `render_depth` and `render_segmentation` are
    kept for code that sets them: nothing is drawn ahead, and what a picture holds is said where one is asked for
    (`render_camera(depth=..., segmentation=...)`); observations hold colour alone.
    """

    name: str = "wrist_cam"
    width: int = 128
    height: int = 128
    fov: float = 60.0
    render_depth: bool = True
    render_segmentation: bool = False

    def __post_init__(self) -> None:
        settle(self)
        for side in ("width", "height"):
            size = getattr(self, side)
            if not isinstance(size, int) or size <= 0:
                raise ValueError(f"camera {self.name!r}: {side} must be a positive number of pixels, got {size!r}")
        if not 0.0 < self.fov < 180.0:
            raise ValueError(f"camera {self.name!r}: fov must lie inside (0, 180) degrees, got {self.fov}")


@dataclasses.dataclass
class SimConfig:
    """Simulation settings; the environment works on a private copy, the caller's object is never written to.

    `dt` and `control_dt` are seconds per physics step and per control step; `control_dt` is a whole multiple of `dt`.
    `xml_path` names a custom MJCF file ("" takes the task's own scene). `impl` chooses the engine of functional,
    batched and vector environments: "c" is MuJoCo itself on all cores, "jax" and "warp" are MJX; "auto" takes "c" on a
    CPU, "warp" on an NVIDIA GPU where warp is installed, else "jax". (A gymnasium adapter of one environment always
    steps MuJoCo itself; `impl` is then that of its `functional_env()`.) `task` is the task's own config dataclass, None
    for its defaults. `randomization` is a `DomainRandomizationConfig`, read when `domain_randomization` is on, None for
    its defaults. `controller` says how actions are read: "cartesian" steps of the end effector in its home
    orientation, "cartesian_position" without holding that, "joint_position", "joint_delta" (see `sim.control`).
    `robot` names another arm than the task's own (see `sim.list_robots`), around which the scene is then built; the
    task's ranges begin as that arm reaches. `renderer` "jax" needs no OpenGL; "mujoco" is MuJoCo's own picture.
    """

    xml_path: str = ""
    dt: float = 0.002
    control_dt: float = 0.05
    max_episode_steps: int = 200
    cameras: list[CameraConfig] = dataclasses.field(default_factory=lambda: [CameraConfig()])
    domain_randomization: bool = False
    seed: int | None = None
    impl: str = "auto"
    renderer: str = "jax"
    controller: str = "cartesian"
    robot: str = ""
    task: Any = None
    randomization: Any = None

    def __post_init__(self) -> None:
        if self.seed is not None:
            self.seed = check_seed(self.seed)
        settle(self)
        if self.dt <= 0.0:
            raise ValueError(f"dt must be positive, got {self.dt}")
        ratio = self.control_dt / self.dt
        if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6 * ratio:
            raise ValueError(f"control_dt must be a multiple of dt, got control_dt={self.control_dt}, dt={self.dt}")
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {self.max_episode_steps}")
        if self.robot and self.xml_path:
            raise ValueError(f"wanted a robot or an xml_path, got robot={self.robot!r} and xml_path={self.xml_path!r}")
        for field, choices in (
            ("impl", IMPLEMENTATIONS),
            ("renderer", RENDERERS),
            ("controller", CONTROLLERS),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {', '.join(choices)}, got {getattr(self, field)!r}")

    @property
    def substeps(self) -> int:
        """Physics steps per control step."""
        return round(self.control_dt / self.dt)

    @property
    def render_fps(self) -> int:
        """Control steps per second, to the nearest whole frame."""
        return max(1, round(1.0 / self.control_dt))

    @property
    def ramp_steps(self) -> int:
        """Equal steps in which control targets move to their new values: the fewest that divide the substeps, but at
        least MIN_RAMP_STEPS where there are that many substeps.
        """
        wanted = min(MIN_RAMP_STEPS, self.substeps)
        return next(count for count in range(wanted, self.substeps + 1) if self.substeps % count == 0)

    def copy(self) -> "SimConfig":
        """An independent copy, cameras included."""
        return dataclasses.replace(self, cameras=[dataclasses.replace(camera) for camera in self.cameras])
