"""Controllers by name (`SimConfig.controller`): how an action is read, and how long it is."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim.control.cartesian import cartesian_control
from simscaleai_jax.sim.control.joint import (
    joint_delta_control,
    joint_position_control,
    to_joint_delta,
    to_joint_position,
)
from simscaleai_jax.sim.robot import Robot, pick
from simscaleai_jax.sim.tasks.snapshot import Snapshot

CARTESIAN_AXES = 3

# (robot, snapshot, action (A,)) -> actuator targets (U,)
ControlFn = Callable[[Robot, Snapshot, Float[Array, "A"]], Float[Array, "U"]]


@dataclasses.dataclass(frozen=True)
class Controller:
    """Every action lies in [-1, 1].

    Attributes:
      control: from an action to actuator targets.
      is_cartesian: whether its first numbers are a step of the end effector; otherwise one for each arm joint. One for
        the gripper follows where there is one.
      from_joints: (robot, snapshot, joint targets) -> those numbers, for controllers of joints.
    """

    control: ControlFn
    is_cartesian: bool
    from_joints: Callable[[Robot, Snapshot, Float[Array, "J"]], Float[Array, "J"]] | None = None


def cartesian_position_control(robot: Robot, snapshot: Snapshot, action: Float[Array, "A"]) -> Float[Array, "U"]:
    """`cartesian_control` of the position alone: the orientation goes where the arm takes it."""
    return cartesian_control(robot, snapshot, action, ())


CONTROLLERS = {
    "cartesian": Controller(cartesian_control, True),
    "cartesian_position": Controller(cartesian_position_control, True),
    "joint_position": Controller(joint_position_control, False, lambda robot, _, goal: to_joint_position(robot, goal)),
    "joint_delta": Controller(joint_delta_control, False, to_joint_delta),
}


def find_controller(name: str) -> Controller:
    """A controller by name; an unknown one is a ValueError with the names there are."""
    if name not in CONTROLLERS:
        raise unknown_name("controller", name, CONTROLLERS)
    return CONTROLLERS[name]


def action_size(robot: Robot) -> int:
    """Numbers of an action for the robot's controller."""
    moves = CARTESIAN_AXES if find_controller(robot.controller).is_cartesian else len(robot.joints)
    return moves + robot.has_gripper


def control(robot: Robot, snapshot: Snapshot, action: Float[Array, "A"]) -> Float[Array, "U"]:
    """Actuator targets for an action of the robot's controller."""
    return find_controller(robot.controller).control(robot, snapshot, action)


def from_cartesian(robot: Robot, snapshot: Snapshot, action: Float[Array, "4"]) -> Float[Array, "A"]:
    """What the robot's controller must be told to do what the Cartesian action (x, y, z, gripper) does; as far as one
    of its actions can.
    """
    own = find_controller(robot.controller)
    gripper = action[CARTESIAN_AXES : CARTESIAN_AXES + robot.has_gripper]
    if own.from_joints is None:
        return jnp.concatenate([action[:CARTESIAN_AXES], gripper])
    goal = pick(cartesian_control(robot, snapshot, action), robot.arm_actuators)
    return jnp.concatenate([own.from_joints(robot, snapshot, goal), gripper])
