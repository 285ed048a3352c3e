"""The one thing tasks read: a `Snapshot` of the scene in SI units and world frame, the same on every backend."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.sim.robot import Robot, pick


@struct.dataclass
class Snapshot:
    """Scene after a control step. Positions follow a final kinematics pass (they do not lag the joint angles)."""

    joint_pos: Float[Array, "*B J"]  # rad
    joint_vel: Float[Array, "*B J"]  # rad/s
    ctrl: Float[Array, "*B U"]  # commanded joint and finger targets, rad and m
    ee_pos: Float[Array, "*B 3"]  # m, the tool's site
    ee_mat: Float[Array, "*B 3 3"]  # columns are the site's axes
    ee_jac: Float[Array, "*B 6 J"]  # linear rows, then angular rows, of the site's velocity per joint velocity
    gripper: Float[Array, "*B 1"]  # opening of one finger, m; 0 closed
    object_pos: Float[Array, "*B N 3"]  # m
    object_quat: Float[Array, "*B N 4"]  # wxyz
    object_vel: Float[Array, "*B N 6"]  # linear m/s, then angular rad/s
    touch: Float[Array, "*B N 2"]  # force between each pad (left, right) and the object, N; zero right after a reset


def make_snapshot(robot: Robot, data: Any) -> Snapshot:
    """Read a snapshot off anything that has MuJoCo's public fields (MJX data, or arrays copied from `MjData`).

    `data` needs qpos, qvel, ctrl, xpos, xquat, xmat, site_xpos, site_xmat, xanchor, xaxis and sensordata; unbatched.
    """
    ee_pos = data.site_xpos[robot.ee_site]
    axis = pick(data.xaxis, robot.joints)
    lever = ee_pos - pick(data.xanchor, robot.joints)
    linear, angular = jnp.cross(axis, lever), axis
    if robot.joint_slides.any():
        slides = robot.joint_slides[:, None]
        linear, angular = jnp.where(slides, axis, linear), jnp.where(slides, 0.0, axis)
    ee_jac = jnp.concatenate([linear.T, angular.T])
    return Snapshot(
        joint_pos=pick(data.qpos, robot.joint_qpos),
        joint_vel=pick(data.qvel, robot.joint_dof),
        ctrl=data.ctrl,
        ee_pos=ee_pos,
        ee_mat=data.site_xmat[robot.ee_site].reshape(3, 3),
        ee_jac=ee_jac,
        gripper=_opening(robot, data),
        object_pos=pick(data.xpos, robot.object_body),
        object_quat=pick(data.xquat, robot.object_body),
        object_vel=_object_velocity(robot, data),
        touch=_touch(robot, data.sensordata),
    )


def _opening(robot: Robot, data: Any) -> Float[Array, "1"]:
    """Half the distance between the fingertips; without such sites the mean of the slides; 0 without a gripper."""
    if len(robot.tip_sites):
        left, right = data.site_xpos[robot.tip_sites[0]], data.site_xpos[robot.tip_sites[1]]
        return 0.5 * jnp.linalg.norm(left - right, keepdims=True)
    if not robot.has_gripper:
        return jnp.zeros(1, data.qpos.dtype)
    return jnp.mean(pick(data.qpos, robot.finger_qpos), keepdims=True)


def _object_velocity(robot: Robot, data: Any) -> Float[Array, "N 6"]:
    """A free joint's velocity: linear part in the world frame, angular part in the body's."""
    velocity = pick(data.qvel, robot.object_dof)
    rotation = pick(data.xmat, robot.object_body).reshape(-1, 3, 3)
    angular = jnp.einsum("nij,nj->ni", rotation, velocity[:, 3:])
    return jnp.concatenate([velocity[:, :3], angular], axis=1)


def _touch(robot: Robot, sensordata: Float[Array, "S"]) -> Float[Array, "N 2"]:
    """Sensor rows are (found, fx, fy, fz); a pad that touches nothing reads zero."""
    if not len(robot.touch_sensor) or (robot.touch_sensor < 0).all():
        return jnp.zeros(robot.touch_sensor.shape[:2], jnp.float32)
    reading = pick(sensordata, robot.touch_sensor)  # (N, 2, 4)
    reading = jnp.where(robot.touch_sensor >= 0, reading, 0.0)
    return jnp.where(reading[..., 0] > 0.0, jnp.linalg.norm(reading[..., 1:], axis=-1), 0.0)
