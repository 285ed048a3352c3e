"""Simulation: tasks as pure functions, batched on MJX, or one at a time on MuJoCo behind the gymnasium API."""

from simscaleai_jax.sim.config import CameraConfig, SimConfig
from simscaleai_jax.sim.factory import (
    list_envs,
    make_batched_env,
    make_env,
    make_functional_env,
    make_vec_env,
    register_env,
)
from simscaleai_jax.sim.registry import TaskEntry, register_task
from simscaleai_jax.sim.robot.arms import list_robots

__all__ = [
    "CameraConfig",
    "SimConfig",
    "TaskEntry",
    "list_envs",
    "list_robots",
    "make_batched_env",
    "make_env",
    "make_functional_env",
    "make_vec_env",
    "register_env",
    "register_task",
]
