"""Inverse kinematics on plain MuJoCo, for questions asked once while a task is built: what can this arm reach, and
how?
"""

import mujoco
import numpy as np

from simscaleai_jax.sim.control import DAMPING, turn_filter
from simscaleai_jax.sim.robot import Robot

ITERATIONS = 60
TOLERANCE = 1e-3  # m


def solve_poses(robot: Robot, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arm postures that hold the end effector at `positions` (K, 3) m in its home orientation.

    Returns:
      Joint angles (K, J) rad within the joint limits, and the distance (K,) m that each misses its position by.
    """
    data = mujoco.MjData(robot.model)
    joints = np.zeros((len(positions), len(robot.joints)))
    errors = np.zeros(len(positions))
    for index, position in enumerate(positions):
        data.qpos[:] = robot.home_qpos
        joints[index], errors[index] = _solve(robot, data, position)
    return joints, errors


def check_reachable(robot: Robot, corners: np.ndarray, tolerance: float, advice: str) -> None:
    """Whether the arm comes within `tolerance` m of every corner (K, 3) m of a target range, held as at home.

    Raises:
      ValueError: the corner that it misses by the most, and `advice`.
    """
    _, errors = solve_poses(robot, corners)
    worst = int(np.argmax(errors))
    if errors[worst] > tolerance:
        raise ValueError(
            f"target range lies outside the arm's workspace: it misses {np.round(corners[worst], 3).tolist()} by "
            f"{errors[worst]:.3f} m; {advice}"
        )


def _solve(robot: Robot, data: mujoco.MjData, position: np.ndarray) -> tuple[np.ndarray, float]:
    """Damped least squares from the posture in `data`."""
    jacobian = np.zeros((6, robot.model.nv))
    low, high = robot.joint_range.T
    for _ in range(ITERATIONS):
        mujoco.mj_kinematics(robot.model, data)
        mujoco.mj_comPos(robot.model, data)
        miss = position - data.site_xpos[robot.ee_site]
        now, held = data.site_xmat[robot.ee_site].reshape(3, 3), list(robot.held_axes)
        turn = (0.5 if len(held) == 3 else 1.0) * np.cross(now.T[held], robot.home_ee_mat.T[held]).sum(axis=0)
        if np.linalg.norm(miss) < TOLERANCE and np.linalg.norm(turn) < 10 * TOLERANCE:
            break
        mujoco.mj_jacSite(robot.model, data, jacobian[:3], jacobian[3:], robot.ee_site)
        arm = jacobian[:, robot.joint_dof]
        if len(held) < 3:
            arm[3:] = turn_filter(now, robot.held_axes) @ arm[3:]
        twist = np.concatenate([miss, turn])
        step = arm.T @ np.linalg.solve(arm @ arm.T + DAMPING * np.eye(6), twist)
        data.qpos[robot.joint_qpos] = np.clip(data.qpos[robot.joint_qpos] + np.clip(step, -0.3, 0.3), low, high)
    return data.qpos[robot.joint_qpos].copy(), float(np.linalg.norm(miss))
