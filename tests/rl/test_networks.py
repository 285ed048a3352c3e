"""The documented ActorCritic and its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.scipy import stats

from simscaleai_jax.rl.agents.ppo import ActorCritic, Normal
from simscaleai_jax.rl.ppo.normalize import init_stats, merge, normalize


def test_sizes_and_returns_are_the_documented_ones():
    model = ActorCritic(20, 4)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 72_457
    obs = jax.random.normal(jax.random.key(0), (5, 20))
    distribution, value = model.forward(obs)
    assert (distribution.mean.shape, value.shape) == ((5, 4), (5,))
    action, log_prob, value_again = model.get_action(obs, deterministic=True)
    assert jnp.array_equal(action, distribution.mean)
    assert jnp.array_equal(value, value_again)
    sampled, log_prob, _ = model.get_action(obs)
    assert not jnp.array_equal(sampled, model.get_action(obs)[0]), "each call draws anew"
    again, _, entropy = model.evaluate_actions(obs, sampled)
    np.testing.assert_allclose(again, log_prob, rtol=1e-6)
    np.testing.assert_allclose(entropy, 4 * 0.5 * np.log(2 * np.pi * np.e), rtol=1e-6)
    assert model.get_action(obs[0])[0].shape == (4,), "one observation needs no batch axis"


def test_weights_are_orthogonal_and_seeded():
    kernel = ActorCritic(20, 4).feature_net[1].kernel[...]
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(256), atol=1e-4)
    other = ActorCritic(20, 4, rngs=nnx.Rngs(1)).feature_net[1].kernel[...]
    assert not jnp.array_equal(kernel, other)


def test_normal_agrees_with_scipy():
    mean, log_std = jnp.array([[0.5, -1.0]]), jnp.array([0.3, -0.7])
    normal, value = Normal(mean, log_std), jnp.array([[0.1, 0.2]])
    np.testing.assert_allclose(normal.log_prob(value), stats.norm.logpdf(value, mean, jnp.exp(log_std)), rtol=1e-5)
    draws = jax.vmap(normal.sample)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.08)
    np.testing.assert_allclose(draws.std(0)[0], normal.stddev[0], atol=0.05)


def test_log_std_is_bounded_when_applied():
    model = ActorCritic(2, 1, log_std_max=0.5)
    model.actor_log_std[...] = jnp.array([9.0])
    assert model.forward(jnp.zeros(2))[0].stddev[0] == pytest.approx(np.exp(0.5))


def test_own_critic_and_image_encoder_take_their_inputs():
    model = ActorCritic(3, 2, hidden_dim=8, critic_obs_dim=5, image_shape=(24, 24, 3))
    inputs = {
        "state": jnp.ones((4, 3)),
        "critic": jnp.ones((4, 5)),
        "image": jnp.arange(4 * 24 * 24 * 3, dtype=jnp.uint8).reshape(4, 24, 24, 3),
    }
    distribution, value = model(inputs)
    other, other_value = model(inputs | {"critic": jnp.zeros((4, 5))})
    assert jnp.array_equal(distribution.mean, other.mean), "the actor does not see the critic's inputs"
    assert not jnp.array_equal(value, other_value)
    unseen, _ = model(inputs | {"image": jnp.zeros((4, 24, 24, 3), jnp.uint8)})
    assert not jnp.array_equal(distribution.mean, unseen.mean)
    seen_by_actor = {name: inputs[name] for name in ("state", "image")}
    alone = model.action_distribution(seen_by_actor)
    assert jnp.array_equal(alone.mean, distribution.mean), "acting needs nothing of the critic's"
    assert jnp.array_equal(alone.log_std, distribution.log_std)
    with pytest.raises(ValueError, match="at least 20 x 20 pixels; got 8 x 8"):
        ActorCritic(3, 2, image_shape=(8, 8, 3))


def test_merged_statistics_are_those_of_all_rows():
    rows = jnp.asarray(np.random.default_rng(0).normal(3.0, [0.5, 20.0], size=(100, 2)), jnp.float32)
    running = merge(merge(init_stats(2), rows[:30].reshape(5, 6, 2)), rows[30:])
    np.testing.assert_allclose(running.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(running.var, rows.var(0), rtol=1e-4)
    assert running.count == 100
    np.testing.assert_allclose(normalize(running, rows).std(0), 1.0, atol=2e-3)
    assert jnp.array_equal(normalize(init_stats(2), jnp.array([0.5, -20.0])) > -10.01, jnp.array([True, True]))
