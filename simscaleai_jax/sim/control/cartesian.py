"""Cartesian control: damped least-squares inverse kinematics from an end-effector step to joint targets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from simscaleai_jax.sim.robot import Robot, pick, place
from simscaleai_jax.sim.tasks.snapshot import Snapshot

ACTION_SIZE = 4  # x, y, z, gripper
ALL_AXES = (0, 1, 2)
STEP = 0.05  # metres the end effector moves per unit of action and control step
DAMPING = 1e-3  # of the least squares; bounds the joint step near singular poses
ORIENTATION_GAIN = 0.5  # share of the orientation error corrected per control step
MAX_LEAD = 0.3  # rad the commanded joints may run ahead of the measured ones


def ik_step(
    jac: Float[Array, "6 J"],
    ee_mat: Float[Array, "3 3"],
    goal_mat: Float[Array, "3 3"],
    move: Float[Array, "3"],
    held_axes: tuple[int, ...] = ALL_AXES,
) -> Float[Array, "J"]:
    """Joint step (rad) that moves the end effector by `move` metres and turns it back towards `goal_mat`.

    Of the orientation only the directions of the tool's `held_axes` count: all three are the whole of it, one lets the
    tool turn about that axis, none leaves it alone.
    Solves min |J dq - twist|^2 + DAMPING |dq|^2 (Wampler 1986, https://doi.org/10.1109/TSMC.1986.289285).
    """
    if held_axes == ALL_AXES:
        error = goal_mat @ ee_mat.T
        turn = 0.5 * jnp.stack([error[2, 1] - error[1, 2], error[0, 2] - error[2, 0], error[1, 0] - error[0, 1]])
    else:
        held = np.array(held_axes, int)
        turn = jnp.sum(jnp.cross(ee_mat.T[held], goal_mat.T[held]), axis=0)
        jac = jnp.concatenate([jac[:3], turn_filter(ee_mat, held_axes) @ jac[3:]])
    twist = jnp.concatenate([move, ORIENTATION_GAIN * turn])
    gram = jac @ jac.T + DAMPING * jnp.eye(6, dtype=jac.dtype)
    return jac.T @ solve_spd(gram, twist)


def turn_filter(ee_mat: Any, held_axes: tuple[int, ...]) -> Any:
    """(3, 3) matrix that takes out of an angular velocity (world frame) what the held axes do not feel."""
    if len(held_axes) >= 2:
        return np.eye(3)
    if not held_axes:
        return np.zeros((3, 3))
    axis = ee_mat[:, held_axes[0]]
    return np.eye(3) - axis[:, None] * axis[None, :]


@jax.custom_batching.custom_vmap
def solve_spd(matrix: Float[Array, "n n"], vector: Float[Array, "n"]) -> Float[Array, "n"]:
    """Solve a small symmetric positive definite system.

    One system goes to LAPACK. Under vmap LAPACK would solve one small matrix at a time; there, unrolled elimination is
    three times as fast, because XLA fuses it over the whole batch.
    """
    return jnp.linalg.solve(matrix, vector)


@solve_spd.def_vmap
def _solve_spd_batch(axis_size: int, in_batched: list[bool], matrix: Array, vector: Array) -> tuple[Array, bool]:
    axes = tuple(0 if is_batched else None for is_batched in in_batched)
    return jax.vmap(_eliminate, in_axes=axes)(matrix, vector), True


def _eliminate(matrix: Float[Array, "n n"], vector: Float[Array, "n"]) -> Float[Array, "n"]:
    """Gauss-Jordan elimination; a positive definite matrix needs no pivoting."""
    n = vector.shape[0]
    rows = jnp.concatenate([matrix, vector[:, None]], axis=1)
    for i in range(n):
        pivot = rows[i] / rows[i, i]
        rows = rows - (rows[:, i] - np.eye(n, dtype=rows.dtype)[i])[:, None] * pivot
    return rows[:, n]


def cartesian_control(
    robot: Robot, snapshot: Snapshot, action: Float[Array, "A"], held_axes: tuple[int, ...] | None = None
) -> Float[Array, "U"]:
    """Actuator targets for one action: (dx, dy, dz) in units of STEP along world axes, then the gripper, -1 closed,
    +1 open, where there is one.

    Targets accumulate on the commanded joints, so the arm does not sag or drift, but never lead the measured joints
    by more than MAX_LEAD. The action is clipped to [-1, 1]. `held_axes` are the robot's own by default.
    """
    action = jnp.clip(action, -1.0, 1.0)
    held = robot.held_axes if held_axes is None else held_axes
    goal_mat = jnp.asarray(robot.home_ee_mat, action.dtype)
    step = ik_step(snapshot.ee_jac, snapshot.ee_mat, goal_mat, STEP * action[:3], held)
    goal = pick(snapshot.ctrl, robot.arm_actuators) + step
    return command(robot, snapshot, goal, action[3:])


def command(robot: Robot, snapshot: Snapshot, goal: Float[Array, "J"], gripper: Float[Array, "G"]) -> Float[Array, "U"]:
    """Actuator targets for arm joints at `goal`, inside their ranges and at most MAX_LEAD from where they are, and for
    the gripper at `gripper`, -1 closed, +1 open; empty without one.
    """
    goal = jnp.clip(goal, snapshot.joint_pos - MAX_LEAD, snapshot.joint_pos + MAX_LEAD)
    low, high = jnp.asarray(robot.joint_range.T, goal.dtype)
    ctrl = place(snapshot.ctrl, robot.arm_actuators, jnp.clip(goal, low, high))
    if not robot.has_gripper:
        return ctrl
    closed, opened = jnp.asarray(robot.gripper_range.T, goal.dtype)
    return place(ctrl, robot.gripper_actuators, closed + 0.5 * (gripper[0] + 1.0) * (opened - closed))
