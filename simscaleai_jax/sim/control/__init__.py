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
)

__all__ = [
    "ACTION_SIZE",
    "DAMPING",
    "MAX_LEAD",
    "ORIENTATION_GAIN",
    "STEP",
    "cartesian_control",
    "ik_step",
    "solve_spd",
]
