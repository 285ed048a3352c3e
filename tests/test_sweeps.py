"""Values of a sweep in every configuration: each trains, saves, loads and resumes, or is refused before it compiles."""

import enum
import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.checkpoint import read_manifest
from simscaleai_jax.core.plain import native
from simscaleai_jax.models import create_model, registry
from simscaleai_jax.models.bc import BehaviorCloning
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo.envs import env_record
from simscaleai_jax.sim.config import CameraConfig, SimConfig
from simscaleai_jax.sim.tasks.reach import ReachConfig
from tests.rl.conftest import SMALL
from tests.rl.probes import PROBES
from tests.training.conftest import SMALL_MODEL, make_trainer


class Schedule(enum.Enum):
    LINEAR = "linear"


TAKEN = {
    "numpy": {"lr": np.float32(1e-3), "gamma": np.float64(0.5), "n_epochs": np.int64(1), "seed": np.uint8(0)},
    "arrays": {"lr": np.array(1e-3), "reward_scale": jnp.float32(2.0), "actor_keys": np.array(["state"])},
    "paths and enumerations": {"lr_schedule": Schedule.LINEAR, "clip_value_loss": np.True_, "actor_keys": ["state"]},
}
REFUSED = {
    "max_grad_norm": float("inf"), "target_kl": np.inf, "lr": np.ones(2), "hidden_dim": np.float32(1.5), "seed": print,
    "actor_keys": (b"state",),
}  # fmt: skip
PPO = SMALL | {"n_steps": 64, "num_envs": 16, "num_minibatches": 1, "n_epochs": 1, "total_timesteps": 128}


@pytest.fixture
def no_compile(monkeypatch):
    def fail(*_: Any) -> None:
        raise AssertionError("it has begun to compile")

    monkeypatch.setattr("simscaleai_jax.core.distributed.compile_together", fail)


@pytest.mark.wide
@pytest.mark.parametrize("values", TAKEN.values(), ids=TAKEN)
def test_ppo_takes_them(values, tmp_path):
    probe = PROBES["constant reward"]
    config = PPOConfig(**PPO | {"updates_per_dispatch": 1} | values)
    agent = PPOAgent.for_env(probe, config, "cpu")
    agent.train(probe, progress=False, callbacks=[lambda agent, row: False])
    agent.save(tmp_path / "run")
    resumed = PPOAgent.for_env(probe, config, "cpu")
    resumed.load(tmp_path / "run")
    assert len(resumed.train(probe, progress=False)["entropy"]) == 1
    saved = read_manifest(tmp_path / "run").config
    assert {name: saved[name] for name in values} == {name: native(value) for name, value in values.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_ppo_refuses_the_others_before_it_compiles(name, no_compile):
    with pytest.raises(ValueError, match=name):
        PPOAgent.for_env(PROBES["constant reward"], PPOConfig(**PPO | {name: REFUSED[name]}), "cpu")


def test_an_environment_whose_settings_no_file_can_keep_is_refused_before_ppo_compiles(no_compile):
    agent = PPOAgent.for_env(PROBES["constant reward"], PPOConfig(**PPO), "cpu")
    env = Configured()
    with pytest.raises(ValueError, match=r"SimConfig\.task\.reward_fn is <built-in function print>"):
        agent.train(env, progress=False)


class Configured:
    """A probe with a SimConfig whose task holds a function."""

    config = SimConfig(cameras=[], task={"reward_fn": print})

    def __getattr__(self, name):
        return getattr(PROBES["constant reward"], name)


def test_environments_record_plain_values():
    config = SimConfig(
        dt=np.float64(0.01), cameras=(CameraConfig(width=np.int64(8)),), seed=np.uint32(3), xml_path=Path("a.xml"),
        task=ReachConfig(target_low=np.array([0.35, -0.3, 0.08])), max_episode_steps=np.int16(5),
    )  # fmt: skip
    assert config.task.target_low == (0.35, -0.3, 0.08)
    env = type("Env", (), {"config": config, "task_name": "mine"})()
    record = env_record(env)
    assert (record["config"]["dt"], record["config"]["xml_path"], record["config"]["seed"]) == (
        0.01, str(Path("a.xml").absolute()), 3,
    )  # fmt: skip
    assert type(record["config"]["cameras"][0]["width"]) is int


class Sweep(BehaviorCloning):
    """A model of a user with an argument of any type."""

    def __init__(self, anything: Any = None, hidden_dim: int = 16, *, rngs: Any = None) -> None:
        super().__init__(hidden_dim=hidden_dim, n_layers=1, rngs=rngs)
        self.anything = anything


TRAINED = {
    "settings": ({"lr": np.float32(1e-2), "ema_decay": np.float64(0.5), "use_amp": np.False_, "seed": np.int64(1)}, {}),
    "model": ({}, {"hidden_dim": np.int64(16), "n_layers": np.int32(1), "dropout": np.float32(0.0)}),
    "model's settings": ({"model_kwargs": {"sizes": np.arange(2), "mode": Schedule.LINEAR, "at": Path("x")}}, {}),
}


@pytest.mark.wide
@pytest.mark.parametrize(("settings", "kwargs"), TRAINED.values(), ids=TRAINED)
def test_the_trainer_takes_them(settings, kwargs, tmp_path):
    for steps in (2, 4):
        model = create_model("bc", **SMALL_MODEL | kwargs)
        run = {"save_every": np.int64(2), "warmup_steps": np.int64(1), "log_every": 2, "max_steps": np.int64(steps)}
        trainer = make_trainer(tmp_path, model=model, **run | settings)
        assert trainer.train()["loss"] > 0
    manifest = read_manifest(tmp_path)
    assert (manifest.step, manifest.model_kwargs["hidden_dim"]) == (4, 16)


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        (
            {"model_kwargs": {"activation": print}},
            {},
            r"TrainConfig\.model_kwargs\.activation is <built-in",
        ),
        ({"model_kwargs": {"scale": np.inf}}, {}, r"TrainConfig\.model_kwargs\.scale is inf"),
        ({}, {"anything": functools.partial(print)}, r"model_kwargs\.anything is functools\.partial"),
        ({"lr": np.ones(2)}, {}, r"TrainConfig\.lr must be float"),
        ({"lr": np.inf}, {}, r"TrainConfig\.lr is inf"),
    ],
)
def test_the_trainer_refuses_the_others_before_it_compiles(
    settings, model, message, tmp_path, no_compile, monkeypatch
):  # fmt: skip
    monkeypatch.setitem(registry._classes, "sweep_test", Sweep)
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, model=create_model("sweep_test", **model), **settings)
