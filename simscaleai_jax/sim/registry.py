"""Tasks by name: what `make_env`, `make_vec_env`, `make_batched_env` and `make_functional_env` build from."""

import dataclasses
import functools
import importlib.metadata
import importlib.resources
import types
from collections.abc import Callable, Mapping
from typing import Any

from simscaleai_jax.core.config import from_dict, init_fields
from simscaleai_jax.core.errors import check_names, unknown_name
from simscaleai_jax.sim.config import CameraConfig, SimConfig
from simscaleai_jax.sim.control import from_cartesian
from simscaleai_jax.sim.robot import PICKING, SORTING, STACKING, TARGET_ONLY, THREE_TARGETS, Needs, Robot
from simscaleai_jax.sim.tasks.base import Task
from simscaleai_jax.sim.tasks.expert import Expert
from simscaleai_jax.sim.tasks.snapshot import Snapshot


@dataclasses.dataclass(frozen=True)
class TaskEntry:
    """How to build one task.

    Attributes:
      make_task: `make_task(robot, config)` returns the task.
      config_cls: its config dataclass.
      xml_path: its default scene.
      needs: parts of the scene that it cannot do without.
      make_expert: `make_expert(task)` returns its scripted expert; None where there is none.
      instructions: ways to say it, of which data generation draws one per episode.
      adapter: gymnasium class, or where one is ("package.module:Class"); "" for the usual one.
    """

    make_task: Callable[[Robot, Any], Task]
    config_cls: type
    xml_path: str
    needs: Needs = TARGET_ONLY
    make_expert: Callable[[Any], Expert] | None = None
    instructions: tuple[str, ...] = ()
    adapter: type | str = ""

    def __post_init__(self) -> None:
        if isinstance(self.instructions, str) or not all(map(_is_instruction, self.instructions)):
            raise ValueError(f"instructions of a task: wanted several sentences, got {self.instructions!r}")


ENTRY_POINTS = "simscaleai_jax.tasks"  # group in which an installed package names its tasks

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
    """Every known task by name: built in, of installed packages, registered by this process."""
    return {**_installed_tasks(), **_builtin_tasks(), **_USER_TASKS}


def find_task(name: str) -> TaskEntry:
    """The entry of a task; an unknown name is a ValueError with the names there are."""
    known = tasks()
    if name not in known:
        raise unknown_name("env", name, known)
    return known[name]


def find_instructions(name: str) -> Any:
    """The `Instructions` that the episodes of a task are told, of which each has its own; None where there are none."""
    entry = tasks().get(name)
    return None if entry is None else getattr(entry.make_task, "instructions", None)


def find_expert(name: str, task: Task) -> Expert:
    """The scripted expert of the task registered as `name`, for its robot and settings, in the actions of the robot's
    controller.

    Raises:
      ValueError: no such task, or none with an expert (the message lists those with one).
    """
    known = tasks()
    make_expert = known[name].make_expert if name in known else None
    if make_expert is None:
        raise unknown_name("scripted expert", name, [key for key, entry in known.items() if entry.make_expert])
    expert, robot = make_expert(task), task.robot

    def act(snapshot: Snapshot, task_state: Any, phase: Any) -> tuple[Any, Any]:
        action, phase = expert.act(snapshot, task_state, phase)
        return from_cartesian(robot, snapshot, action), phase

    return dataclasses.replace(expert, act=act)


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
    return dataclasses.replace(config, task=_task_config(config_cls, config.task, task_values, config.robot))


def _camera(camera: Any) -> CameraConfig:
    if isinstance(camera, str):
        return CameraConfig(name=camera)
    if isinstance(camera, Mapping):
        return from_dict(CameraConfig, camera, where="cameras: ")
    return dataclasses.replace(camera)


def _task_config(config_cls: type | None, base: Any, values: Mapping[str, Any], robot: str) -> Any:
    """The task's config: its defaults, or those for another arm, where `base` and `values` say nothing."""
    if config_cls is None:
        return base
    if robot and (base is None or isinstance(base, Mapping)):
        values = {**_arm_defaults(config_cls, robot), **(base or {}), **values}
        base = from_dict(config_cls, values, where="task: ")
    if isinstance(base, Mapping):
        base = from_dict(config_cls, base, where="task: ")
    if base is not None and not isinstance(base, config_cls):
        raise ValueError(f"task config must be a {config_cls.__name__}, got {type(base).__name__}")
    return dataclasses.replace(base or config_cls(), **values)


def _arm_defaults(config_cls: type, robot: str) -> dict[str, Any]:
    """What a task's config takes from an arm's workspace, by its class method `for_workspace(low, high)`."""
    from simscaleai_jax.sim.robot.arms import find_arm

    arm = find_arm(robot)
    adapt = getattr(config_cls, "for_workspace", None)
    return adapt(arm.workspace_low, arm.workspace_high) if adapt else {}


def _is_instruction(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


@functools.cache
def _installed_tasks() -> dict[str, TaskEntry]:
    """Tasks of the entry points: a TaskEntry is known by its entry point's name; a module registers its own."""
    found = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        value = point.load()
        if isinstance(value, TaskEntry):
            found[point.name] = value
        elif not isinstance(value, types.ModuleType):
            raise ValueError(
                f"entry point {point.name!r} of {ENTRY_POINTS}: wanted a TaskEntry or a module that calls "
                f"register_task, got {value!r}"
            )
    return found


@functools.cache
def _builtin_tasks() -> dict[str, TaskEntry]:
    from simscaleai_jax.sim.tasks import lift, pick_place, pick_place_language, push, reach, reach_language, stack
    from simscaleai_jax.sim.tasks.grasping.expert import make_carry_expert
    from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig
    from simscaleai_jax.sim.tasks.pick_place.task import PickPlaceTask
    from simscaleai_jax.sim.tasks.stack.config import StackConfig
    from simscaleai_jax.sim.tasks.stack.expert import make_expert as make_stack_expert
    from simscaleai_jax.sim.tasks.stack.task import StackTask

    on_table = asset("pick_place.xml")
    return {
        "lift": TaskEntry(
            lift.LiftTask,
            lift.LiftConfig,
            on_table,
            needs=PICKING,
            make_expert=make_carry_expert,
            instructions=lift.INSTRUCTIONS,
            adapter="simscaleai_jax.sim.envs.tabletop_envs:LiftEnv",
        ),
        "pick_place": TaskEntry(
            PickPlaceTask,
            PickPlaceConfig,
            on_table,
            needs=PICKING,
            make_expert=make_carry_expert,
            instructions=pick_place.INSTRUCTIONS,
            adapter="simscaleai_jax.sim.envs.pick_place_env:PickPlaceEnv",
        ),
        "pick_place_language": TaskEntry(
            pick_place_language.PickPlaceLanguageTask,
            pick_place_language.PickPlaceLanguageConfig,
            asset("pick_place_language.xml"),
            needs=SORTING,
            make_expert=pick_place_language.make_expert,
            instructions=pick_place_language.PickPlaceLanguageTask.instructions.goals,
            adapter="simscaleai_jax.sim.envs.tabletop_envs:PickPlaceLanguageEnv",
        ),
        "push": TaskEntry(
            push.PushTask,
            push.PushConfig,
            on_table,
            needs=PICKING,
            make_expert=push.make_expert,
            instructions=push.INSTRUCTIONS,
            adapter="simscaleai_jax.sim.envs.tabletop_envs:PushEnv",
        ),
        "reach": TaskEntry(
            reach.ReachTask,
            reach.ReachConfig,
            asset("reach.xml"),
            make_expert=reach.make_expert,
            instructions=reach.INSTRUCTIONS,
            adapter="simscaleai_jax.sim.envs.reach_env:ReachEnv",
        ),
        "reach_language": TaskEntry(
            reach_language.ReachLanguageTask,
            reach_language.ReachLanguageConfig,
            asset("reach_language.xml"),
            needs=THREE_TARGETS,
            make_expert=reach_language.make_expert,
            instructions=reach_language.ReachLanguageTask.instructions.goals,
            adapter="simscaleai_jax.sim.envs.tabletop_envs:ReachLanguageEnv",
        ),
        "stack": TaskEntry(
            StackTask,
            StackConfig,
            asset("stack.xml"),
            needs=STACKING,
            make_expert=make_stack_expert,
            instructions=stack.INSTRUCTIONS,
            adapter="simscaleai_jax.sim.envs.tabletop_envs:StackEnv",
        ),
    }
