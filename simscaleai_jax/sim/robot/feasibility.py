"""Whether what a scene asks for can be done at all, randomized or not: enclose the object, reach where it may be."""

from typing import Any

import numpy as np

from simscaleai_jax.sim.randomization.config import NOMINAL
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.ik import check_reachable

GRIP_MARGIN = 0.002  # m of air on either side of the object in the open gripper
REACH_TOLERANCE = 0.01  # m the arm may miss a corner of its workspace by


def check_fits_gripper(robot: Robot, scale: float = 1.0) -> None:
    """ValueError when the object, enlarged `scale` times, is wider than the open gripper; nothing without an object."""
    if not len(robot.object_half_size):
        return
    width = 2.0 * scale * float(np.min(robot.object_half_size[0][:2]))
    opening = 2.0 * float(robot.finger_range[1])
    if width > opening - 2.0 * GRIP_MARGIN:
        made = "" if scale == 1.0 else f" at object_size {scale:g}"
        raise ValueError(
            f"object cannot fit the gripper: {width:.3f} m wide{made}, the gripper opens to {opening:.3f} m"
        )


def check_randomization(task: Any, randomization: Any) -> None:
    """Whether a task can be played in all that is drawn.

    Args:
      task: the task in its nominal scene. One whose goals move with the table says so by `goal_corners(table_height)`,
        corners (K, 3) m of the range that the arm must reach.
      randomization: a `SimConfig.randomization` value.

    Raises:
      ValueError: the largest object does not fit the gripper, or the arm cannot reach all of the highest or lowest
        table.
    """
    from simscaleai_jax.sim.randomization import resolve

    config, robot = resolve(randomization), task.robot
    if config.object_size != NOMINAL["object_size"]:
        check_fits_gripper(robot, config.object_size[1])
    moves_table = config.table_height != NOMINAL["table_height"] and robot.table_mocap >= 0
    if moves_table and hasattr(task, "goal_corners"):
        corners = [task.goal_corners(robot.table_height + offset) for offset in config.table_height]
        advice = f"narrow the randomized table_height, {config.table_height}"
        check_reachable(robot, np.concatenate(corners), REACH_TOLERANCE, advice)
