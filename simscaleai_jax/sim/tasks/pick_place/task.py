"""Pick and place: grasp a cube, lift it off the table and bring it to a target on the table or above it.

The cube is held by friction alone. Success needs the cube lifted in this episode, within 5 cm of the target and
slower than 0.1 m/s, so neither knocking nor throwing it counts; within 3 cm the episode ends for good, and so it
does, as a failure, when the cube leaves the workspace.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.core.streams import Stream, substream
from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import MAX_REACH, BaseTask, Bounds, Start, joints_near_home
from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig, check_scene, goal_corners
from simscaleai_jax.sim.tasks.pick_place.curriculum import EasedStarts
from simscaleai_jax.sim.tasks.pick_place.stages import clearance, closeness, grasp_progress, grasped
from simscaleai_jax.sim.tasks.snapshot import Snapshot

NEARBY = 0.03  # m, scale of the finer of the two relative observations
CANDIDATES = 12  # targets drawn per episode, of which the first that is far enough from the object is taken


@struct.dataclass
class PickPlaceState:
    """Goal and latches of one episode."""

    target_pos: Float[Array, "3"]  # m, where the object's centre belongs
    table_height: Float[Array, ""]  # m, top of the table
    half_size: Float[Array, "3"]  # m, of the box around the object in its own frame
    lifted: Bool[Array, ""]  # the object has left the table in this episode
    assisted: Bool[Array, ""]  # the episode began near or in a grasp (curriculum)
    has_potential: Bool[Array, ""]  # False until the first control step: the start itself earns nothing
    potential: dict[str, Float[Array, ""]]  # reach, grasp, lift, place after the last step, each in [0, 1]
    progress: dict[str, Float[Array, ""]]  # what the last step added to each potential


class PickPlaceTask(BaseTask):
    """The task behind `PickPlaceEnv`; see `Task` for what each function means."""

    name = "pick_place"

    def __init__(self, robot: Robot, config: PickPlaceConfig | None = None) -> None:
        super().__init__(robot, config or PickPlaceConfig())
        check_scene(robot, self.config)
        self._eased = EasedStarts(robot, self.config) if self.config.curriculum_share > 0.0 else None

    def curriculum(self, control_steps: Int[Array, ""]) -> Float[Array, ""]:
        """Share of episodes that start near or in a grasp, for an environment that has been trained that many steps."""
        left = 1.0 - control_steps.astype(jnp.float32) / self.config.curriculum_steps
        return self.config.curriculum_share * jnp.clip(left, 0.0, 1.0)

    def goal_corners(self, table_height: float) -> np.ndarray:
        """Corners (8, 3) m of the range of objects and targets over a table of that height, m."""
        return goal_corners(self.robot, self.config, table_height)

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, PickPlaceState]:
        keys = jax.random.split(key, 5)
        robot = self.robot
        table = jnp.float32(overrides.get("table_height", robot.table_height))
        half_size = jnp.asarray(overrides.get("object_half_size", robot.object_half_size[0]), jnp.float32)
        rest_height = table + half_size[2]
        joints = joints_near_home(robot, keys[0], self.config.joint_noise)
        object_pos = jnp.append(self._uniform_on_table(keys[1]), rest_height)
        yaw = exact_random.uniform(keys[4], (), -self.config.object_yaw, self.config.object_yaw)
        fingers, assisted, is_held = robot.finger_range[1], jnp.bool_(False), jnp.bool_(False)
        if self._eased is not None and "curriculum" in overrides:
            plain = (joints, object_pos, yaw, fingers)
            eased, is_held, has_room = self._eased.draw(keys[2], object_pos, yaw, half_size)
            assisted = has_room & (
                exact_random.uniform(substream(keys[2], Stream.CURRICULUM)) < overrides["curriculum"]
            )
            joints, object_pos, yaw, fingers = jax.tree.map(lambda a, b: jnp.where(assisted, a, b), eased, plain)
            is_held &= assisted
        target_pos = self._sample_target(keys[3], object_pos, rest_height)
        quat = jnp.array([jnp.cos(yaw / 2), 0.0, 0.0, jnp.sin(yaw / 2)])
        start = robot.start(joints, fingers, jnp.append(object_pos, quat)[None], target_pos, overrides)
        # A start in a grasp has those stages behind it: letting the object go costs them from the first step on.
        place_start = closeness(jnp.linalg.norm(object_pos - target_pos))
        potential = {"reach": 1.0, "grasp": 1.0, "lift": 1.0, "place": place_start}
        potential = {name: jnp.where(is_held, jnp.float32(value), 0.0) for name, value in potential.items()}
        zeros = {name: jnp.float32(0.0) for name in potential}
        return start, PickPlaceState(target_pos, table, half_size, is_held, assisted, is_held, potential, zeros)

    def update(self, snapshot: Snapshot, task_state: PickPlaceState, action: Float[Array, "4"]) -> PickPlaceState:
        height = clearance(snapshot, task_state.half_size, task_state.table_height)
        lifted = task_state.lifted | (height > self.config.lift_height)
        state = task_state.replace(lifted=lifted)
        after = self.potentials(snapshot, state)
        before = {name: jnp.where(state.has_potential, state.potential[name], value) for name, value in after.items()}
        progress = {name: value - before[name] for name, value in after.items()}
        return state.replace(has_potential=jnp.bool_(True), potential=after, progress=progress)

    def observe(self, snapshot: Snapshot, task_state: PickPlaceState) -> dict[str, Float[Array, "..."]]:
        obs = super().observe(snapshot, task_state)
        return obs | self._relative(obs, snapshot) if self.config.relative_observations else obs

    def _relative(self, obs: dict[str, Array], snapshot: Snapshot) -> dict[str, Array]:
        """What `relative_observations` adds: differences in metres and, finer, squashed beyond NEARBY; pads' touch."""
        to_object, to_target = obs["object_pos"] - obs["ee_pos"], obs["target_pos"] - obs["object_pos"]
        return {
            "ee_to_object": to_object,
            "ee_to_object_near": jnp.tanh(to_object / NEARBY),
            "object_to_target": to_target,
            "object_to_target_near": jnp.tanh(to_target / NEARBY),
            "touch": (snapshot.touch[0] > self.config.touch_force).astype(jnp.float32),
        }

    def observation_bounds(self) -> dict[str, Bounds]:
        bounds = super().observation_bounds()
        if self.config.relative_observations:
            for name in ("ee_to_object", "object_to_target"):
                bounds[name] = (np.full(3, -2 * MAX_REACH), np.full(3, 2 * MAX_REACH))
                bounds[name + "_near"] = (np.full(3, -1.0), np.full(3, 1.0))
            bounds["touch"] = (np.zeros(2), np.ones(2))
        return bounds

    def potentials(self, snapshot: Snapshot, task_state: PickPlaceState) -> dict[str, Float[Array, ""]]:
        """How far along each stage is, in [0, 1]; all zero once the object has left the workspace.

        Rewards are differences of these, so over an episode each term adds up to (last - first): waiting anywhere earns
        nothing, and whatever is gained by half a task is lost again when it is undone.
        """
        is_held = grasped(snapshot, self.config.touch_force)
        height = clearance(snapshot, task_state.half_size, task_state.table_height)
        rises = jnp.clip(height / self.config.lift_height, 0.0, 1.0)
        half_width = jnp.min(task_state.half_size[:2])
        stages = {
            "reach": closeness(self._reach_dist(snapshot)),
            "grasp": grasp_progress(snapshot, half_width, float(self.robot.finger_range[1]), is_held),
            "lift": jnp.where(is_held, jnp.where(task_state.lifted, 1.0, rises), 0.0),
            "place": jnp.where(is_held & task_state.lifted, closeness(self._place_dist(snapshot, task_state)), 0.0),
        }
        failed = self.has_failed(snapshot, task_state)
        return {name: jnp.where(failed, 0.0, value) for name, value in stages.items()}

    def reward_terms(
        self, snapshot: Snapshot, task_state: PickPlaceState, action: Float[Array, "4"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        config, progress = self.config, task_state.progress
        return {
            "reach": config.reach_weight * progress["reach"],
            "grasp": config.grasp_weight * progress["grasp"],
            "lift": config.lift_weight * progress["lift"],
            "place": config.place_weight * progress["place"],
            "success": jnp.where(self._has_arrived(snapshot, task_state), config.success_bonus, 0.0),
            "failure": jnp.where(self.has_failed(snapshot, task_state), -config.failure_penalty, 0.0),
            "action": -config.action_penalty * jnp.sum(action * action),
        }

    def terminated(self, snapshot: Snapshot, task_state: PickPlaceState) -> Bool[Array, ""]:
        return self._has_arrived(snapshot, task_state) | self.has_failed(snapshot, task_state)

    def info(self, snapshot: Snapshot, task_state: PickPlaceState) -> dict[str, Array]:
        place_dist = self._place_dist(snapshot, task_state)
        settled = task_state.lifted & self._is_slow(snapshot)
        return {
            "reach_dist": self._reach_dist(snapshot),
            "place_dist": place_dist,
            "grasped": grasped(snapshot, self.config.touch_force),
            "lifted": task_state.lifted,
            "success": settled & (place_dist < self.config.success_distance),
            "success_strict": settled & (place_dist < self.config.strict_distance),
            "failed": self.has_failed(snapshot, task_state),
            "assisted": task_state.assisted,
        }

    def has_failed(self, snapshot: Snapshot, task_state: PickPlaceState) -> Bool[Array, ""]:
        """Whether the object is outside the workspace."""
        low, high = jnp.array(self.config.workspace_low), jnp.array(self.config.workspace_high)
        relative = snapshot.object_pos[0] - jnp.zeros(3).at[2].set(task_state.table_height)
        return jnp.any((relative < low) | (relative > high))

    def _has_arrived(self, snapshot: Snapshot, task_state: PickPlaceState) -> Bool[Array, ""]:
        near = self._place_dist(snapshot, task_state) < self.config.termination_distance
        return task_state.lifted & near & self._is_slow(snapshot)

    def _is_slow(self, snapshot: Snapshot) -> Bool[Array, ""]:
        return jnp.linalg.norm(snapshot.object_vel[0, :3]) < self.config.success_speed

    def _reach_dist(self, snapshot: Snapshot) -> Float[Array, ""]:
        return jnp.linalg.norm(snapshot.ee_pos - snapshot.object_pos[0])

    def _place_dist(self, snapshot: Snapshot, task_state: PickPlaceState) -> Float[Array, ""]:
        return jnp.linalg.norm(snapshot.object_pos[0] - task_state.target_pos)

    def _uniform_on_table(self, key: PRNGKeyArray) -> Float[Array, "2"]:
        return exact_random.uniform(key, (2,), jnp.array(self.config.area_low), jnp.array(self.config.area_high))

    def _sample_target(self, key: PRNGKeyArray, object_pos: Float[Array, "3"], rest_height: Array) -> Float[Array, "3"]:
        """On the table or, for the configured share, above it; at least `min_distance` from the object's start."""
        key_area, key_air, key_height = jax.random.split(key, 3)
        low, high = jnp.array(self.config.area_low), jnp.array(self.config.area_high)
        drawn = exact_random.uniform(key_area, (CANDIDATES, 2), low, high)
        corners = jnp.array(
            [low, high, [low[0], high[1]], [high[0], low[1]]]
        )  # the last resort; one of them is far enough
        spots = jnp.concatenate([drawn, corners])
        spot = spots[exact_random.first_far(spots, object_pos[:2], self.config.min_distance)]
        in_air = exact_random.uniform(key_air) < self.config.air_share
        height = exact_random.uniform(key_height, (), self.config.air_low, self.config.air_high)
        return jnp.append(spot, rest_height + jnp.where(in_air, height, 0.0))
