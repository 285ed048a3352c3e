"""Compiled programs that several tests of PPO share."""

import jax
import pytest

from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig

from .probes import PROBES

SMALL = {
    "hidden_dim": 16, "n_layers": 1, "n_steps": 256, "num_envs": 32, "num_minibatches": 2, "n_epochs": 2, "lr": 5e-3,
    "gamma": 0.5, "entropy_coef": 0.0, "total_timesteps": 256 * 4, "updates_per_dispatch": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def probe():
    return PROBES["action for the observation"]


@pytest.fixture(scope="session")
def trained(probe):
    """An agent that has done all of its four updates, and its history."""
    agent = PPOAgent.for_env(probe, PPOConfig(**SMALL), "cpu")
    return agent, agent.train(probe, progress=False)


def same_leaves(first, second) -> bool:
    """Whether two pytrees are equal bit for bit."""

    def data(leaf):
        is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.device_get(jax.random.key_data(leaf) if is_key else leaf)

    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all((data(a) == data(b)).all() for a, b in pairs)
