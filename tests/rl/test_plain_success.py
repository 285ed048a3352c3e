"""Success of the episodes whose start no curriculum eased, reported beside that of all."""

import math

import jax.numpy as jnp
import pytest

from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo.rollout import reward_terms

from .probes import PROBES

CONFIG = PPOConfig(
    hidden_dim=8, n_layers=1, n_steps=64, num_envs=16, num_minibatches=2, n_epochs=1, total_timesteps=64
)  # fmt: skip


class EasedProbe:
    """Every step is an episode; the first `eased` environments are assisted and succeed, the others fail."""

    def __init__(self, eased, info=None):
        self.inner, self.eased, self.info = PROBES["constant reward"], eased, info or {}
        self.observation_spec, self.action_size = self.inner.observation_spec, self.inner.action_size
        self.max_episode_steps = self.inner.max_episode_steps

    def init(self, key, env_ids):
        return self._mark(self.inner.init(key, env_ids))

    def step(self, state, action):
        return self._mark(self.inner.step(state, action))

    def _mark(self, state):
        eased = jnp.arange(len(state.reward)) < self.eased
        return state.replace(reward_terms={}, info=state.info | {"success": eased, "assisted": eased} | self.info)


@pytest.mark.wide
@pytest.mark.parametrize(("eased", "all_episodes", "plain"), [(0, 0.0, 0.0), (4, 0.25, 0.0), (16, 1.0, math.nan)])
def test_eased_starts_do_not_count_as_plain(eased, all_episodes, plain):
    env = EasedProbe(eased)
    history = PPOAgent.for_env(env, CONFIG, "cpu").train(env, progress=False)
    assert history["success_rate"] == [all_episodes]
    assert history["plain_success_rate"] == pytest.approx([plain], nan_ok=True)


def test_lost_contacts_are_counted_and_an_environment_may_name_no_reward_terms():
    env = EasedProbe(0, {"overflow": jnp.arange(16) < 3})
    history = PPOAgent.for_env(env, CONFIG, "cpu").train(env, progress=False)
    assert history["overflow_count"] == [3 * 64 / 16]
    assert history["nan_count"] == [0]
    assert not [name for name in history if name.startswith("reward/")]
    assert reward_terms(object()) == {}


def test_without_a_curriculum_both_are_the_same():
    env = PROBES["constant reward"]
    history = PPOAgent.for_env(env, CONFIG, "cpu").train(env, progress=False)
    assert history["success_rate"] == history["plain_success_rate"] == [1.0]
