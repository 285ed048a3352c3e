"""PPOAgent: history, exact resume, prediction, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.checkpoint import Manifest, read_manifest, save
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig, load_policy
from simscaleai_jax.rl.curves import plot_learning_curve
from simscaleai_jax.rl.progress import MetricsFile, read_metrics

from .conftest import SMALL, same_leaves
from .probes import PROBES

DOCUMENTED = (
    "episode_reward", "episode_length", "success_rate", "policy_loss", "value_loss", "entropy", "approx_kl",
    "clip_fraction", "steps_per_second",
)  # fmt: skip


def test_train_returns_one_number_per_update(trained):
    agent, history = trained
    for name in DOCUMENTED:
        assert len(history[name]) == 4, name
        assert np.isfinite(history[name]).all(), name
    assert history["total_steps"] == [256, 512, 768, 1024]
    assert history["success_rate"][-1] > history["success_rate"][0], "it learns"
    assert history["episode_length"] == [1.0] * 4
    for name, weight in (("gain", 2), ("cost", -1)):  # every step is an episode
        np.testing.assert_allclose(history[f"reward/{name}"], np.multiply(weight, history["episode_reward"]), atol=1e-6)
    assert agent.train(PROBES["constant reward"], progress=False) == {}, "its steps are done"


def test_a_resumed_run_equals_an_uninterrupted_one(trained, probe, tmp_path):
    """C31."""
    agent, history = trained
    first = PPOAgent.for_env(probe, PPOConfig(**SMALL), "cpu")
    first.train(probe, progress=False, callbacks=[lambda agent, row: False])
    assert first.total_steps == 512, "a callback's False ends training after its dispatch"
    first.save(tmp_path / "half")
    second = PPOAgent.for_env(probe, PPOConfig(**SMALL), "cpu")
    second.load(tmp_path / "half")
    rest = second.train(probe, progress=False)
    assert same_leaves(second.state, agent.state), "environments, moments, statistics and keys included"
    assert rest["policy_loss"] == history["policy_loss"][2:]


def test_saved_policies_need_no_flags(trained, tmp_path):
    agent, _ = trained
    agent.save(tmp_path / "done")
    policy = load_policy(tmp_path / "done")
    obs = {"state": np.array([[1.0], [-1.0]], np.float32)}
    expected = agent.predict(obs)
    assert expected.shape == (2, 1)
    np.testing.assert_allclose(policy(obs, jax.random.key(0)), expected, rtol=1e-6)
    np.testing.assert_allclose(agent.predict(obs["state"][0]), expected[0], rtol=1e-6)
    batched = jax.vmap(policy, in_axes=(0, None))({"state": jnp.asarray(obs["state"])}, jax.random.key(0))
    np.testing.assert_allclose(batched, expected, rtol=1e-6)
    draws = [agent.predict(obs, deterministic=False) for _ in range(2)]
    assert not np.array_equal(*draws)
    manifest = read_manifest(tmp_path / "done")
    assert manifest.kind == "ppo"
    assert manifest.model_kwargs["obs_dim"] == 1
    assert manifest.observation_spec == {"state": {"shape": [1], "dtype": "float32"}}
    assert manifest.statistics == {"state": "normalizer/state"}


def test_checkpoints_that_do_not_fit_are_refused(trained, tmp_path):
    agent, _ = trained
    agent.save(tmp_path / "done")
    with pytest.raises(ValueError, match="was made with obs_dim=1; this agent has obs_dim=3"):
        PPOAgent(3, 1, PPOConfig(**SMALL)).load(tmp_path / "done")
    with pytest.raises(FileNotFoundError, match="Did you mean 'done'"):
        agent.load(tmp_path / "dome")
    save(tmp_path / "other", {"a": np.zeros(2)}, Manifest(kind="model", model_name="bc"))
    with pytest.raises(ValueError, match=r"holds a 'model' \(bc\), not a 'ppo' agent"):
        load_policy(tmp_path / "other")


def test_other_environments_start_anew_with_a_warning(trained, tmp_path, caplog):
    agent, _ = trained
    agent.save(tmp_path / "done")
    wider = PPOAgent(1, 1, PPOConfig(**SMALL | {"num_envs": 64, "total_timesteps": 256 * 5}))
    wider.load(tmp_path / "done")
    history = wider.train(PROBES["action for the observation"], progress=False)
    assert len(history["entropy"]) == 1
    assert "Environments start anew" in caplog.text


def test_environments_that_do_not_fit_are_refused_before_anything_compiles(probe):
    with pytest.raises(ValueError, match="obs_dim=20; the environment needs 1"):
        PPOAgent(20, 1, PPOConfig(**SMALL)).train(probe)
    with pytest.raises(ValueError, match=r"'stat'. Did you mean 'state'"):
        PPOAgent.for_env(probe, PPOConfig(**SMALL, critic_keys=("stat",)))
    with pytest.raises(ValueError, match=r"needs obs\['image'\]"):
        PPOAgent.for_env(probe, PPOConfig(**SMALL, encoder="cnn"))
    with pytest.raises(ValueError, match="encoder and its size go together"):
        PPOAgent(1, 1, PPOConfig(**SMALL, encoder="cnn"))
    with pytest.raises(ValueError, match="Unknown device 'cuda9x'"):
        PPOAgent(1, 1, PPOConfig(**SMALL), device="cuda9x")


def test_a_critic_of_its_own_trains(probe):
    config = PPOConfig(**SMALL | {"total_timesteps": 256}, critic_keys=("state",), num_devices=2)
    agent = PPOAgent.for_env(probe, config, "cpu")
    before = agent.state.params["critic_net"]
    agent.train(probe, progress=False)
    assert set(agent.state.normalizer) == {"state", "critic"}
    assert not same_leaves(agent.state.params["critic_net"], before)


def test_metrics_and_curve_are_written(trained, tmp_path):
    agent, history = trained
    file = MetricsFile(tmp_path / "run" / "metrics.jsonl")
    for i in range(4):
        file(agent, {name: values[i] for name, values in history.items()} | {"bad": float("nan")})
    metrics = read_metrics(file.path)
    assert metrics["episode_reward"] == history["episode_reward"]
    assert np.isnan(metrics["bad"]).all()
    path = plot_learning_curve(metrics, tmp_path / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="history is empty"):
        plot_learning_curve({}, tmp_path / "none.png")
