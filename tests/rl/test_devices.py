"""PPO on eight devices and on one: the same gradients, equal copies of the weights, one trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simscaleai_jax.core import sharding
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo import train
from simscaleai_jax.rl.ppo.config import make_layout
from simscaleai_jax.rl.ppo.state import Learner, init_training_state, make_learner

from .conftest import SMALL

SIZES = {"obs_dim": 1, "action_dim": 1, "hidden_dim": 16, "n_layers": 1}


class GradientKeeper(Learner):
    """A learner whose optimizer leaves the weights alone; its state is the sum of the gradients it was given, and the
    latest of them.
    """

    @property
    def optimizer(self) -> optax.GradientTransformation:
        def init(params):
            return jax.tree.map(jnp.zeros_like, (params, params))

        def update(grads, state, params=None):
            return jax.tree.map(jnp.zeros_like, grads), (jax.tree.map(jnp.add, state[0], grads), grads)

        return optax.GradientTransformation(init, update)


def run(probe, count, updates, keep_gradients=False, **settings):
    """The state after some updates of a small run on `count` devices."""
    config = PPOConfig(**SMALL | {"num_envs": 64, "n_steps": 512, "normalize_rewards": True} | settings)
    learner, params = make_learner(config, SIZES)
    if keep_gradients:
        learner = GradientKeeper(learner.graphdef, learner.config, learner.input_sizes)
    mesh = sharding.make_mesh(jax.devices()[:count])
    layout = make_layout(config, count)
    bare = sharding.put_replicated(init_training_state(learner, params), mesh)
    state = train.make_init(learner, probe, layout, mesh)(bare)
    return train.make_dispatch(learner, probe, layout, mesh, updates)(state, np.int32(updates))[0]


@pytest.mark.wide
def test_gradients_on_eight_devices_equal_those_on_one(probe):
    """Rollout, advantages, minibatches and loss of one whole update, the weights held still."""
    minibatches = {"num_minibatches": 4, "n_epochs": 2}
    one, eight = (run(probe, count, 1, keep_gradients=True, **minibatches).opt_state for count in (1, 8))
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(one[1])) > 1e-2, "there is a gradient to compare"


@pytest.mark.wide
def test_weights_stay_identical_on_every_device_after_fifty_updates(probe):
    state = run(probe, 8, 50)
    assert int(state.update) == 50
    for leaf in jax.tree.leaves((state.params, state.opt_state, state.normalizer)):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 8
        assert all(np.array_equal(copy, copies[0]) for copy in copies)


@pytest.mark.wide
@pytest.mark.parametrize("devices", [1, 8])
def test_one_trace_for_all_updates(probe, monkeypatch, devices):
    traces = []
    collect = train.collect
    monkeypatch.setattr(train, "collect", lambda *given: traces.append(0) or collect(*given))
    config = PPOConfig(**SMALL | {"updates_per_dispatch": 2, "total_timesteps": 256 * 5, "num_devices": devices})
    agent = PPOAgent.for_env(probe, config, "cpu")
    agent.train(probe, progress=False)
    assert int(agent.state.update) == 5
    assert len(traces) == 1


@pytest.mark.wide
def test_a_whole_training_is_pmapped_over_seeds(probe):
    """Every device trains a policy of its own, as it would alone."""
    config = PPOConfig(**SMALL)
    learner, params = make_learner(config, SIZES)
    layout = make_layout(config)
    update = train.make_update(learner, probe, layout)

    def run_alone(key):
        env = probe.init(key, jnp.arange(layout.num_envs))
        bare = init_training_state(learner, params)
        state = bare.replace(key=key, env=env, discounted_return=jnp.zeros(layout.num_envs))
        return jax.lax.scan(lambda state, _: update(state), state, length=4)

    keys = jax.random.split(jax.random.key(0), 4)
    states, metrics = jax.pmap(run_alone)(keys)
    assert len(metrics["policy_loss"].sharding.device_set) == 4
    state, alone = jax.jit(run_alone)(keys[2])
    for found, wanted in zip(jax.tree.leaves(states.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(found[2], wanted, atol=1e-5)
        assert not np.allclose(found[1], wanted, atol=1e-5) or not np.any(wanted), "another seed, other weights"
    np.testing.assert_allclose(metrics["episode_reward"][2], alone["episode_reward"], rtol=1e-5)
