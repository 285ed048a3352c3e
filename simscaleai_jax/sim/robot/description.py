"""What a robot is to a task: where its parts are in MuJoCo's arrays, and what a user may say about them in YAML."""

import dataclasses
from typing import Any

import mujoco
import numpy as np

from simscaleai_jax.sim.robot.start import Start, make_start

PADS = ("left", "right")


@dataclasses.dataclass(frozen=True)
class Needs:
    """Parts that a task cannot do without.

    Attributes:
      objects: free bodies, `object` first.
      targets: mocap bodies that mark a goal, `target` first.
      gripper: whether there must be one.
      touch: whether the first object needs a contact sensor for each fingertip.
      mark: m, half the side of the square that marks a target; 0 for a ball.
    """

    objects: int = 0
    targets: int = 1
    gripper: bool = False
    touch: bool = False
    mark: float = 0.0


TARGET_ONLY = Needs()
PICKING = Needs(objects=1, gripper=True, touch=True)
STACKING = Needs(objects=2, targets=0, gripper=True, touch=True)
THREE_TARGETS = Needs(targets=3)
SORTING = Needs(objects=3, targets=2, gripper=True, touch=True, mark=0.06)


@dataclasses.dataclass(frozen=True)
class RobotNames:
    """What the names of a model do not say; read from `arm.robot.yaml` beside `arm.xml`, whose keys are these fields.

    Attributes:
      tool: site at the tool centre, its axes as the tool is held while working.
      held_axes: axes of that site (0 x, 1 y, 2 z) whose direction at home Cartesian control keeps: all three hold the
        whole orientation, [2] lets the tool turn about its own z, [] leaves the orientation alone. Default: all three
        with six joints or more, else none.
      gripper: actuators that open and close it; default: all that move a joint beyond the arm's last link.
      closed: their controls when closed; default: the lower ends of their control ranges.
      opened: likewise when open; default: the upper ends.
      fingertips: two sites where the fingers meet what they hold; without them fingers must be slides.
      objects: free bodies; default: those whose names begin with "object".
      targets: mocap bodies; default: those whose names begin with "target".
      table: mocap body with a box.
    """

    tool: str = "ee_site"
    held_axes: tuple[int, ...] | None = None
    gripper: tuple[str, ...] = ()
    closed: tuple[float, ...] = ()
    opened: tuple[float, ...] = ()
    fingertips: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    table: str = "table"

    def __post_init__(self) -> None:
        if not set(self.held_axes or ()) <= {0, 1, 2}:
            raise ValueError(f"held_axes must be among 0, 1 and 2, got {self.held_axes}")
        if len(self.fingertips) not in (0, 2):
            raise ValueError(f"fingertips: wanted two sites, got {list(self.fingertips)}")
        for name in ("closed", "opened"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.gripper):
                raise ValueError(f"{name}: wanted a control for each of gripper={list(self.gripper)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Robot:
    """Where a task's parts are inside MuJoCo's arrays. J arm joints, G gripper actuators, F finger joints, N objects,
    T targets, U actuators.
    """

    model: mujoco.MjModel  # for questions asked while a task is built; its functions never read it
    joints: np.ndarray  # (J,) joint ids along the chain from the base to the tool
    joint_qpos: np.ndarray  # (J,)
    joint_dof: np.ndarray  # (J,)
    joint_slides: np.ndarray  # (J,) whether it slides instead of turning
    joint_range: np.ndarray  # (J, 2) rad (m where it slides), within the control ranges
    arm_actuators: np.ndarray  # (J,) in the order of `joints`
    held_axes: tuple[int, ...]  # axes of the tool whose direction Cartesian control keeps
    gripper_actuators: np.ndarray  # (G,), none without a gripper
    gripper_range: np.ndarray  # (G, 2) control, closed and open
    finger_qpos: np.ndarray  # (F,)
    finger_pos: np.ndarray  # (F, 2) closed and open, m or rad
    finger_range: np.ndarray  # (2,) m, closed and open: opening of one finger, half the distance between the tips
    tip_sites: np.ndarray  # (2,) fingertips, or none where slides are read instead
    ee_site: int
    target_mocaps: np.ndarray  # (T,) indices into mocap_pos
    table_mocap: int  # index into mocap_pos, -1 without a table
    table_top: float  # m above the table body's origin
    table_height: float  # m, world height of the table's top in the model as given
    object_body: np.ndarray  # (N,)
    object_qpos: np.ndarray  # (N, 7)
    object_dof: np.ndarray  # (N, 6)
    object_half_size: np.ndarray  # (N, 3) m: half the width along x and y, depth of the lowest point below the origin
    touch_sensor: np.ndarray  # (N, 2, 4) addresses into sensordata, -1 without a sensor
    home_qpos: np.ndarray  # (nq,)
    home_ctrl: np.ndarray  # (U,)
    home_ee_pos: np.ndarray  # (3,) m
    home_ee_mat: np.ndarray  # (3, 3)
    mocap_pos: np.ndarray  # (M, 3) m
    mocap_quat: np.ndarray  # (M, 4)
    controller: str = "cartesian"  # how actions are read, a name of `sim.control.CONTROLLERS`

    @property
    def target_mocap(self) -> int:
        """The first target's index into mocap_pos."""
        return int(self.target_mocaps[0])

    @property
    def has_gripper(self) -> bool:
        return len(self.gripper_actuators) > 0

    def start(self, *args: Any, **parts: Any) -> Start:
        """A `Start` at the home pose but for the joints, opening, objects, target_pos and overrides given; see
        `make_start`.
        """
        return make_start(self, *args, **parts)
