"""The scripted experts on fresh episodes, in MJX and on host physics at the documented step."""

import jax
import jax.numpy as jnp
import pytest

from simscaleai_jax.datagen.experts import make_expert
from simscaleai_jax.sim.episodes import rollout
from simscaleai_jax.sim.factory import make_env, make_functional_env

from .episodes import host_expert, play


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wanted"), [("reach", 1.0), ("pick_place", 0.99)])
def test_expert_succeeds_in_a_thousand_mjx_episodes(name, wanted):
    env = make_functional_env(name, cameras=[], dt=0.01)
    policy = make_expert(name, env)

    @jax.jit
    def episodes(keys):
        carry = jax.vmap(policy.init_fn)(keys)
        last, _, _ = rollout(env, policy.act_fn, carry, keys, env.max_episode_steps, lambda *step: ())
        return last.info["success"]

    assert float(jnp.mean(episodes(jax.random.split(jax.random.key(7), 1000)))) >= wanted


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wanted"), [("reach", 1.0), ("pick_place", 0.99)])
def test_expert_succeeds_on_host_physics(name, wanted):
    env = make_env(name, cameras=[])
    assert env.config.dt == 0.002
    act = host_expert(env)
    successes = [play(env, act, seed=seed)[2][-1]["success"] for seed in range(200)]
    assert sum(successes) >= wanted * len(successes)


@pytest.mark.parametrize(("name", "wanted"), [("reach", 1.0), ("pick_place", 0.95)])
def test_expert_succeeds_in_twenty_host_episodes(name, wanted):
    env = make_env(name, cameras=[], dt=0.01)
    act = host_expert(env)
    successes = [play(env, act, seed=1000 + seed)[2][-1]["success"] for seed in range(20)]
    assert sum(successes) >= wanted * len(successes)
