"""Foreign gymnasium environments: the Python loop, in every autoreset mode, and plain evaluation."""

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_episodes, evaluate_policy, takes_key
from simscaleai_jax.rl.ppo import python_loop
from simscaleai_jax.rl.ppo.buffer import RolloutBuffer
from simscaleai_jax.rl.ppo.normalize import init_stats, normalize
from simscaleai_jax.rl.ppo.state import make_learner
from simscaleai_jax.rl.ppo.update import Batch, ppo_loss

from .conftest import SMALL

KEYS = {"success_rate", "mean_reward", "std_reward", "mean_length", "min_reward", "max_reward"}


class Line(gym.Env):
    """Reward 1 for a positive action, else 0; three steps, ended by its time limit or by termination."""

    observation_space = gym.spaces.Dict({"state": gym.spaces.Box(-1, 1, (2,), np.float32)})
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, is_terminal: bool = False):
        self.is_terminal = is_terminal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.count += 1
        over = self.count == 3
        reward = float(action[0] > 0)
        return self._obs(), reward, over and self.is_terminal, over and not self.is_terminal, {"success": reward > 0}

    def _obs(self):
        return {"state": np.full(2, self.count / 3, np.float32)}


def vector(mode):
    return SyncVectorEnv([Line] * 4, autoreset_mode=mode)


@pytest.mark.wide
@pytest.mark.parametrize(
    "make", [Line, lambda: vector(AutoresetMode.SAME_STEP), lambda: vector(AutoresetMode.NEXT_STEP)],
    ids=["single", "same step", "next step"],
)  # fmt: skip
def test_the_loop_learns_on_foreign_environments(make):
    config = PPOConfig(**SMALL | {"n_steps": 240, "total_timesteps": 240 * 12, "num_minibatches": 4, "n_epochs": 4})
    env = make()
    agent = PPOAgent.for_env(env, config, "cpu")
    history = agent.train(env, progress=False)
    assert history["episode_length"] == [3.0] * 12, "reset steps are no transitions"
    assert history["episode_reward"][-1] > 2.5 > history["episode_reward"][0]
    assert history["success_rate"][-1] > 0.8
    last = normalize(agent.state.normalizer["state"], np.full(2, 2 / 3, np.float32))
    assert float(agent.network(last)[1]) > 1.35, (
        "bootstrapped over the time limit 1 / (1 - 0.5); cut there it would be 1"
    )


def test_the_loop_runs_on_two_devices_and_mixes_by_seed_and_update(monkeypatch):
    seeds, order = [], RolloutBuffer.shuffle_from

    def shuffle_from(self, *of):
        seeds.append(of)
        order(self, *of)

    monkeypatch.setattr(RolloutBuffer, "shuffle_from", shuffle_from)
    env = vector(AutoresetMode.SAME_STEP)
    config = PPOConfig(**SMALL | {"n_steps": 24, "total_timesteps": 24, "num_devices": 2, "seed": 7})
    agent = PPOAgent.for_env(env, config, "cpu")
    history = agent.train(env, progress=False)
    assert np.isfinite(history["policy_loss"]).all()
    assert all(len(leaf.sharding.device_set) == 2 for leaf in jax.tree.leaves(agent.state.params))
    agent.train(env, progress=False, total_timesteps=48)
    assert [of for of in seeds if len(of) == 2] == [(7, 0), (7, 1)], "a second call goes on, it does not start again"


@pytest.mark.wide
@pytest.mark.parametrize("minibatches", [1, 3, 7])
def test_rows_that_are_dropped_cost_no_gradient_step(monkeypatch, minibatches):
    """A NEXT_STEP environment's reset steps are no transitions; every other one is learned from once per epoch."""
    batches, step = [], python_loop.minibatch_step
    monkeypatch.setattr(python_loop, "minibatch_step", lambda *given: batches.append(given[2]) or step(*given))
    monkeypatch.setattr(jax, "jit", lambda function, **_: function)
    env = vector(AutoresetMode.NEXT_STEP)
    config = PPOConfig(**SMALL | {"n_steps": 40, "n_epochs": 5, "num_minibatches": minibatches, "total_timesteps": 40})
    PPOAgent.for_env(env, config, "cpu").train(env, progress=False)
    assert len(batches) == 5 * minibatches
    assert len({batch.action.shape for batch in batches}) == 1, "one program serves them all"
    learned = [int(batch.weight.sum()) for batch in batches]
    assert sum(learned) == 5 * (40 - 4 * 2), "4 environments reset twice in 10 steps"
    assert max(learned) - min(learned) <= 1


def test_weights_of_zero_are_not_learned_from():
    learner, params = make_learner(PPOConfig(), {"obs_dim": 1, "action_dim": 1, "hidden_dim": 8, "n_layers": 1})
    rows = np.linspace(-1, 1, 6, dtype=np.float32)
    stats = {"state": init_stats(1)}

    def loss(rows, weight=None):
        batch = Batch({"state": rows[:, None]}, rows[:, None], rows, rows, rows, rows, weight)
        return jax.value_and_grad(lambda params: ppo_loss(learner, params, stats, batch)[0])(params)

    whole, padded = loss(rows[:4]), loss(rows, np.array([1, 1, 1, 1, 0, 0], np.float32))
    for first, second in zip(jax.tree.leaves(whole), jax.tree.leaves(padded), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_the_order_of_transitions_follows_from_the_seed():
    buffer = RolloutBuffer(16, 1, 1)
    for t in range(16):
        buffer.add([t], [0.0], 0.0, False, 0.0, 0.0)

    def order(*of):
        buffer.shuffle_from(*of)
        return [int(row) for batch in buffer.get_batches(4) for row in batch["observations"][:, 0]]

    orders = [order(*of) for of in ((7, 0), (7, 1), (8, 0))]
    assert order(7, 0) == orders[0]
    assert len({tuple(rows) for rows in orders}) == 3
    assert all(sorted(rows) == list(range(16)) for rows in orders)


def test_what_the_loop_cannot_do_is_refused():
    env = vector(AutoresetMode.NEXT_STEP)
    with pytest.raises(ValueError, match=r"n_steps=250 is no multiple of the 4 environments; use 248"):
        PPOAgent.for_env(env, PPOConfig(**SMALL | {"n_steps": 250}), "cpu").train(env)
    disabled = vector(AutoresetMode.DISABLED)
    agent = PPOAgent.for_env(disabled, PPOConfig(**SMALL), "cpu")
    with pytest.raises(ValueError, match="resets itself"):
        agent.train(disabled)
    with pytest.raises(ValueError, match="Box action space"):
        PPOAgent.for_env(gym.make("CartPole-v1"), PPOConfig(**SMALL), "cpu")


def test_plain_evaluation_returns_the_documented_numbers():
    result = evaluate_policy(Line(), lambda obs: np.ones(1, np.float32), EvalConfig(n_episodes=3))
    assert set(result) == KEYS
    assert (result["success_rate"], result["mean_reward"], result["mean_length"]) == (1.0, 3.0, 3.0)
    cut = evaluate_policy(Line(True), lambda obs: -np.ones(1, np.float32), EvalConfig(n_episodes=2, max_steps=2))
    assert (cut["success_rate"], cut["max_reward"], cut["mean_length"]) == (0.0, 0.0, 2.0)


def test_an_episode_draws_the_same_whatever_was_played_before():
    def policy(obs, key):
        return jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)

    whole = evaluate_episodes(Line(), policy, EvalConfig(n_episodes=8, seed=5))
    part = evaluate_episodes(Line(), policy, EvalConfig(n_episodes=8, seed=5, numbers=(6, 2)))
    assert len(set(whole.returns.tolist())) > 1
    np.testing.assert_array_equal(part.returns, whole.returns[[6, 2]])


def test_predict_functions_are_told_apart():
    seen = []

    def predict(obs, deterministic=True):
        seen.append(deterministic)
        return np.ones(1, np.float32)

    evaluate_policy(Line(), predict, EvalConfig(n_episodes=1, deterministic=False))
    assert seen == [False] * 3
    assert not takes_key(predict)
    pure = evaluate_policy(Line(), lambda obs, key: obs["state"][:1] * 0 + 1, EvalConfig(n_episodes=1))
    assert pure["mean_reward"] == 3.0
    with pytest.raises(ValueError, match="n_episodes must be at least 1"):
        EvalConfig(n_episodes=0)
