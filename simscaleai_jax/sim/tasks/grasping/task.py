"""`GraspTask`: the object lies on the table, is grasped and lifted; what is done with it then is the task's own."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.core.streams import Stream, substream
from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.feasibility import check_fits_gripper
from simscaleai_jax.sim.tasks.base import BaseTask, Bounds, Start, joints_near_home
from simscaleai_jax.sim.tasks.grasping.config import GraspConfig
from simscaleai_jax.sim.tasks.grasping.stages import clearance, grasp_progress, grasped
from simscaleai_jax.sim.tasks.grasping.starts import EasedStarts
from simscaleai_jax.sim.tasks.progress import advance, closeness, no_progress, weighted
from simscaleai_jax.sim.tasks.snapshot import Snapshot
from simscaleai_jax.sim.tasks.tabletop import (
    area_corners,
    check_area,
    draw_yaw,
    has_left,
    place_on_table,
    pose,
    relative_bounds,
    relative_observations,
    rest_height,
)

GRASP = ("reach", "grasp", "lift")  # stages that every such task begins with


@struct.dataclass
class GraspState:
    """Goal and latches of one episode."""

    target_pos: Float[Array, "3"]  # m, where the object's centre belongs
    table_height: Float[Array, ""]  # m, top of the table
    half_size: Float[Array, "3"]  # m, of the box around the object in its own frame
    lifted: Bool[Array, ""]  # the object has left the table in this episode
    assisted: Bool[Array, ""]  # the episode began near or in a grasp (curriculum)
    has_potential: Bool[Array, ""]  # False until the first control step: the start itself earns nothing
    potential: dict[str, Float[Array, ""]]  # every stage after the last step, in [0, 1]
    progress: dict[str, Float[Array, ""]]  # what the last step added to each potential


class GraspTask(BaseTask):
    """What a task adds: the stages that follow the lift (`stages`, `further_stages`), the goal, and success.

    Attributes:
      stages: names of all stages, those of GRASP first; the config has `<name>_weight` for each.
      rise: m above the height at which the object rests that its goal may be.
      advice: what to change where the arm does not reach all goals.
    """

    stages: tuple[str, ...]
    advice = "make area_low..area_high smaller"
    config: GraspConfig

    def __init__(self, robot: Robot, config: GraspConfig) -> None:
        super().__init__(robot, config)
        check_fits_gripper(robot)
        check_area(robot, config, self.goal_corners(robot.table_height), self.advice)
        self._eased = EasedStarts(robot, config) if config.curriculum_share > 0.0 else None

    @property
    @abc.abstractmethod
    def rise(self) -> float: ...

    @abc.abstractmethod
    def draw_goal(
        self, key: PRNGKeyArray, object_pos: Float[Array, "3"], state: GraspState, is_held: Bool[Array, ""]
    ) -> tuple[Float[Array, "3"], Float[Array, "N 7"]]:
        """Where the object belongs, m, and the poses of the other objects; `is_held` in an eased start's grasp."""

    @abc.abstractmethod
    def follow_goal(self, snapshot: Snapshot, state: GraspState) -> Float[Array, "3"]:
        """Where the object belongs now, m."""

    @abc.abstractmethod
    def further_stages(self, snapshot: Snapshot, state: GraspState, done: dict[str, Array]) -> dict[str, Array]:
        """Every stage, in [0, 1], given those of GRASP."""

    @abc.abstractmethod
    def stages_held(self, object_pos: Float[Array, "3"], state: GraspState) -> dict[str, Array]:
        """The stages beyond GRASP at the start of an episode that holds the object."""

    @abc.abstractmethod
    def has_arrived(self, snapshot: Snapshot, state: GraspState) -> Bool[Array, ""]:
        """Whether the task is done, for good."""

    def curriculum(self, control_steps: Int[Array, ""]) -> Float[Array, ""]:
        """Share of episodes that start near or in a grasp, for an environment that has been trained that many steps."""
        left = 1.0 - control_steps.astype(jnp.float32) / self.config.curriculum_steps
        return self.config.curriculum_share * jnp.clip(left, 0.0, 1.0)

    def goal_corners(self, table_height: float) -> np.ndarray:
        """Corners (8, 3) m of the range of objects and targets over a table of that height, m."""
        return area_corners(self.robot, self.config, table_height, self.rise)

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, GraspState]:
        keys, robot = jax.random.split(key, 5), self.robot
        table, half_size = rest_height(robot, overrides)
        joints = joints_near_home(robot, keys[0], self.config.joint_noise)
        object_pos = jnp.append(place_on_table(keys[1], self.config), table + half_size[2])
        yaw = draw_yaw(keys[4], self.config)
        fingers, assisted, is_held = robot.finger_range[1], jnp.bool_(False), jnp.bool_(False)
        if self._eased is not None and "curriculum" in overrides:
            plain = (joints, object_pos, yaw, fingers)
            eased, is_held, has_room = self._eased.draw(keys[2], object_pos, yaw, half_size)
            assisted = has_room & (
                exact_random.uniform(substream(keys[2], Stream.CURRICULUM)) < overrides["curriculum"]
            )
            joints, object_pos, yaw, fingers = jax.tree.map(lambda a, b: jnp.where(assisted, a, b), eased, plain)
            is_held &= assisted
        zeros = no_progress(self.stages)
        state = GraspState(object_pos, table, half_size, is_held, assisted, is_held, zeros, zeros)
        target_pos, others = self.draw_goal(keys[3], object_pos, state, is_held)
        objects = jnp.concatenate([pose(object_pos, yaw)[None], others])
        start = robot.start(joints, fingers, objects, target_pos, overrides)
        # A start in a grasp has those stages behind it: letting the object go costs them from the first step on.
        state = state.replace(target_pos=target_pos)
        potential = {name: jnp.float32(1.0) for name in GRASP} | self.stages_held(object_pos, state)
        return start, state.replace(potential={n: jnp.where(is_held, value, 0.0) for n, value in potential.items()})

    def update(self, snapshot: Snapshot, task_state: GraspState, action: Float[Array, "A"]) -> GraspState:
        height = clearance(snapshot, task_state.half_size, task_state.table_height)
        lifted = task_state.lifted | (height > self.config.lift_height)
        state = task_state.replace(lifted=lifted, target_pos=self.follow_goal(snapshot, task_state))
        return advance(state, self.potentials(snapshot, state))

    def observe(self, snapshot: Snapshot, task_state: GraspState) -> dict[str, Float[Array, "..."]]:
        obs = super().observe(snapshot, task_state) | self.further_observations(snapshot)
        touches = snapshot.touch[0] > self.config.touch_force
        return obs | relative_observations(obs, touches) if self.config.relative_observations else obs

    def further_observations(self, snapshot: Snapshot) -> dict[str, Float[Array, "..."]]:
        """None beyond the arm, the object and the target."""
        return {}

    def observation_bounds(self) -> dict[str, Bounds]:
        return super().observation_bounds() | (relative_bounds() if self.config.relative_observations else {})

    def potentials(self, snapshot: Snapshot, task_state: GraspState) -> dict[str, Float[Array, ""]]:
        """How far along each stage is, in [0, 1]; all zero once the object has left the workspace."""
        is_held = grasped(snapshot, self.config.touch_force)
        height = clearance(snapshot, task_state.half_size, task_state.table_height)
        rises = jnp.clip(height / self.config.lift_height, 0.0, 1.0)
        half_width = jnp.min(task_state.half_size[:2])
        done = {
            "reach": closeness(self.reach_dist(snapshot)),
            "grasp": grasp_progress(snapshot, half_width, float(self.robot.finger_range[1]), is_held),
            "lift": jnp.where(is_held, jnp.where(task_state.lifted, 1.0, rises), 0.0),
        }
        failed = self.has_failed(snapshot, task_state)
        stages = self.further_stages(snapshot, task_state, done)
        return {name: jnp.where(failed, 0.0, stages[name]) for name in self.stages}

    def reward_terms(
        self, snapshot: Snapshot, task_state: GraspState, action: Float[Array, "A"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        config = self.config
        return weighted(config, self.stages, task_state.progress) | {
            "success": jnp.where(self.has_arrived(snapshot, task_state), config.success_bonus, 0.0),
            "failure": jnp.where(self.has_failed(snapshot, task_state), -config.failure_penalty, 0.0),
            "action": -config.action_penalty * jnp.sum(action * action),
        }

    def terminated(self, snapshot: Snapshot, task_state: GraspState) -> Bool[Array, ""]:
        return self.has_arrived(snapshot, task_state) | self.has_failed(snapshot, task_state)

    def has_failed(self, snapshot: Snapshot, task_state: GraspState) -> Bool[Array, ""]:
        """Whether the object is outside the workspace."""
        return has_left(self.config, snapshot.object_pos[0], task_state.table_height)

    def reach_dist(self, snapshot: Snapshot) -> Float[Array, ""]:
        """Between the tool and the object, m."""
        return jnp.linalg.norm(snapshot.ee_pos - snapshot.object_pos[0])

    def goal_dist(self, snapshot: Snapshot, task_state: Any) -> Float[Array, ""]:
        """Between the object and where it belongs, m."""
        return jnp.linalg.norm(snapshot.object_pos[0] - task_state.target_pos)

    def grasp_info(self, snapshot: Snapshot, task_state: GraspState) -> dict[str, Array]:
        """What every such task tells: distances in metres and flags."""
        return {
            "reach_dist": self.reach_dist(snapshot),
            "grasped": grasped(snapshot, self.config.touch_force),
            "lifted": task_state.lifted,
            "failed": self.has_failed(snapshot, task_state),
            "assisted": task_state.assisted,
        }
