"""GAE against a plain Python reference, in both of its forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.rl.agents.ppo import RolloutBuffer
from simscaleai_jax.rl.ppo.gae import gae

GAMMA, LAMBDA = 0.9, 0.8


def reference(rewards, values, next_values, terminated, truncated):
    """The definition, one number at a time: the discounted sum of TD errors up to the end of the episode."""
    steps = len(rewards)
    advantages = []
    for start in range(steps):
        total, weight = 0.0, 1.0
        for t in range(start, steps):
            bootstrap = 0.0 if terminated[t] else GAMMA * next_values[t]
            total += weight * (rewards[t] + bootstrap - values[t])
            if terminated[t] or truncated[t]:
                break
            weight *= GAMMA * LAMBDA
        advantages.append(total)
    return np.array(advantages)


@pytest.fixture
def rollout():
    random = np.random.default_rng(0)
    terminated, truncated = random.random((2, 40, 3)) < 0.15
    truncated &= ~terminated
    assert terminated.any()
    assert truncated.any()
    rewards, values, next_values = random.normal(size=(3, 40, 3)).astype(np.float32)
    going_on = ~(terminated | truncated)
    next_values[:-1] = np.where(going_on[:-1], values[1:], next_values[:-1])
    return rewards, values, next_values, terminated, truncated


def test_gae_equals_the_reference_with_terminations_and_time_limits(rollout):
    advantages, returns = gae(*map(jnp.asarray, rollout), GAMMA, LAMBDA)
    for env in range(3):
        expected = reference(*(array[:, env] for array in rollout))
        np.testing.assert_allclose(advantages[:, env], expected, atol=1e-5)
    np.testing.assert_allclose(returns, advantages + rollout[1], atol=1e-6)


def test_the_buffer_computes_the_same(rollout):
    rewards, values, next_values, terminated, truncated = rollout
    buffer = RolloutBuffer(40, 2, 1, "cpu", num_envs=3)
    for t in range(40):
        bootstrap = np.where(truncated[t], next_values[t], 0.0)
        done = terminated[t] | truncated[t]
        buffer.add(np.ones((3, 2)), np.ones((3, 1)), rewards[t], done, np.zeros(3), values[t], bootstrap=bootstrap)
    buffer.compute_gae(next_values[-1], GAMMA, LAMBDA)
    expected, _ = gae(*map(jnp.asarray, rollout), GAMMA, LAMBDA)
    np.testing.assert_allclose(buffer.advantages, expected, atol=1e-5)


def test_the_documented_buffer_with_one_environment():
    buffer = RolloutBuffer(4, obs_dim=2, action_dim=1, device="cpu")
    for t in range(4):
        buffer.add([t, t], [t], 1.0, t == 1, -0.5, 0.0, valid=t != 3)
    with pytest.raises(IndexError, match="full"):
        buffer.add([0, 0], [0], 0.0, False, 0.0, 0.0)
    buffer.compute_gae(10.0, gamma=0.5, gae_lambda=1.0)
    assert buffer.returns[:, 0].tolist() == [1.5, 1.0, 1 + 0.5 * (1 + 5), 6.0]
    batches = list(buffer.get_batches(2))
    seen = sorted(float(x) for batch in batches for x in batch["actions"][:, 0])
    assert seen == [0, 1, 2], "every valid transition once"
    assert [len(batch["returns"]) for batch in batches] == [2, 1]
    assert batches[0]["observations"].shape == (2, 2)
    buffer.reset()
    assert not list(buffer.get_batches(2))
