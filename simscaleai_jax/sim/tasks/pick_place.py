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

from simscaleai_jax.sim.control import ACTION_SIZE, cartesian_control
from simscaleai_jax.sim.robot import Robot, pick, place
from simscaleai_jax.sim.snapshot import Snapshot
from simscaleai_jax.sim.task import Bounds, Start, scenery
from simscaleai_jax.sim.tasks.pick_place_config import PickPlaceConfig, check_scene, workspace_postures

MAX_JOINT_VEL = 10.0  # rad/s, observations are clipped to it
MAX_REACH = 2.0  # m, bound of observed positions
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


class PickPlaceTask:
    """The task behind `PickPlaceEnv`; see `Task` for what each function means."""

    name = "pick_place"
    action_size = ACTION_SIZE

    def __init__(self, robot: Robot, config: PickPlaceConfig | None = None) -> None:
        self.robot = robot
        self.config = config or PickPlaceConfig()
        check_scene(robot, self.config)
        self._postures = workspace_postures(robot, self.config) if self.config.curriculum_share > 0.0 else None

    def curriculum(self, control_steps: Int[Array, ""]) -> Float[Array, ""]:
        """Share of episodes that start near or in a grasp, for an environment that has been trained that many steps."""
        left = 1.0 - control_steps.astype(jnp.float32) / self.config.curriculum_steps
        return self.config.curriculum_share * jnp.clip(left, 0.0, 1.0)

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, PickPlaceState]:
        keys = jax.random.split(key, 5)
        robot = self.robot
        table = jnp.float32(overrides.get("table_height", robot.table_height))
        half_size = jnp.asarray(overrides.get("object_half_size", robot.object_half_size[0]), jnp.float32)
        rest_height = table + half_size[2]
        noise = jax.random.uniform(keys[0], (7,), minval=-self.config.joint_noise, maxval=self.config.joint_noise)
        joints = jnp.clip(pick(robot.home_qpos, robot.joint_qpos) + noise, *robot.joint_range.T).astype(jnp.float32)
        object_pos = jnp.append(self._uniform_on_table(keys[1]), rest_height)
        fingers = robot.finger_range[1]
        assisted = jnp.bool_(False)
        if self._postures is not None and "curriculum" in overrides:
            assisted, joints, object_pos, fingers = self._assist(keys[2], overrides, joints, object_pos, half_size)
        target_pos = self._sample_target(keys[3], object_pos, rest_height)
        yaw = jax.random.uniform(keys[4], minval=-self.config.object_yaw, maxval=self.config.object_yaw)
        yaw = jnp.where(assisted, 0.0, yaw)
        start = self._start(joints, fingers, object_pos, yaw, target_pos, overrides)
        zeros = {name: jnp.float32(0.0) for name in ("reach", "grasp", "lift", "place")}
        no = jnp.bool_(False)
        return start, PickPlaceState(target_pos, table, half_size, no, assisted, no, zeros, dict(zeros))

    def control(self, snapshot: Snapshot, task_state: PickPlaceState, action: Float[Array, "4"]) -> Float[Array, "U"]:
        return cartesian_control(self.robot, snapshot, action)

    def update(self, snapshot: Snapshot, task_state: PickPlaceState, action: Float[Array, "4"]) -> PickPlaceState:
        lifted = task_state.lifted | (clearance(snapshot, task_state) > self.config.lift_height)
        state = task_state.replace(lifted=lifted)
        after = self.potentials(snapshot, state)
        before = {name: jnp.where(state.has_potential, state.potential[name], value) for name, value in after.items()}
        progress = {name: value - before[name] for name, value in after.items()}
        return state.replace(has_potential=jnp.bool_(True), potential=after, progress=progress)

    def observe(self, snapshot: Snapshot, task_state: PickPlaceState) -> dict[str, Float[Array, "..."]]:
        return {
            "joint_pos": snapshot.joint_pos,
            "joint_vel": jnp.clip(snapshot.joint_vel, -MAX_JOINT_VEL, MAX_JOINT_VEL),
            "ee_pos": snapshot.ee_pos,
            "object_pos": jnp.clip(snapshot.object_pos[0], -MAX_REACH, MAX_REACH),
            "object_quat": jnp.clip(snapshot.object_quat[0], -1.0, 1.0),
            "target_pos": task_state.target_pos,
            "gripper_state": snapshot.gripper,
        }

    def observation_bounds(self) -> dict[str, Bounds]:
        margin = 0.1  # rad a joint may be pushed past its limit
        low, high = self.robot.finger_range
        reach = (np.full(3, -MAX_REACH), np.full(3, MAX_REACH))
        return {
            "joint_pos": (self.robot.joint_range[:, 0] - margin, self.robot.joint_range[:, 1] + margin),
            "joint_vel": (np.full(7, -MAX_JOINT_VEL), np.full(7, MAX_JOINT_VEL)),
            "ee_pos": reach,
            "object_pos": reach,
            "object_quat": (np.full(4, -1.0), np.full(4, 1.0)),
            "target_pos": reach,
            "gripper_state": (np.array([low - 0.01]), np.array([high + 0.01])),  # m, the fingers are springy
        }

    def potentials(self, snapshot: Snapshot, task_state: PickPlaceState) -> dict[str, Float[Array, ""]]:
        """How far along each stage is, in [0, 1]; all zero once the object has left the workspace.

        Rewards are differences of these, so over an episode each term adds up to (last - first): waiting anywhere earns
        nothing, and whatever is gained by half a task is lost again when it is undone.
        """
        is_held = grasped(snapshot, self.config)
        rises = jnp.clip(clearance(snapshot, task_state) / self.config.lift_height, 0.0, 1.0)
        stages = {
            "reach": _closeness(self._reach_dist(snapshot)),
            "grasp": jnp.float32(is_held),
            "lift": jnp.where(is_held, jnp.where(task_state.lifted, 1.0, rises), 0.0),
            "place": jnp.where(is_held & task_state.lifted, _closeness(self._place_dist(snapshot, task_state)), 0.0),
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
            "grasped": grasped(snapshot, self.config),
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
        return jax.random.uniform(
            key, (2,), minval=jnp.array(self.config.area_low), maxval=jnp.array(self.config.area_high)
        )

    def _sample_target(self, key: PRNGKeyArray, object_pos: Float[Array, "3"], rest_height: Array) -> Float[Array, "3"]:
        """On the table or, for the configured share, above it; at least `min_distance` from the object's start."""
        key_area, key_air, key_height = jax.random.split(key, 3)
        low, high = jnp.array(self.config.area_low), jnp.array(self.config.area_high)
        drawn = jax.random.uniform(key_area, (CANDIDATES, 2), minval=low, maxval=high)
        corners = jnp.array(
            [low, high, [low[0], high[1]], [high[0], low[1]]]
        )  # the last resort; one of them is far enough
        spots = jnp.concatenate([drawn, corners])
        is_far = jnp.linalg.norm(spots - object_pos[:2], axis=1) > self.config.min_distance
        in_air = jax.random.uniform(key_air) < self.config.air_share
        height = jax.random.uniform(key_height, minval=self.config.air_low, maxval=self.config.air_high)
        return jnp.append(spots[jnp.argmax(is_far)], rest_height + jnp.where(in_air, height, 0.0))

    def _assist(
        self, key: PRNGKeyArray, overrides: dict[str, Array], joints: Array, object_pos: Array, half_size: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Curriculum: with probability `overrides["curriculum"]` the arm hovers over the object or already holds it."""
        key_use, key_hold, key_posture = jax.random.split(key, 3)
        assert self._postures is not None  # found with the task, where its curriculum is on
        postures, ee_pos = self._postures
        row = jax.random.randint(key_posture, (), 0, len(postures))
        posture, ee = jnp.asarray(postures, jnp.float32)[row], jnp.asarray(ee_pos, jnp.float32)[row]
        assisted = jax.random.uniform(key_use) < overrides["curriculum"]
        is_held = jax.random.uniform(key_hold) < self.config.curriculum_held
        eased_pos = jnp.where(is_held, ee, ee.at[2].set(object_pos[2]))
        closed_on_object = jnp.min(half_size[:2])
        fingers = jnp.where(assisted & is_held, closed_on_object, self.robot.finger_range[1])
        return assisted, jnp.where(assisted, posture, joints), jnp.where(assisted, eased_pos, object_pos), fingers

    def _start(self, joints, fingers, object_pos, yaw, target_pos, overrides) -> Start:
        robot = self.robot
        closed, opened = robot.gripper_range.T
        is_closed = fingers < robot.finger_range[1]
        quat = jnp.array([jnp.cos(yaw / 2), 0.0, 0.0, jnp.sin(yaw / 2)])
        qpos = place(jnp.asarray(robot.home_qpos, jnp.float32), robot.joint_qpos, joints)
        qpos = qpos.at[robot.finger_qpos].set(fingers)
        ctrl = place(jnp.asarray(robot.home_ctrl, jnp.float32), robot.arm_actuators, joints)
        return Start(
            qpos=qpos.at[robot.object_qpos[0]].set(jnp.concatenate([object_pos, quat])),
            ctrl=ctrl.at[robot.gripper_actuators].set(jnp.where(is_closed, closed, opened)),
            mocap_pos=scenery(robot, target_pos, overrides),
            mocap_quat=jnp.asarray(robot.mocap_quat, jnp.float32),
        )


def grasped(snapshot: Snapshot, config: PickPlaceConfig) -> Bool[Array, ""]:
    """Whether both pads press on the object."""
    return jnp.all(snapshot.touch[0] > config.touch_force)


def clearance(snapshot: Snapshot, task_state: PickPlaceState) -> Float[Array, ""]:
    """Height of the lowest corner of the box around the object above the table, m; 0 at rest and while it only tips."""
    w, x, y, z = snapshot.object_quat[0]
    world_up = jnp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])  # in the object's frame
    extent = jnp.sum(jnp.abs(world_up) * task_state.half_size)
    return snapshot.object_pos[0, 2] - extent - task_state.table_height


def _closeness(distance: Float[Array, ""]) -> Float[Array, ""]:
    """1 at distance 0, falling to 0 over decimetres; steep within the last centimetres, never flat far away."""
    return 1.0 - 0.5 * (jnp.tanh(distance / 0.3) + jnp.tanh(distance / 0.05))
