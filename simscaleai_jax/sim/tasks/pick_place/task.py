"""Pick and place: grasp a cube, lift it off the table and bring it to a target on the table or above it.

The cube is held by friction alone. Success needs the cube lifted in this episode, within 5 cm of the target and
slower than 0.1 m/s, so neither knocking nor throwing it counts; within 3 cm the episode ends for good, and so it
does, as a failure, when the cube leaves the workspace.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.grasping.stages import grasped
from simscaleai_jax.sim.tasks.grasping.task import GRASP, GraspState, GraspTask
from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig
from simscaleai_jax.sim.tasks.progress import closeness
from simscaleai_jax.sim.tasks.snapshot import Snapshot
from simscaleai_jax.sim.tasks.tabletop import is_slow, place_apart


class PickPlaceTask(GraspTask):
    """The task behind `PickPlaceEnv`; see `Task` and `GraspTask` for what each function means."""

    name = "pick_place"
    stages = (*GRASP, "place")
    advice = "make area_low..area_high or air_high smaller"
    config: PickPlaceConfig

    def __init__(self, robot: Robot, config: PickPlaceConfig | None = None) -> None:
        super().__init__(robot, config or PickPlaceConfig())

    @property
    def rise(self) -> float:
        return self.config.air_high

    def draw_goal(
        self, key: PRNGKeyArray, object_pos: Float[Array, "3"], state: GraspState, is_held: Bool[Array, ""]
    ) -> tuple[Float[Array, "3"], Float[Array, "0 7"]]:
        """On the table or, for the configured share, above it; at least `min_distance` from the object's start."""
        key_area, key_air, key_height = jax.random.split(key, 3)
        spot = place_apart(key_area, self.config, object_pos[:2])
        in_air = exact_random.uniform(key_air) < self.config.air_share
        height = exact_random.uniform(key_height, (), self.config.air_low, self.config.air_high)
        rest = state.table_height + state.half_size[2]
        return jnp.append(spot, rest + jnp.where(in_air, height, 0.0)), jnp.zeros((0, 7))

    def follow_goal(self, snapshot: Snapshot, state: GraspState) -> Float[Array, "3"]:
        return state.target_pos

    def further_stages(self, snapshot: Snapshot, state: GraspState, done: dict[str, Array]) -> dict[str, Array]:
        carried = grasped(snapshot, self.config.touch_force) & state.lifted
        return done | {"place": jnp.where(carried, closeness(self.goal_dist(snapshot, state)), 0.0)}

    def stages_held(self, object_pos: Float[Array, "3"], state: GraspState) -> dict[str, Array]:
        return {"place": closeness(jnp.linalg.norm(object_pos - state.target_pos))}

    def has_arrived(self, snapshot: Snapshot, state: GraspState) -> Bool[Array, ""]:
        near = self.goal_dist(snapshot, state) < self.config.termination_distance
        return state.lifted & near & is_slow(snapshot, self.config.success_speed)

    def info(self, snapshot: Snapshot, task_state: GraspState) -> dict[str, Array]:
        distance = self.goal_dist(snapshot, task_state)
        settled = task_state.lifted & is_slow(snapshot, self.config.success_speed)
        return self.grasp_info(snapshot, task_state) | {
            "place_dist": distance,
            "success": settled & (distance < self.config.success_distance),
            "success_strict": settled & (distance < self.config.strict_distance),
        }
