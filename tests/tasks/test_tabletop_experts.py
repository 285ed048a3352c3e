"""The scripted experts of the tabletop tasks on fresh episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.datagen.experts import make_expert
from simscaleai_jax.sim import make_env, make_functional_env
from simscaleai_jax.sim.envs.episodes import rollout
from simscaleai_jax.sim.registry import find_expert

NAMES = ("lift", "push", "stack", "reach_language", "pick_place_language")
WANTED = 0.99


def host_successes(env, seeds):
    """Whether each seed's episode of the expert succeeds on MuJoCo."""
    expert = find_expert(env.task_name, env.task)
    act, successes = jax.jit(expert.act), []
    for seed in seeds:
        obs, _ = env.reset(seed=seed)
        assert env.observation_space.contains(obs)
        phase, is_over, info = expert.first_phase, False, {}
        while not is_over:
            action, phase = act(env.snapshot, env.task_state, phase)
            obs, _, terminated, truncated, info = env.step(np.asarray(action))
            is_over = terminated or truncated
        assert env.observation_space.contains(obs)
        successes.append(info["success"])
    return successes


@pytest.mark.wide
@pytest.mark.parametrize("name", NAMES)
def test_an_expert_succeeds_in_ten_host_episodes(name):
    assert all(host_successes(make_env(name, cameras=[], dt=0.01), range(1000, 1010)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_expert_succeeds_in_two_hundred_host_episodes(name):
    assert np.mean(host_successes(make_env(name, cameras=[]), range(200))) >= WANTED


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_expert_succeeds_in_two_hundred_batched_episodes(name):
    env = make_functional_env(name, cameras=[], dt=0.01, impl="c")
    policy = make_expert(name, env)

    @jax.jit
    def episodes(keys):
        carry = jax.vmap(policy.init_fn)(keys)
        last, _, _ = rollout(env, policy.act_fn, carry, keys, env.max_episode_steps, lambda *step: ())
        return last.info["success"]

    assert float(jnp.mean(episodes(jax.random.split(jax.random.key(7), 200)))) >= WANTED
