"""Lift: grasp a cube and raise it off the table.

Success is a cube that both pads hold with its lowest corner at least `height` above the table; the episode then ends
for good, and so it does, as a failure, when the cube leaves the workspace.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.grasping.config import GraspConfig, check_grasping
from simscaleai_jax.sim.tasks.grasping.stages import clearance, grasped
from simscaleai_jax.sim.tasks.grasping.task import GRASP, GraspState, GraspTask
from simscaleai_jax.sim.tasks.snapshot import Snapshot
from simscaleai_jax.sim.tasks.tabletop import fit_workspace

INSTRUCTIONS = (
    "lift the red cube",
    "pick up the cube",
    "raise the block off the table",
    "grasp the cube and hold it up",
    "take the object and lift it to the green ball",
    "lift the block straight up",
)
BEYOND = 0.02  # m above the height that counts at which the marker hangs


@dataclasses.dataclass(frozen=True)
class LiftConfig(GraspConfig):
    """Metres; see `GraspConfig` for the area, the grasp and the curriculum."""

    height: float = 0.1  # between the object's lowest corner and the table
    raise_weight: float = 4.0

    @classmethod
    def for_workspace(cls, low: tuple[float, ...], high: tuple[float, ...]) -> dict[str, Any]:
        """Settings for an arm that reaches the box `low`..`high` (m)."""
        return fit_workspace(cls, low, high) | {"height": min(cls.height, 0.9 * (high[2] - low[2]) - BEYOND)}

    def __post_init__(self) -> None:
        check_grasping(self, ("height",), ("raise_weight",))
        if self.height <= self.lift_height:
            raise ValueError(f"height must be above lift_height={self.lift_height}, got {self.height}")


class LiftTask(GraspTask):
    """The target is straight above the object's start; see `Task` and `GraspTask` for what each function means."""

    name = "lift"
    stages = (*GRASP, "raise")
    advice = "make area_low..area_high or height smaller"
    config: LiftConfig

    def __init__(self, robot: Robot, config: LiftConfig | None = None) -> None:
        super().__init__(robot, config or LiftConfig())

    @property
    def rise(self) -> float:
        return self.config.height + BEYOND

    def draw_goal(
        self, key: PRNGKeyArray, object_pos: Float[Array, "3"], state: GraspState, is_held: Bool[Array, ""]
    ) -> tuple[Float[Array, "3"], Float[Array, "0 7"]]:
        return object_pos.at[2].set(state.table_height + state.half_size[2] + self.rise), jnp.zeros((0, 7))

    def follow_goal(self, snapshot: Snapshot, state: GraspState) -> Float[Array, "3"]:
        return state.target_pos

    def further_stages(self, snapshot: Snapshot, state: GraspState, done: dict[str, Array]) -> dict[str, Array]:
        height = clearance(snapshot, state.half_size, state.table_height)
        return done | {"raise": jnp.where(grasped(snapshot, self.config.touch_force), self._share(height), 0.0)}

    def stages_held(self, object_pos: Float[Array, "3"], state: GraspState) -> dict[str, Array]:
        return {"raise": self._share(object_pos[2] - state.half_size[2] - state.table_height)}

    def has_arrived(self, snapshot: Snapshot, state: GraspState) -> Bool[Array, ""]:
        height = clearance(snapshot, state.half_size, state.table_height)
        return grasped(snapshot, self.config.touch_force) & (height >= self.config.height)

    def info(self, snapshot: Snapshot, task_state: GraspState) -> dict[str, Array]:
        return self.grasp_info(snapshot, task_state) | {
            "height": clearance(snapshot, task_state.half_size, task_state.table_height),
            "success": self.has_arrived(snapshot, task_state),
        }

    def _share(self, height: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.clip(height / self.config.height, 0.0, 1.0)
