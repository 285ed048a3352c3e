"""Other libraries drive our environments through the adapters; make test-clients brings the libraries."""

import sys

import jax
import numpy as np
import pytest

import simscaleai_jax.sim as sim
from simscaleai_jax import adapters

pytestmark = pytest.mark.clients
FAST = {"dt": 0.01, "cameras": [], "max_episode_steps": 6}


@pytest.fixture(scope="module")
def envs():
    return sim.make_vec_env("reach", 4, **FAST)


def test_stable_baselines3_trains(envs):
    ppo = pytest.importorskip("stable_baselines3").PPO
    vec = adapters.to_sb3(envs)
    vec.seed(3)
    first = vec.reset()
    vec.seed(3)
    np.testing.assert_array_equal(vec.reset(), first)
    ended = []
    for _ in range(7):
        obs, reward, done, infos = vec.step(np.zeros((4, 4)))
        ended += [infos[i] for i in np.flatnonzero(done)]
    assert obs.shape == (4, 20)
    assert reward.dtype == np.float32
    assert len(ended) >= 4
    assert all(info["TimeLimit.truncated"] and info["terminal_observation"].shape == (20,) for info in ended)
    agent = ppo("MlpPolicy", vec, n_steps=8, batch_size=16, n_epochs=1, device="cpu").learn(64)
    assert agent.num_timesteps == 64
    with pytest.raises(ValueError, match="resets within the step"):
        adapters.to_sb3(sim.make_vec_env("reach", 2, autoreset_mode="NextStep", **FAST))


def test_rsl_rl_steps(envs):
    torch = pytest.importorskip("torch")
    pytest.importorskip("rsl_rl")
    vec = adapters.to_rsl_rl(envs)
    assert vec.get_observations()["policy"].shape == (4, 20)
    timeouts = 0
    for _ in range(7):
        obs, reward, done, extras = vec.step(torch.zeros(4, 4))
        timeouts += int(extras["time_outs"].sum())
    assert obs["policy"].dtype == reward.dtype == torch.float32
    assert timeouts >= 4
    assert (vec.num_actions, vec.max_episode_length, done.shape) == (4, 6, (4,))


def test_braxs_own_wrappers_step_it():
    """brax's PPO itself calls a function that jax no longer has; its wrappers are what it trains through."""
    wrap = pytest.importorskip("brax.envs.wrappers.training").wrap
    env = adapters.to_brax(sim.make_functional_env("reach", impl="jax", **FAST))
    assert (env.observation_size, env.action_size) == (20, 4)
    wrapped = wrap(env, episode_length=env.max_episode_steps)
    state, step = wrapped.reset(jax.random.split(jax.random.PRNGKey(0), 3)), jax.jit(wrapped.step)
    dones = []
    for _ in range(env.max_episode_steps):
        state = step(state, np.zeros((3, 4), np.float32))
        dones.append(bool(state.done.all()))
    assert dones == [False] * 5 + [True]
    assert state.info["truncation"].all()
    assert state.obs.shape == (3, 20)
    assert {"success", "distance"} <= set(state.metrics)


def test_braxs_evaluation_counts_successes():
    training = pytest.importorskip("brax.envs.wrappers.training")
    env = adapters.to_brax(sim.make_functional_env("reach", **FAST))
    wrapped = training.EvalWrapper(training.wrap(env, episode_length=env.max_episode_steps))
    state = wrapped.reset(jax.random.split(jax.random.PRNGKey(0), 3))
    step = jax.jit(lambda state: jax.lax.fori_loop(0, 6, lambda _, s: wrapped.step(s, np.zeros((3, 4))), state))
    metrics = step(state).info["eval_metrics"].episode_metrics
    assert {"reward", "success", "distance"} <= set(metrics)
    assert metrics["success"].shape == (3,)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    monkeypatch.setitem(sys.modules, "brax.envs.base", None)
    monkeypatch.delitem(sys.modules, "simscaleai_jax.adapters.brax", raising=False)
    with pytest.raises(ImportError, match="pip install brax"):
        adapters.to_brax(None)
