"""Robots: where the parts of an arm are inside a compiled MJCF model, and what the arm can do."""

from simscaleai_jax.sim.robot.description import (
    PADS,
    Robot,
    check_cameras,
    find_robot,
    home_data,
    load_model,
    pick,
    place,
    table_surface,
)

__all__ = [
    "PADS",
    "Robot",
    "check_cameras",
    "find_robot",
    "home_data",
    "load_model",
    "pick",
    "place",
    "table_surface",
]
