"""What a user sets in JAX: training works under it, saves, loads and resumes, or is refused in one line before it
compiles.
"""

import logging
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from simscaleai_jax.core.jax_settings import GENERATOR, REFUSED
from simscaleai_jax.policy import load_policy
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from tests.rl.conftest import SMALL, same_leaves
from tests.rl.probes import PROBES
from tests.training.conftest import make_trainer

OBEYED = [
    ("jax_debug_nans", True),
    pytest.param("jax_debug_infs", True, marks=pytest.mark.wide),
    ("jax_default_matmul_precision", "bfloat16"),
    ("jax_default_device", 3),
    ("jax_default_prng_impl", "rbg"),
    pytest.param("jax_default_prng_impl", "unsafe_rbg", marks=pytest.mark.wide),
    pytest.param("jax_numpy_rank_promotion", "warn", marks=pytest.mark.wide),
    ("jax_log_compiles", True),
]
PPO = SMALL | {"hidden_dim": 4, "n_steps": 32, "num_envs": 8, "n_epochs": 1, "num_minibatches": 1}
PPO |= {"total_timesteps": 64, "updates_per_dispatch": 1}
PROBE = PROBES["action for the observation"]
RUN = {"log_every": 2, "save_every": 2, "warmup_steps": 1, "batch_size": 8}


@contextmanager
def setting(name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, jax.devices()[value] if name == "jax_default_device" else value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def train_ppo(folder):
    """Two updates, the second by an agent that has loaded what the first has saved: (agent, history)."""
    first = PPOAgent.for_env(PROBE, PPOConfig(**PPO), "cpu")
    first.train(PROBE, progress=False, callbacks=[lambda agent, row: False])
    first.save(folder / "ppo")
    second = PPOAgent.for_env(PROBE, PPOConfig(**PPO), "cpu")
    second.load(folder / "ppo")
    history = second.train(PROBE, progress=False)
    action = load_policy(folder / "ppo")({"state": np.ones((2, 1), np.float32)}, jax.random.key(0))
    np.testing.assert_allclose(action, first.predict({"state": np.ones((2, 1), np.float32)}), rtol=1e-5)
    return second, history


def train_model(folder):
    for steps in (2, 4):
        trainer = make_trainer(folder / "bc", max_steps=steps, **RUN)
        numbers = trainer.train()
    load_policy(folder / "bc")({"state": np.ones((2, 20), np.float32)}, jax.random.key(0))
    return trainer, numbers


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usual")
    return train_ppo(folder), train_model(folder)


@pytest.mark.wide
@pytest.mark.parametrize(("name", "value"), OBEYED)
def test_training_works_as_ever(name, value, usual, tmp_path, caplog):
    (agent, history), (trainer, numbers) = usual
    caplog.set_level(logging.CRITICAL)
    with setting(name, value):
        (ours, our_history), (our_trainer, our_numbers) = train_ppo(tmp_path), train_model(tmp_path)
    assert our_trainer.step == trainer.step == 4
    assert str(jax.random.key_impl(ours.state.key)) == str(jax.random.key_impl(our_trainer.state.key)) == GENERATOR
    if "prng" in name:  # the first weights are drawn by flax, with the generator that the user wants
        return
    assert same_leaves(agent.state.params, ours.state.params)
    assert our_history["policy_loss"] == history["policy_loss"]
    if name != "jax_default_matmul_precision":
        assert our_numbers["loss"] == pytest.approx(numbers["loss"], rel=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_training_is_refused_in_one_line_before_anything_compiles(name, tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError("it has begun to compile")

    agent = PPOAgent.for_env(PROBE, PPOConfig(**PPO), "cpu")
    monkeypatch.setattr("simscaleai_jax.core.distributed.compile_together", fail)
    with setting(name, REFUSED[name][0]):
        for start in (lambda: agent.train(PROBE, progress=False), lambda: make_trainer(tmp_path, **RUN)):
            with pytest.raises(ValueError, match=rf"^{name} is .*, but .*unset {name.upper()}") as error:
                start()
            assert "\n" not in str(error.value)
