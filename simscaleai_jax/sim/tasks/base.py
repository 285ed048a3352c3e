"""What a task is: pure functions of a snapshot, behind which no simulator shows.

A task is written once and runs everywhere: batched under `vmap` in MJX, and one at a time on plain MuJoCo behind the
gymnasium adapter. Its functions are unbatched.
"""

import abc
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.control import action_size, control
from simscaleai_jax.sim.robot import Robot, Start, pick, scenery
from simscaleai_jax.sim.tasks.snapshot import Snapshot

__all__ = ["BaseTask", "Bounds", "Start", "Task", "arm_bounds", "arm_observation", "joints_near_home", "scenery"]

Bounds = tuple[np.ndarray, np.ndarray]  # lower, upper

MAX_JOINT_VEL = 10.0  # rad/s, observations are clipped to it
MAX_REACH = 2.0  # m, bound of observed positions
JOINT_MARGIN = 0.1  # rad a joint may be pushed past its limit
FINGER_MARGIN = 0.01  # m likewise, the fingers are springy


@runtime_checkable
class Task(Protocol):
    """Everything that makes a scene a task. `task_state` is the task's own frozen pytree: the goal and latches."""

    name: str
    robot: Robot
    action_size: int

    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, Any]:
        """Draw a start and a goal; `overrides` are the episode's randomized parameters ({} without randomization).

        What `sim.exact_random.uniform` draws is equal to the last bit in every batch size and on every mesh.
        """
        ...

    def control(self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"]) -> Float[Array, "U"]:
        """Actuator targets to be reached at the end of this control step."""
        ...

    def update(self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"]) -> Any:
        """Next task state, from the snapshot after the control step."""
        ...

    def observe(self, snapshot: Snapshot, task_state: Any) -> dict[str, Float[Array, "..."]]:
        """Observation, float32, inside `observation_bounds`."""
        ...

    def observation_bounds(self) -> dict[str, Bounds]:
        """Finite bounds of every observation key."""
        ...

    def reward_terms(
        self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]:
        """Weighted reward terms; their sum is the reward. `steps_left` counts the control steps the time limit still
        allows.
        """
        ...

    def terminated(self, snapshot: Snapshot, task_state: Any) -> Bool[Array, ""]:
        """Whether the episode ends here for good (the time limit is not the task's affair)."""
        ...

    def info(self, snapshot: Snapshot, task_state: Any) -> dict[str, Array]:
        """The documented info keys but `step`; `success` is always there."""
        ...


class BaseTask(abc.ABC):
    """The usual defaults of a task.

    A task of one's own says how it starts (`sample`), what it pays (`reward_terms`) and when it is solved (`info`); its
    task state has a `target_pos` (3,) m. Everything else may be replaced.
    """

    name: str

    def __init__(self, robot: Robot, config: Any = None) -> None:
        self.robot, self.config = robot, config
        self.action_size = action_size(robot)

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, overrides: dict[str, Array]) -> tuple[Start, Any]: ...

    @abc.abstractmethod
    def reward_terms(
        self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"], steps_left: Int[Array, ""]
    ) -> dict[str, Float[Array, ""]]: ...

    @abc.abstractmethod
    def info(self, snapshot: Snapshot, task_state: Any) -> dict[str, Array]: ...

    def control(self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"]) -> Float[Array, "U"]:
        """What the robot's controller makes of the action."""
        return control(self.robot, snapshot, action)

    def update(self, snapshot: Snapshot, task_state: Any, action: Float[Array, "A"]) -> Any:
        """Nothing is remembered."""
        return task_state

    def terminated(self, snapshot: Snapshot, task_state: Any) -> Bool[Array, ""]:
        """Only the time limit ends an episode."""
        return jnp.bool_(False)

    def observe(self, snapshot: Snapshot, task_state: Any) -> dict[str, Float[Array, "..."]]:
        """The arm, the first object where the task has one, and the target."""
        return arm_observation(self.robot, snapshot) | {"target_pos": task_state.target_pos}

    def observation_bounds(self) -> dict[str, Bounds]:
        return arm_bounds(self.robot) | {"target_pos": (np.full(3, -MAX_REACH), np.full(3, MAX_REACH))}


def joints_near_home(robot: Robot, key: PRNGKeyArray, noise: float) -> Float[Array, "J"]:
    """Arm angles (rad) within `noise` of the home pose either way, inside the limits."""
    drawn = exact_random.uniform(key, robot.joint_qpos.shape, -noise, noise)
    return jnp.clip(pick(robot.home_qpos, robot.joint_qpos) + drawn, *robot.joint_range.T).astype(jnp.float32)


def arm_observation(robot: Robot, snapshot: Snapshot) -> dict[str, Float[Array, "..."]]:
    """joint_pos and joint_vel (J,), ee_pos (3,); with an object also object_pos (3,), object_quat (4,) and
    gripper_state (1,), the opening of one finger, m.
    """
    obs = {
        "joint_pos": snapshot.joint_pos,
        "joint_vel": jnp.clip(snapshot.joint_vel, -MAX_JOINT_VEL, MAX_JOINT_VEL),
        "ee_pos": snapshot.ee_pos,
    }
    if not len(robot.object_body):
        return obs
    return obs | {
        "object_pos": jnp.clip(snapshot.object_pos[0], -MAX_REACH, MAX_REACH),
        "object_quat": jnp.clip(snapshot.object_quat[0], -1.0, 1.0),
        "gripper_state": snapshot.gripper,
    }


def arm_bounds(robot: Robot) -> dict[str, Bounds]:
    """Bounds of `arm_observation`."""
    joints = np.full(len(robot.joints), MAX_JOINT_VEL)
    reach = (np.full(3, -MAX_REACH), np.full(3, MAX_REACH))
    bounds: dict[str, Bounds] = {
        "joint_pos": (robot.joint_range[:, 0] - JOINT_MARGIN, robot.joint_range[:, 1] + JOINT_MARGIN),
        "joint_vel": (-joints, joints),
        "ee_pos": reach,
    }
    if not len(robot.object_body):
        return bounds
    low, high = robot.finger_range
    return bounds | {
        "object_pos": reach,
        "object_quat": (np.full(4, -1.0), np.full(4, 1.0)),
        "gripper_state": (np.array([low - FINGER_MARGIN]), np.array([high + FINGER_MARGIN])),
    }
