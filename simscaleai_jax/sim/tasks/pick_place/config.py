"""Settings of pick and place, checked against the scene before anything is compiled."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from simscaleai_jax.core.config import settle
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.feasibility import REACH_TOLERANCE, check_fits_gripper
from simscaleai_jax.sim.robot.ik import check_reachable


@dataclasses.dataclass(frozen=True)
class PickPlaceConfig:
    """Metres, radians, m/s and newtons; positions are of the object's centre.

    Objects and targets are uniform in the rectangle `area_low`..`area_high` of the table, at least `min_distance`
    apart; a share `air_share` of the targets hovers `air_low`..`air_high` above the height at which the object
    rests. The object may be anywhere in the box `workspace_low`..`workspace_high` (heights above the table); outside
    it the episode has failed.

    Curriculum: in training a share of the episodes starts eased. Of these a share `curriculum_held` already holds the
    object in the air, a share `curriculum_around` has the open gripper around it on the table, and in the rest the
    arm hovers over it. The share begins at `curriculum_share` and falls linearly to zero over `curriculum_steps`
    control steps of each environment. Plain resets, and with them every evaluation, never start that way.

    `relative_observations` adds ee_to_object and object_to_target (m, (3,)), both once more as tanh(x / 0.03 m) under
    the names with `_near`, and touch (2,), 1 for each pad that presses.
    """

    area_low: tuple[float, float] = (0.4, -0.2)
    area_high: tuple[float, float] = (0.65, 0.2)
    min_distance: float = 0.1
    air_share: float = 0.5
    air_low: float = 0.03
    air_high: float = 0.2
    object_yaw: float = 0.2  # the object starts turned by up to this much either way
    joint_noise: float = 0.05  # rad, uniform either way around the home pose
    workspace_low: tuple[float, float, float] = (0.2, -0.45, -0.05)
    workspace_high: tuple[float, float, float] = (0.85, 0.45, 0.6)
    touch_force: float = 0.05  # N on each pad from which on the object counts as grasped
    lift_height: float = 0.01  # m between the object's lowest corner and the table from which on it counts as lifted
    success_distance: float = 0.05
    strict_distance: float = 0.02  # of `success_strict`, reported beside success
    termination_distance: float = 0.03
    success_speed: float = 0.1
    reach_weight: float = 1.0
    grasp_weight: float = 1.0
    lift_weight: float = 1.0
    place_weight: float = 4.0
    success_bonus: float = 8.0
    failure_penalty: float = 1.0
    action_penalty: float = 0.002  # per squared unit of action and step
    curriculum_share: float = 0.0
    curriculum_held: float = 0.5
    curriculum_around: float = 0.25
    curriculum_steps: int = 10_000
    relative_observations: bool = False

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m)."""
        half_diagonal = 0.5 * float(np.hypot(*np.subtract(high[:2], low[:2])))
        air = min(cls.air_high, 0.9 * (high[2] - low[2]))
        return {
            "area_low": tuple(low[:2]),
            "area_high": tuple(high[:2]),
            "min_distance": min(cls.min_distance, 0.7 * half_diagonal),
            "air_low": min(cls.air_low, 0.5 * air),
            "air_high": air,
            "workspace_low": (low[0] - 0.2, low[1] - 0.25, cls.workspace_low[2]),
            "workspace_high": (high[0] + 0.2, high[1] + 0.25, cls.workspace_high[2]),
        }

    def __post_init__(self) -> None:
        settle(self)
        for low, high in (("area_low", "area_high"), ("workspace_low", "workspace_high")):
            ranges = zip(getattr(self, low), getattr(self, high), strict=True)
            if not all(a < b for a, b in ranges):
                raise ValueError(f"{low} must lie below {high}, got {getattr(self, low)} and {getattr(self, high)}")
        if not 0.0 <= self.air_low <= self.air_high:
            raise ValueError(f"wanted 0 <= air_low <= air_high, got {self.air_low} and {self.air_high}")
        for share in ("air_share", "curriculum_share", "curriculum_held", "curriculum_around"):
            if not 0.0 <= getattr(self, share) <= 1.0:
                raise ValueError(f"{share} must lie in [0, 1], got {getattr(self, share)}")
        if self.curriculum_held + self.curriculum_around > 1.0:
            raise ValueError(
                "curriculum_held and curriculum_around are shares of the eased starts and must not exceed 1 together, "
                f"got {self.curriculum_held} and {self.curriculum_around}"
            )
        for positive in ("touch_force", "lift_height", "success_speed", "strict_distance", "curriculum_steps"):
            if getattr(self, positive) <= 0:
                raise ValueError(f"{positive} must be positive, got {getattr(self, positive)}")
        for weight in ("reach_weight", "grasp_weight", "lift_weight", "place_weight", "success_bonus",
                       "failure_penalty", "action_penalty", "joint_noise", "object_yaw", "min_distance"):  # fmt: skip
            if getattr(self, weight) < 0:
                raise ValueError(f"{weight} must not be negative, got {getattr(self, weight)}")
        if not 0.0 < self.termination_distance <= self.success_distance:
            raise ValueError(
                "wanted 0 < termination_distance <= success_distance, "
                f"got {self.termination_distance} and {self.success_distance}"
            )
        half_diagonal = 0.5 * float(np.hypot(*np.subtract(self.area_high, self.area_low)))
        if self.min_distance >= half_diagonal:
            raise ValueError(
                f"min_distance must be less than half the diagonal of the area, {half_diagonal:.3f} m, so that every "
                f"object has a target; got {self.min_distance}"
            )


def check_scene(robot: Robot, config: PickPlaceConfig) -> None:
    """Whether the object fits the gripper and the arm reaches the whole range of objects and targets.

    Raises:
      ValueError: what does not fit, with the numbers.
    """
    check_fits_gripper(robot)
    table = robot.table_height
    corners = goal_corners(robot, config, table)
    low = np.add(config.workspace_low, (0, 0, table))
    high = np.add(config.workspace_high, (0, 0, table))
    outside = corners[np.any((corners < low) | (corners > high), axis=1)]
    if len(outside):
        raise ValueError(f"target range leaves the workspace {low.tolist()}..{high.tolist()} at {outside[0].tolist()}")
    check_reachable(robot, corners, REACH_TOLERANCE, "make area_low..area_high or air_high smaller")


def goal_corners(robot: Robot, config: PickPlaceConfig, table_height: float) -> np.ndarray:
    """Corners (8, 3) m of the range of objects and targets over a table whose top is `table_height` m high."""
    rest = table_height + robot.object_half_size[0][2]
    sides = zip((*config.area_low, rest), (*config.area_high, rest + config.air_high), strict=True)
    return np.array(list(itertools.product(*sides)))
