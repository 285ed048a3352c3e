"""Settings of stack."""

import dataclasses
from typing import Any

from simscaleai_jax.sim.tasks.grasping.config import GraspConfig, check_grasping
from simscaleai_jax.sim.tasks.tabletop import fit_workspace


@dataclasses.dataclass(frozen=True)
class StackConfig(GraspConfig):
    """Metres and m/s; see `GraspConfig` for the area, the grasp and the curriculum.

    Of the eased starts that hold the cube a share `curriculum_over` has the base right below it.
    """

    sideways_tolerance: float = 0.015  # between the centres of a cube that stands on the base and of the base
    height_tolerance: float = 0.006
    success_speed: float = 0.1
    place_weight: float = 4.0
    release_weight: float = 2.0
    curriculum_over: float = 0.5

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m)."""
        return fit_workspace(cls, low, high)

    def __post_init__(self) -> None:
        positive = ("sideways_tolerance", "height_tolerance", "success_speed")
        check_grasping(self, positive, ("place_weight", "release_weight"), ("curriculum_over",))
