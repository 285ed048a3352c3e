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


def test_braxs_own_wrappers_step_it_and_its_evaluator_counts():
    training = pytest.importorskip("brax.envs.wrappers.training")
    from brax.training.acting import Evaluator

    env = adapters.to_brax(sim.make_functional_env("reach", **FAST))
    assert (env.observation_size, env.action_size) == (20, 4)
    wrapped = training.wrap(env, episode_length=env.max_episode_steps)
    state, step = wrapped.reset(jax.random.split(jax.random.PRNGKey(0), 3)), jax.jit(wrapped.step)
    dones = []
    for _ in range(env.max_episode_steps):
        state = step(state, np.zeros((3, 4), np.float32))
        dones.append(bool(state.done.all()))
    assert dones == [False] * 5 + [True]
    assert state.info["truncation"].all()
    assert state.obs.shape == (3, 20)
    assert {"success", "distance"} <= set(state.metrics)

    def policy(obs, key):
        return np.zeros((3, 4), np.float32), {}

    made = {"num_eval_envs": 3, "episode_length": 6, "action_repeat": 1, "key": jax.random.PRNGKey(1)}
    found = Evaluator(wrapped, lambda params: policy, **made).run_evaluation((), {})
    assert found["eval/avg_episode_length"] == 6
    assert found["eval/episode_success"] == 0
    assert found["eval/episode_reward"] < 0


def test_skrl_trains(envs):
    torch = pytest.importorskip("torch")
    trainers = pytest.importorskip("skrl.trainers.torch")
    from skrl.agents.torch.ppo import PPO, PPO_CFG
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model

    vec = adapters.to_skrl(envs)
    first, _ = vec.reset()
    ended = []
    for _ in range(7):
        obs, reward, terminated, truncated, infos = vec.step(torch.zeros(4, 4))
        ended += [infos["episode"]["success"].numel()] if infos["episode"] else []
        assert reward.shape == terminated.shape == truncated.shape == (4, 1)
    assert first.shape == obs.shape == (4, *vec.observation_space.shape) == (4, 20)
    assert obs.dtype == reward.dtype == torch.float32
    assert ended
    assert not torch.equal(first, obs)
    assert torch.equal(vec.reset()[0], obs), "a reset in the middle begins nothing"

    class Actor(GaussianMixin, Model):
        def __init__(self):
            Model.__init__(self, observation_space=vec.observation_space, action_space=vec.action_space, device="cpu")
            GaussianMixin.__init__(self)
            self.net, self.log_std = torch.nn.Linear(20, 4), torch.nn.Parameter(torch.zeros(4))

        def compute(self, inputs, role=""):
            return self.net(inputs["observations"]), {"log_std": self.log_std}

    class Critic(DeterministicMixin, Model):
        def __init__(self):
            Model.__init__(self, observation_space=vec.observation_space, action_space=vec.action_space, device="cpu")
            DeterministicMixin.__init__(self)
            self.net = torch.nn.Linear(20, 1)

        def compute(self, inputs, role=""):
            return self.net(inputs["observations"]), {}

    models = {"policy": Actor(), "value": Critic()}
    before = models["policy"].net.weight.detach().clone()
    agent = PPO(
        models=models,
        memory=RandomMemory(memory_size=8, num_envs=4, device="cpu"),
        observation_space=vec.observation_space,
        action_space=vec.action_space,
        device="cpu",
        cfg=PPO_CFG(rollouts=8, learning_epochs=1, mini_batches=2),
    )
    trainers.SequentialTrainer(cfg={"timesteps": 16, "headless": True}, env=vec, agents=agent).train()
    assert not torch.equal(models["policy"].net.weight, before)


def test_gymnax_steps_and_rejax_trains():
    gymnax = pytest.importorskip("gymnax")
    functional = sim.make_functional_env("reach", **FAST)
    env = adapters.to_gymnax(functional)
    assert isinstance(env, gymnax.environments.environment.Environment)
    params, keys = env.default_params, jax.random.split(jax.random.PRNGKey(0), 3)
    obs, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    step = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))
    goal = obs[:, -3:]
    for count in range(1, 7):
        obs, state, _, terminated, truncated, info = step(keys, state, np.zeros((3, 4), np.float32), params)
        assert truncated.tolist() == [count == 6] * 3
        assert not terminated.any()
    np.testing.assert_array_equal(info["final_observation"][:, -3:], goal)
    assert (obs[:, -3:] != goal).any(axis=1).all(), "a new start"
    np.testing.assert_array_equal(state.step, 0)
    assert env.observation_space(params).shape == (20,)
    assert (params.max_steps_in_episode, env.num_actions, env.name) == (6, 4, "reach")

    ppo = pytest.importorskip("rejax").PPO
    algo = ppo.create(
        env=adapters.to_rejax(functional), num_envs=4, num_steps=8, num_minibatches=2, num_epochs=1,
        total_timesteps=64, eval_freq=64, normalize_observations=True,
    )  # fmt: skip
    state, (lengths, _) = jax.jit(algo.train)(jax.random.PRNGKey(0))
    assert state.global_step == 64
    np.testing.assert_array_equal(lengths, 6)


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
