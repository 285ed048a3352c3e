"""Whether what a scene asks for can be done at all: the gripper encloses the object, whatever is randomized."""

from typing import Any

import numpy as np

from simscaleai_jax.sim.randomization_config import NOMINAL
from simscaleai_jax.sim.robot import Robot

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
      task: the task in its nominal scene.
      randomization: a `SimConfig.randomization` value.

    Raises:
      ValueError: the largest object does not fit the gripper.
    """
    from simscaleai_jax.sim.randomization import resolve

    config = resolve(randomization)
    if config.object_size != NOMINAL["object_size"]:
        check_fits_gripper(task.robot, config.object_size[1])
