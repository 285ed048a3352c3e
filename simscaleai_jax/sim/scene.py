"""The scene of an environment: its compiled model and the robot in it."""

import dataclasses
from typing import Any

from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.registry import TaskEntry
from simscaleai_jax.sim.robot import Robot, find_robot, load_model, read_names


def load_scene(entry: TaskEntry, config: SimConfig) -> tuple[Any, Robot]:
    """Compile a task's MJCF (its own or `config.xml_path`) and find the robot in it."""
    path = config.xml_path or entry.xml_path
    model = load_model(path, config.dt)
    return model, describe(model, entry, config)


def describe(model: Any, entry: TaskEntry, config: SimConfig) -> Robot:
    """The robot of a compiled scene, with the controller that is asked for."""
    names = read_names(config.xml_path or entry.xml_path)
    return dataclasses.replace(find_robot(model, entry.needs, names), controller=config.controller)
