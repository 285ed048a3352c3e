"""Whether what a scene asks for can be done at all, randomized or not: enclose the object, reach where it may be."""

import warnings
from typing import Any

import mujoco
import numpy as np

from simscaleai_jax.sim.randomization.config import NOMINAL, PRESETS, DomainRandomizationConfig
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.robot.extent import why_not_scaled
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


def unreached(model: mujoco.MjModel) -> dict[str, str]:
    """Parameters whose randomization would change nothing in a scene, each with the reason."""
    body, table = (mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in ("object", "table"))
    no_object = "" if body >= 0 else "it has no body 'object'"
    no_light = "" if model.light_active.any() else "it has no active light"
    no_camera = "" if model.ncam else "it has no camera"
    reasons = {
        "friction": "" if model.npair else "it has no contact pairs (<contact><pair>), and only theirs is randomized",
        "object_mass": no_object,
        "object_size": no_object or why_not_scaled(model, body),
        "joint_damping": "" if model.dof_damping.any() else "none of its joints has damping",
        "actuator_gain": "" if model.nu else "it has no actuators",
        "gravity": "" if model.opt.gravity.any() else "its gravity is 0",
        "table_height": "" if table >= 0 and model.body_mocapid[table] >= 0 else "it has no mocap body 'table'",
        "light_direction": no_light,
        "light_intensity": no_light,
        "camera_position": no_camera,
        "camera_rotation": no_camera,
    }
    return {name: reason for name, reason in reasons.items() if reason}


def check_reaches_scene(config: DomainRandomizationConfig, model: mujoco.MjModel) -> None:
    """Whether what somebody asked to randomize is in the scene at all.

    Presets are made for every scene and may name what this one lacks. They too are told where geoms touch without
    contact pairs, whose friction stays as it is, and where there is an object whose size does.

    Raises:
      ValueError: ranges of somebody's own that reach nothing, each with the reason.
    Warns:
      UserWarning: a preset's friction or object_size, in a scene whose contacts or object it does not reach.
    """
    default = DomainRandomizationConfig()
    missed = {n: reason for n, reason in unreached(model).items() if getattr(config, n) != getattr(default, n)}
    if config not in PRESETS.values() and missed:
        listed = "; ".join(f"{name} ({reason})" for name, reason in missed.items())
        raise ValueError(f"randomization would reach nothing in the scene: {listed}. Leave it out or add the part.")
    is_there = {
        "friction": (model.geom_contype | model.geom_conaffinity).any(),
        "object_size": mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "object") >= 0,
    }
    for name in missed:
        if is_there.get(name):
            warnings.warn(
                f"{name} is not randomized in this scene: {missed[name]}. Mend that, or choose a randomization without "
                f"{name}.",
                UserWarning,
                stacklevel=3,
            )


def check_randomization(task: Any, randomization: Any) -> None:
    """Whether a task can be played in all that is drawn.

    Args:
      task: the task in its nominal scene. One whose goals move with the table says so by `goal_corners(table_height)`,
        corners (K, 3) m of the range that the arm must reach.
      randomization: a `SimConfig.randomization` value.

    Raises:
      ValueError: the largest object does not fit the gripper, or the arm cannot reach all of the highest or lowest
        table; or a parameter that reaches nothing in the scene.
    Warns:
      UserWarning: as `check_reaches_scene`.
    """
    from simscaleai_jax.sim.randomization import resolve

    config, robot = resolve(randomization), task.robot
    check_reaches_scene(config, robot.model)
    if config.object_size != NOMINAL["object_size"]:
        check_fits_gripper(robot, config.object_size[1])
    moves_table = config.table_height != NOMINAL["table_height"] and robot.table_mocap >= 0
    if moves_table and hasattr(task, "goal_corners"):
        corners = [task.goal_corners(robot.table_height + offset) for offset in config.table_height]
        advice = f"narrow the randomized table_height, {config.table_height}"
        check_reachable(robot, np.concatenate(corners), REACH_TOLERANCE, advice)
