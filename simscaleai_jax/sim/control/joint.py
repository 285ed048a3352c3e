"""Joint control: an action names the arm's joint targets, or steps of them."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from simscaleai_jax.sim.control.cartesian import command
from simscaleai_jax.sim.robot import Robot, pick
from simscaleai_jax.sim.tasks.snapshot import Snapshot

JOINT_STEP = 0.1  # rad (m where a joint slides) a joint's target moves per unit of action and control step


def joint_position_control(robot: Robot, snapshot: Snapshot, action: Float[Array, "A"]) -> Float[Array, "U"]:
    """Actuator targets for (joints, gripper): -1..1 spans each joint's range. Targets lead the measured joints by at
    most MAX_LEAD, so a far one is approached over several control steps.
    """
    action, count = jnp.clip(action, -1.0, 1.0), len(robot.joints)
    low, high = jnp.asarray(robot.joint_range.T, action.dtype)
    return command(robot, snapshot, low + 0.5 * (action[:count] + 1.0) * (high - low), action[count:])


def joint_delta_control(robot: Robot, snapshot: Snapshot, action: Float[Array, "A"]) -> Float[Array, "U"]:
    """Actuator targets for (joint steps in units of JOINT_STEP, gripper), on top of the commanded joints."""
    action, count = jnp.clip(action, -1.0, 1.0), len(robot.joints)
    goal = pick(snapshot.ctrl, robot.arm_actuators) + JOINT_STEP * action[:count]
    return command(robot, snapshot, goal, action[count:])


def to_joint_position(robot: Robot, goal: Float[Array, "J"]) -> Float[Array, "J"]:
    """The `joint_position` action whose joint targets are `goal`."""
    low, high = jnp.asarray(robot.joint_range.T, goal.dtype)
    return jnp.clip(2.0 * (goal - low) / (high - low) - 1.0, -1.0, 1.0)


def to_joint_delta(robot: Robot, snapshot: Snapshot, goal: Float[Array, "J"]) -> Float[Array, "J"]:
    """The `joint_delta` action that comes nearest to joint targets `goal`: shorter where it is too far, in its
    direction.
    """
    step = (goal - pick(snapshot.ctrl, robot.arm_actuators)) / JOINT_STEP
    return step / jnp.maximum(1.0, jnp.max(jnp.abs(step)))
