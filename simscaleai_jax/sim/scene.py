"""The scene of an environment: its compiled model and the robot in it."""

import dataclasses
from typing import Any

from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.registry import TaskEntry
from simscaleai_jax.sim.robot import Robot, find_robot, load_model, read_names
from simscaleai_jax.sim.robot.arms import find_arm
from simscaleai_jax.sim.robot.compose import compose, names_of


def load_scene(entry: TaskEntry, config: SimConfig) -> tuple[Any, Robot]:
    """Compile the scene of a task and find the robot in it."""
    model = compile_scene(entry, config)
    return model, describe(model, entry, config)


def compile_scene(entry: TaskEntry, config: SimConfig) -> Any:
    """The scene around `config.robot`, else the file `config.xml_path`, else the task's own."""
    if config.robot:
        return compose(config.robot, find_arm(config.robot), entry.needs, config.dt)
    return load_model(config.xml_path or entry.xml_path, config.dt)


def describe(model: Any, entry: TaskEntry, config: SimConfig) -> Robot:
    """The robot of a compiled scene, with the controller that is asked for."""
    names = names_of(find_arm(config.robot)) if config.robot else read_names(config.xml_path or entry.xml_path)
    return dataclasses.replace(find_robot(model, entry.needs, names), controller=config.controller)
