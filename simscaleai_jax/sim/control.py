"""Cartesian control: damped least-squares inverse kinematics from an end-effector step to joint targets."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.snapshot import Snapshot

ACTION_SIZE = 4  # x, y, z, gripper
STEP = 0.05  # metres the end effector moves per unit of action and control step
DAMPING = 1e-3  # of the least squares; bounds the joint step near singular poses
ORIENTATION_GAIN = 0.5  # share of the orientation error corrected per control step
MAX_LEAD = 0.3  # rad the commanded joints may run ahead of the measured ones


def ik_step(
    jac: Float[Array, "6 7"], ee_mat: Float[Array, "3 3"], goal_mat: Float[Array, "3 3"], move: Float[Array, "3"]
) -> Float[Array, "7"]:
    """Joint step (rad) that moves the end effector by `move` metres and turns it back towards `goal_mat`.

    Solves min |J dq - twist|^2 + DAMPING |dq|^2 (Wampler 1986, https://doi.org/10.1109/TSMC.1986.289285).
    """
    turn = 0.5 * jnp.sum(jnp.cross(ee_mat.T, goal_mat.T), axis=0)
    twist = jnp.concatenate([move, ORIENTATION_GAIN * turn])
    gram = jac @ jac.T + DAMPING * jnp.eye(6, dtype=jac.dtype)
    return jac.T @ solve_spd(gram, twist)


def solve_spd(matrix: Float[Array, "n n"], vector: Float[Array, "n"]) -> Float[Array, "n"]:
    """Solve a small symmetric positive definite system by unrolled Cholesky.

    LAPACK calls inside vmap run one small matrix at a time; unrolled, XLA fuses them over the whole batch.
    """
    n = vector.shape[0]
    lower = [[jnp.zeros((), matrix.dtype)] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i, j] - sum((lower[i][k] * lower[j][k] for k in range(j)), start=jnp.zeros((), matrix.dtype))
            lower[i][j] = jnp.sqrt(rest) if i == j else rest / lower[j][j]
    forward: list[Array] = []
    for i in range(n):
        forward.append((vector[i] - sum(lower[i][k] * forward[k] for k in range(i))) / lower[i][i])
    backward: list[Array] = [forward[0]] * n
    for i in reversed(range(n)):
        backward[i] = (forward[i] - sum(lower[k][i] * backward[k] for k in range(i + 1, n))) / lower[i][i]
    return jnp.stack(backward)


def cartesian_control(robot: Robot, snapshot: Snapshot, action: Float[Array, "4"]) -> Float[Array, "U"]:
    """Actuator targets for one action: (dx, dy, dz) in units of STEP along world axes, then the gripper, -1 closed, +1 open.

    Targets accumulate on the commanded joints, so the arm does not sag or drift, but never lead the measured joints by more
    than MAX_LEAD. The action is clipped to [-1, 1].
    """
    action = jnp.clip(action, -1.0, 1.0)
    step = ik_step(snapshot.ee_jac, snapshot.ee_mat, jnp.asarray(robot.home_ee_mat, action.dtype), STEP * action[:3])
    goal = snapshot.ctrl[robot.arm_actuators] + step
    goal = jnp.clip(goal, snapshot.joint_pos - MAX_LEAD, snapshot.joint_pos + MAX_LEAD)
    low, high = jnp.asarray(robot.joint_range.T, action.dtype)
    closed, opened = jnp.asarray(robot.gripper_range.T, action.dtype)
    fingers = closed + 0.5 * (action[3] + 1.0) * (opened - closed)
    ctrl = snapshot.ctrl.at[robot.arm_actuators].set(jnp.clip(goal, low, high))
    return ctrl.at[robot.gripper_actuators].set(fingers)
