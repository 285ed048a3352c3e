"""What a task's entry carries, and where tasks come from."""

import dataclasses
import importlib.metadata
import types

import pytest

from simscaleai_jax.datagen.language import instructions
from simscaleai_jax.sim import TaskEntry, list_envs, make_env, register_task, registry
from simscaleai_jax.sim.envs.reach_env import ReachEnv
from simscaleai_jax.sim.envs.task_env import TaskEnv, task_env_class
from simscaleai_jax.sim.registry import find_expert, find_task, tasks


@pytest.fixture
def user_tasks(monkeypatch):
    monkeypatch.setattr(registry, "_USER_TASKS", {})


@pytest.fixture
def installed(monkeypatch):
    """A function that makes an entry point of this group stand for a value."""

    def install(name, value):
        point = types.SimpleNamespace(name=name, load=lambda: value)
        by_group = {registry.ENTRY_POINTS: [point]}
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: by_group.get(group, []))
        registry._installed_tasks.cache_clear()

    yield install
    monkeypatch.undo()
    registry._installed_tasks.cache_clear()


def renamed(**changes):
    return dataclasses.replace(find_task("reach"), **{"adapter": "", **changes})


def test_every_built_in_task_has_an_expert_instructions_and_its_documented_class():
    for name, entry in registry._builtin_tasks().items():
        cls = task_env_class(name)
        assert issubclass(cls, TaskEnv)
        assert cls.task_name == name
        assert cls.__module__.startswith("simscaleai_jax.sim.envs."), "a class that can be documented and pickled"
        assert entry.make_expert is not None
        assert len(set(entry.instructions)) >= 3


def test_an_adapter_of_ones_own_is_taken(user_tasks):
    class MyEnv(TaskEnv):
        task_name = "mine"

    register_task("mine", renamed(adapter=MyEnv))
    assert type(make_env("mine", cameras=[])) is MyEnv
    register_task("other", renamed())
    assert type(make_env("other", cameras=[])).task_name == "other"
    register_task("wrong", renamed(adapter=ReachEnv))
    with pytest.raises(ValueError, match="task 'wrong': wanted a TaskEnv with task_name = 'wrong'"):
        make_env("wrong", cameras=[])


def test_a_task_brings_its_expert_and_instructions(user_tasks):
    register_task("mine", renamed(instructions=("go there",)))
    assert instructions("mine") == ("go there",)
    task = make_env("mine", cameras=[]).task
    assert find_expert("mine", task).first_phase == find_expert("reach", task).first_phase
    register_task("silent", renamed(make_expert=None))
    with pytest.raises(
        ValueError,
        match=r"Unknown scripted expert 'silent'\. Available: lift, mine, pick_place, pick_place_language, push",
    ):
        find_expert("silent", task)
    with pytest.raises(ValueError, match="instructions of a task: wanted several sentences, got 'go there'"):
        renamed(instructions="go there")


def test_an_installed_package_brings_tasks(installed, user_tasks):
    installed("lab_reach", renamed())
    assert "lab_reach" in list_envs()
    installed("reach", renamed(xml_path="other.xml"))
    assert tasks()["reach"].xml_path != "other.xml", "a built-in name stays what it is"
    installed("lab", types.ModuleType("lab"))  # registers by itself
    assert "lab" not in tasks()
    installed("wrong", 3)
    with pytest.raises(
        ValueError, match=r"entry point 'wrong' of simscaleai_jax\.tasks: wanted a TaskEntry or a module"
    ):
        tasks()


def test_entries_keep_the_fields_that_user_code_gives_by_place():
    entry = find_task("reach")
    assert TaskEntry(entry.make_task, entry.config_cls, entry.xml_path) == renamed(make_expert=None, instructions=())
