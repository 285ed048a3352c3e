"""Tasks by name: what `make_env`, `make_vec_env`, `make_batched_env` and `make_functional_env` build from."""

import dataclasses
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

from simscaleai_jax.core.config import from_dict, init_fields
from simscaleai_jax.core.errors import check_names, unknown_name
from simscaleai_jax.sim.config import CameraConfig, SimConfig
from simscaleai_jax.sim.robot import Robot
from simscaleai_jax.sim.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class TaskEntry:
    """How to build one task.

    `make_task(robot, config)` returns the task, `config_cls` is its config dataclass, `xml_path` its default scene, and
    `has_object` says that it needs a free body `object` and the pads' touch sensors.
    """

    make_task: Callable[[Robot, Any], Task]
    config_cls: type
    xml_path: str
    has_object: bool = False


_USER_TASKS: dict[str, TaskEntry] = {}
USER_ENVS: dict[str, type] = {}  # gymnasium classes by name; `factory.register_env` fills it


def asset(name: str) -> str:
    """Path of a scene that ships with the package."""
    return str(importlib.resources.files("simscaleai_jax.sim") / "assets" / name)


def register_task(name: str, entry: TaskEntry) -> None:
    """Make a task of your own known by name to every backend and adapter.

    Raises:
      ValueError: the name is a built-in task's, or an environment's of `register_env`.
    """
    if name in _builtin_tasks():
        raise ValueError(f"{name!r} is a built-in task; choose another name")
    if name in USER_ENVS:
        raise ValueError(
            f"{name!r} is the environment {USER_ENVS[name].__name__} of register_env; choose another name, or make_env "
            "would build one thing and make_vec_env another"
        )
    _USER_TASKS[name] = entry


def tasks() -> dict[str, TaskEntry]:
    """Every known task by name."""
    return {**_builtin_tasks(), **_USER_TASKS}


def find_task(name: str) -> TaskEntry:
    """The entry of a task; an unknown name is a ValueError with the names there are."""
    known = tasks()
    if name not in known:
        raise unknown_name("env", name, known)
    return known[name]


def build_config(config: SimConfig | None, config_cls: type | None, overrides: Mapping[str, Any]) -> SimConfig:
    """A private SimConfig from a base config and keyword overrides.

    Overrides name fields of SimConfig or of the task's config; `cameras` may hold CameraConfigs, dicts or plain names;
    `task` and `randomization` may be dicts, `randomization` also a preset's name. The caller's objects are left alone.
    """
    sim_fields = init_fields(SimConfig)
    task_fields = init_fields(config_cls) if config_cls else {}
    check_names("environment option", overrides, {**sim_fields, **task_fields})
    config = (config or SimConfig()).copy()
    sim_values = {name: value for name, value in overrides.items() if name in sim_fields}
    if "cameras" in sim_values:
        sim_values["cameras"] = [_camera(camera) for camera in sim_values["cameras"]]
    config = dataclasses.replace(config, **sim_values)
    if config.domain_randomization:
        from simscaleai_jax.sim.randomization import resolve

        config = dataclasses.replace(config, randomization=resolve(config.randomization))
    task_values = {name: value for name, value in overrides.items() if name in task_fields}
    return dataclasses.replace(config, task=_task_config(config_cls, config.task, task_values))


def _camera(camera: Any) -> CameraConfig:
    if isinstance(camera, str):
        return CameraConfig(name=camera)
    if isinstance(camera, Mapping):
        return from_dict(CameraConfig, camera, where="cameras: ")
    return dataclasses.replace(camera)


def _task_config(config_cls: type | None, base: Any, values: Mapping[str, Any]) -> Any:
    if config_cls is None:
        return base
    if isinstance(base, Mapping):
        base = from_dict(config_cls, base, where="task: ")
    if base is not None and not isinstance(base, config_cls):
        raise ValueError(f"task config must be a {config_cls.__name__}, got {type(base).__name__}")
    return dataclasses.replace(base or config_cls(), **values)


def _builtin_tasks() -> dict[str, TaskEntry]:
    from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig
    from simscaleai_jax.sim.tasks.pick_place.task import PickPlaceTask
    from simscaleai_jax.sim.tasks.reach import ReachConfig, ReachTask

    return {
        "pick_place": TaskEntry(PickPlaceTask, PickPlaceConfig, asset("pick_place.xml"), has_object=True),
        "reach": TaskEntry(ReachTask, ReachConfig, asset("reach.xml")),
    }
