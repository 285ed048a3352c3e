"""Actions in an environment's own units: in training, prediction, loading and evaluation."""

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from simscaleai_jax.core.checkpoint import read_manifest
from simscaleai_jax.policy import load_policy
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.rl.ppo.actions import ActionBounds

from .conftest import SMALL

BEST = (80.0, -1.5)


class Aim(gym.Env):
    """One step: the reward is highest, 0, at an action of `BEST`; bounds (0, 100) and, like Pendulum's, (-2, 2)."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(np.float32([0, -2]), np.float32([100, 2]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        error = np.abs(action - BEST) / (100, 4)
        return np.zeros(1, np.float32), -float(error.sum()), True, False, {"success": bool((error < 0.1).all())}


@pytest.fixture(scope="module")
def aiming():
    env = SyncVectorEnv([Aim] * 16)
    config = PPOConfig(**SMALL | {"n_steps": 512, "num_minibatches": 4, "n_epochs": 8, "total_timesteps": 512 * 16})
    agent = PPOAgent.for_env(env, config, "cpu")
    return agent, agent.train(env, progress=False)


@pytest.mark.wide
def test_the_best_action_is_found_wherever_the_bounds_are(aiming, tmp_path):
    agent, history = aiming
    assert history["success_rate"][-1] > history["success_rate"][0]
    obs = np.zeros(1, np.float32)
    action = agent.predict(obs)
    np.testing.assert_allclose(action / (100, 4), np.divide(BEST, (100, 4)), atol=0.1)
    agent.save(tmp_path / "aim")
    spec = read_manifest(tmp_path / "aim").action_spec
    assert (spec["low"], spec["high"]) == ([0.0, -2.0], [100.0, 2.0])
    policy = load_policy(tmp_path / "aim")
    np.testing.assert_allclose(policy({"state": obs}, jax.random.key(0)), action, rtol=1e-5)
    loaded = PPOAgent(1, 2, agent.config)
    loaded.load(tmp_path / "aim")
    np.testing.assert_allclose(loaded.predict(obs), action, rtol=1e-5)
    np.testing.assert_allclose(loaded.policy()(obs, jax.random.key(0)), action, rtol=1e-5)
    for predict in (agent.predict, lambda obs, key: policy({"state": obs}, key)):
        assert evaluate_policy(Aim(), predict, EvalConfig(n_episodes=2))["success_rate"] == 1.0
    draws = [policy_draw(tmp_path / "aim", seed) for seed in range(20)]
    assert all(Aim.action_space.contains(draw) for draw in draws), "samples are inside the bounds, too"
    with pytest.raises(ValueError, match=r"learned actions in \[0.0, 100.0\] x \[-2.0, 2.0\]"):
        loaded.train(Turned(), progress=False)


def policy_draw(path, seed):
    policy = load_policy(path, deterministic=False)
    return np.asarray(policy({"state": np.zeros(1, np.float32)}, jax.random.key(seed)))


class Turned(Aim):
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)


def test_units_and_bounds():
    bounds = ActionBounds.of_space(
        gym.spaces.Box(np.float32([0, -2, -np.inf, -3e38]), np.float32([100, 2, np.inf, 3e38]))
    )
    assert bounds == ActionBounds((0.0, -2.0, None, None), (100.0, 2.0, None, None))
    ends = bounds.to_env(np.float32([[-1, -1, -7, 5], [1, 1, 7, -5], [9, -9, 9, 9]]))
    np.testing.assert_array_equal(ends, [[0, -2, -7, 5], [100, 2, 7, -5], [100, -2, 9, 9]])
    assert ends.dtype == np.float32
    assert ActionBounds.from_record(bounds.record(), 4) == bounds
    assert ActionBounds.unit(3).record() == {"shape": [3], "dtype": "float32", "low": -1.0, "high": 1.0}
    inside = np.random.default_rng(0).uniform(-1, 1, (100, 3)).astype(np.float32)
    assert (ActionBounds.unit(3).to_env(inside) == inside).all(), "bit for bit"
    with pytest.raises(ValueError, match=r"number 1 lies in \[0.0, inf\]"):
        ActionBounds.of_space(gym.spaces.Box(np.float32([0, 0]), np.float32([1, np.inf])))


def test_whole_numbers_are_rounded_and_pendulum_is_driven_to_its_limits():
    seen = []

    class Whole(Turned):
        action_space = gym.spaces.Box(0, 10, (2,), np.int64)

        def step(self, action):
            seen.append(action)
            return super().step(action)

    agent = PPOAgent.for_env(Whole(), PPOConfig(**SMALL | {"n_steps": 64, "total_timesteps": 64}), "cpu")
    agent.train(Whole(), progress=False)
    assert {action.dtype for action in seen} == {np.dtype(np.int64)}
    assert np.mean(seen) == pytest.approx(5, abs=1), "centred, neither cut towards zero nor clipped to 0"
    assert PPOAgent.for_env(gym.make("Pendulum-v1"), PPOConfig(**SMALL), "cpu").action_bounds.high == (2.0,)
