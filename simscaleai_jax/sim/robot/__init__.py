"""Robots: where the parts of an arm are inside a compiled MJCF model, and what the arm can do."""

from simscaleai_jax.sim.robot.arrays import pick, place
from simscaleai_jax.sim.robot.description import (
    PADS,
    PICKING,
    SORTING,
    STACKING,
    TARGET_ONLY,
    THREE_TARGETS,
    Needs,
    Robot,
    RobotNames,
)
from simscaleai_jax.sim.robot.find import find_robot, read_names
from simscaleai_jax.sim.robot.models import check_cameras, home_data, load_model, table_surface
from simscaleai_jax.sim.robot.start import Start, scenery

__all__ = [
    "PADS",
    "PICKING",
    "SORTING",
    "STACKING",
    "TARGET_ONLY",
    "THREE_TARGETS",
    "Needs",
    "Robot",
    "RobotNames",
    "Start",
    "check_cameras",
    "find_robot",
    "home_data",
    "load_model",
    "pick",
    "place",
    "read_names",
    "scenery",
    "table_surface",
]
