"""Stack: put one cube on another and let it go.

Success is a cube that stands on the base, slower than 0.1 m/s and touched by no finger; the episode then ends for good,
and so it does, as a failure, when either cube leaves the workspace.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import MAX_REACH, Bounds
from simscaleai_jax.sim.tasks.grasping.stages import grasped
from simscaleai_jax.sim.tasks.grasping.task import GRASP, GraspState, GraspTask
from simscaleai_jax.sim.tasks.progress import closeness
from simscaleai_jax.sim.tasks.snapshot import Snapshot
from simscaleai_jax.sim.tasks.stack.config import StackConfig
from simscaleai_jax.sim.tasks.tabletop import draw_yaw, has_left, is_slow, place_apart, pose

OFFSET = 0.005  # m by which the base may lie aside of a cube that is held over it in an eased start


class StackTask(GraspTask):
    """The target is where the object stands on the second one, the base; see `Task` and `GraspTask`."""

    name = "stack"
    stages = (*GRASP, "place", "release")
    config: StackConfig

    def __init__(self, robot: Robot, config: StackConfig | None = None) -> None:
        super().__init__(robot, config or StackConfig())

    @property
    def rise(self) -> float:
        return 2.0 * float(self.robot.object_half_size[1][2])

    def draw_goal(
        self, key: PRNGKeyArray, object_pos: Float[Array, "3"], state: GraspState, is_held: Bool[Array, ""]
    ) -> tuple[Float[Array, "3"], Float[Array, "1 7"]]:
        """On the base, which lies apart from the object or, in some eased starts, below it."""
        key_spot, key_yaw, key_over, key_offset = jax.random.split(key, 4)
        spot = place_apart(key_spot, self.config, object_pos[:2])
        below = object_pos[:2] + exact_random.uniform(key_offset, (2,), -OFFSET, OFFSET)
        is_over = is_held & (exact_random.uniform(key_over) < self.config.curriculum_over)
        half_height = float(self.robot.object_half_size[1][2])
        base = jnp.append(jnp.where(is_over, below, spot), state.table_height + half_height)
        return self._on(base, state), pose(base, draw_yaw(key_yaw, self.config))[None]

    def follow_goal(self, snapshot: Snapshot, state: GraspState) -> Float[Array, "3"]:
        return self._on(snapshot.object_pos[1], state)

    def further_stages(self, snapshot: Snapshot, state: GraspState, done: dict[str, Array]) -> dict[str, Array]:
        """A cube that stands on the base has the grasp behind it, and only letting it go is left."""
        carried = grasped(snapshot, self.config.touch_force) & state.lifted
        stands = self.stands(snapshot, state)
        place = jnp.where(carried | stands, closeness(self.goal_dist(snapshot, state)), 0.0)
        half_width, opened = jnp.min(state.half_size[:2]), float(self.robot.finger_range[1])
        openness = jnp.clip((snapshot.gripper[0] - half_width) / (opened - half_width), 0.0, 1.0)
        done = {name: jnp.where(stands, 1.0, value) for name, value in done.items()}
        return done | {"place": place, "release": jnp.where(stands, openness, 0.0)}

    def stages_held(self, object_pos: Float[Array, "3"], state: GraspState) -> dict[str, Array]:
        return {"place": closeness(jnp.linalg.norm(object_pos - state.target_pos)), "release": jnp.float32(0.0)}

    def stands(self, snapshot: Snapshot, state: GraspState) -> Bool[Array, ""]:
        """Whether the object, lifted in this episode, is where it stands on the base, held or not."""
        miss = snapshot.object_pos[0] - self._on(snapshot.object_pos[1], state)
        is_level = jnp.abs(miss[2]) < self.config.height_tolerance
        return state.lifted & is_level & (jnp.linalg.norm(miss[:2]) < self.config.sideways_tolerance)

    def has_arrived(self, snapshot: Snapshot, state: GraspState) -> Bool[Array, ""]:
        is_free = jnp.all(snapshot.touch[0] == 0.0)
        return self.stands(snapshot, state) & is_free & is_slow(snapshot, self.config.success_speed)

    def has_failed(self, snapshot: Snapshot, task_state: GraspState) -> Bool[Array, ""]:
        """Whether either object is outside the workspace."""
        return has_left(self.config, snapshot.object_pos[0], task_state.table_height) | has_left(
            self.config, snapshot.object_pos[1], task_state.table_height
        )

    def observe(self, snapshot: Snapshot, task_state: GraspState) -> dict[str, Float[Array, "..."]]:
        """Also the base: base_pos (3,) m, base_quat (4,)."""
        return super().observe(snapshot, task_state) | {
            "base_pos": jnp.clip(snapshot.object_pos[1], -MAX_REACH, MAX_REACH),
            "base_quat": jnp.clip(snapshot.object_quat[1], -1.0, 1.0),
        }

    def observation_bounds(self) -> dict[str, Bounds]:
        reach, turn = np.full(3, MAX_REACH), np.full(4, 1.0)
        return super().observation_bounds() | {"base_pos": (-reach, reach), "base_quat": (-turn, turn)}

    def info(self, snapshot: Snapshot, task_state: GraspState) -> dict[str, Array]:
        return self.grasp_info(snapshot, task_state) | {
            "place_dist": self.goal_dist(snapshot, task_state),
            "stands": self.stands(snapshot, task_state),
            "success": self.has_arrived(snapshot, task_state),
        }

    def _on(self, base: Float[Array, "3"], state: GraspState) -> Float[Array, "3"]:
        """Where the object's centre is when it stands on a base whose centre is at `base`, m."""
        return base.at[2].add(float(self.robot.object_half_size[1][2]) + state.half_size[2])
