"""Settings of pick and place."""

import dataclasses
from typing import Any

from simscaleai_jax.sim.tasks.grasping.config import GraspConfig, check_grasping
from simscaleai_jax.sim.tasks.tabletop import fit_workspace


@dataclasses.dataclass(frozen=True)
class PickPlaceConfig(GraspConfig):
    """Metres, radians, m/s and newtons; see `GraspConfig` for the area, the grasp and the curriculum.

    A share `air_share` of the targets hovers `air_low`..`air_high` above the height at which the object rests.
    """

    air_share: float = 0.5
    air_low: float = 0.03
    air_high: float = 0.2
    success_distance: float = 0.05
    strict_distance: float = 0.02  # of `success_strict`, reported beside success
    termination_distance: float = 0.03
    success_speed: float = 0.1
    place_weight: float = 4.0

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m)."""
        air = min(cls.air_high, 0.9 * (high[2] - low[2]))
        return fit_workspace(cls, low, high) | {"air_low": min(cls.air_low, 0.5 * air), "air_high": air}

    def __post_init__(self) -> None:
        check_grasping(self, ("success_speed", "strict_distance"), ("place_weight",), ("air_share",))
        if not 0.0 <= self.air_low <= self.air_high:
            raise ValueError(f"wanted 0 <= air_low <= air_high, got {self.air_low} and {self.air_high}")
        if not 0.0 < self.termination_distance <= self.success_distance:
            raise ValueError(
                "wanted 0 < termination_distance <= success_distance, "
                f"got {self.termination_distance} and {self.success_distance}"
            )
