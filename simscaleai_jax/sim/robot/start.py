"""Where an episode begins."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.sim.robot.arrays import place


@struct.dataclass
class Start:
    """Joint angles, actuator targets and movable scenery of a first state; velocities are zero."""

    qpos: Float[Array, "nq"]  # m, rad, quaternions wxyz
    ctrl: Float[Array, "U"]
    mocap_pos: Float[Array, "M 3"]  # m
    mocap_quat: Float[Array, "M 4"]


def make_start(
    robot: Any,
    joints: Float[Array, "J"] | None = None,
    opening: Float[Array, ""] | float | None = None,
    objects: Float[Array, "N 7"] | None = None,
    target_pos: Float[Array, "*T 3"] | None = None,
    overrides: dict[str, Array] | None = None,
) -> Start:
    """A start at the robot's home pose, but for what is given.

    Args:
      robot: a `Robot`.
      joints: angles of the arm, rad; its actuators hold them.
      opening: of one finger, m. A gripper that is not wide open is told to close: it holds what is between its
        fingers.
      objects: positions, m, and orientations, wxyz.
      target_pos: where the target marker is, or each of several, m; nothing moves in a scene without one.
      overrides: randomized fields of this episode; a `table_height` moves the table.
    """
    qpos, ctrl = (jnp.asarray(values, jnp.float32) for values in (robot.home_qpos, robot.home_ctrl))
    if joints is not None:
        qpos = place(qpos, robot.joint_qpos, joints)
        ctrl = place(ctrl, robot.arm_actuators, joints)
    if opening is not None and robot.has_gripper:
        closed, opened = robot.gripper_range.T
        is_closing = opening < robot.finger_range[1]
        qpos = qpos.at[robot.finger_qpos].set(finger_positions(robot, opening))
        ctrl = ctrl.at[robot.gripper_actuators].set(jnp.where(is_closing, closed, opened))
    if objects is not None:
        qpos = qpos.at[robot.object_qpos[: len(objects)]].set(objects)
    return Start(qpos, ctrl, scenery(robot, target_pos, overrides or {}), jnp.asarray(robot.mocap_quat, jnp.float32))


def finger_positions(robot: Any, opening: Float[Array, ""] | float) -> Any:
    """Positions (F,) of the finger joints at an opening of one finger, m; between the two ends they move evenly."""
    if not len(robot.tip_sites):
        return opening
    low, high = robot.finger_range
    closed, opened = robot.finger_pos.T
    return closed + (opened - closed) * jnp.clip((opening - low) / (high - low), 0.0, 1.0)


def scenery(robot: Any, target_pos: Float[Array, "*T 3"] | None, overrides: dict[str, Array]) -> Float[Array, "M 3"]:
    """Positions of the movable scenery (mocap bodies), m: the markers of the first target or of as many as
    `target_pos` is given for, where the scene has some, and the table at this episode's height.
    """
    mocap_pos = jnp.asarray(robot.mocap_pos, jnp.float32)
    if len(robot.target_mocaps) and target_pos is not None:
        places = jnp.atleast_2d(target_pos)
        mocap_pos = mocap_pos.at[robot.target_mocaps[: len(places)]].set(places)
    if robot.table_mocap >= 0 and "table_height" in overrides:
        mocap_pos = mocap_pos.at[robot.table_mocap, 2].set(overrides["table_height"] - robot.table_top)
    return mocap_pos
