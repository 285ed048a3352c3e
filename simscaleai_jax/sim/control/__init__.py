"""Controllers: from an action to actuator targets."""

from simscaleai_jax.sim.control.cartesian import (
    ACTION_SIZE,
    DAMPING,
    MAX_LEAD,
    ORIENTATION_GAIN,
    STEP,
    cartesian_control,
    ik_step,
    solve_spd,
    turn_filter,
)
from simscaleai_jax.sim.control.controllers import (
    CONTROLLERS,
    Controller,
    action_size,
    cartesian_position_control,
    control,
    find_controller,
    from_cartesian,
)
from simscaleai_jax.sim.control.joint import JOINT_STEP, joint_delta_control, joint_position_control

__all__ = [
    "ACTION_SIZE",
    "CONTROLLERS",
    "DAMPING",
    "JOINT_STEP",
    "MAX_LEAD",
    "ORIENTATION_GAIN",
    "STEP",
    "Controller",
    "action_size",
    "cartesian_control",
    "cartesian_position_control",
    "control",
    "find_controller",
    "from_cartesian",
    "ik_step",
    "joint_delta_control",
    "joint_position_control",
    "solve_spd",
    "turn_filter",
]
