"""The loss and its gradient, the probes' values, and one update on many devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simscaleai_jax.core import sharding
from simscaleai_jax.rl.agents.ppo import PPOConfig
from simscaleai_jax.rl.ppo.config import make_layout
from simscaleai_jax.rl.ppo.normalize import init_stats
from simscaleai_jax.rl.ppo.rollout import act_distribution, normalized
from simscaleai_jax.rl.ppo.state import init_training_state, make_learner
from simscaleai_jax.rl.ppo.train import make_dispatch, make_init, make_update
from simscaleai_jax.rl.ppo.update import Batch, adapt_learning_rate, ppo_loss, scheduled_rate

from .conftest import SMALL
from .probes import PROBES, ProbeSuite

SIZES = {"obs_dim": 1, "action_dim": 1, "hidden_dim": 16, "n_layers": 1}


@pytest.fixture(scope="module")
def policy_gradient():
    """(key, advantage) -> gradient of the surrogate alone on a random batch."""
    learner, params = make_learner(PPOConfig(entropy_coef=0.0, value_loss_coef=0.0), SIZES)

    def loss(params, key, advantage):
        keys = jax.random.split(key, 3)
        obs, action = (jax.random.normal(k, (8, 1)) for k in keys[:2])
        rows = jax.random.normal(keys[2], (8,))
        return ppo_loss(
            learner, params, {"state": init_stats(1)}, Batch({"state": obs}, action, rows, rows, advantage, rows)
        )[0]

    gradient = jax.jit(jax.grad(loss))
    return lambda seed, advantage: gradient(params, jax.random.key(seed), jnp.asarray(advantage, jnp.float32))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_zero_advantage_gives_zero_policy_gradient(policy_gradient, seed):
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(policy_gradient(seed, np.zeros(8))))


def test_an_advantage_moves_the_actor_and_not_the_critic(policy_gradient):
    gradient = policy_gradient(0, np.linspace(-1, 1, 8))
    assert jnp.abs(gradient["actor_mean"]["kernel"]).max() > 0
    assert (gradient["critic"]["kernel"] == 0).all()


def test_the_ratio_is_clipped_on_the_side_that_would_gain():
    learner, params = make_learner(PPOConfig(value_loss_coef=0.0, entropy_coef=0.0, clip_epsilon=0.2), SIZES)
    obs, action = jnp.zeros((1, 1)), jnp.zeros((1, 1))
    log_prob = learner.network(params).evaluate_actions(obs, action)[0]

    def loss(ratio, advantage):
        old, one = log_prob - jnp.log(ratio), jnp.ones(1)
        return ppo_loss(
            learner, params, {"state": init_stats(1)}, Batch({"state": obs}, action, old, one, one * advantage, one)
        )

    for ratio, advantage, expected in ((1.5, 1, -1.2), (0.5, 1, -0.5), (1.5, -1, 1.5), (0.5, -1, 0.8), (1.1, 1, -1.1)):
        value, metrics = loss(ratio, advantage)
        assert value == pytest.approx(expected, rel=1e-5)
        assert metrics["clip_fraction"] == (abs(ratio - 1) > 0.2)
        assert metrics["approx_kl"] == pytest.approx(ratio - 1 - np.log(ratio), rel=1e-4)


def test_learning_rate_schedules():
    adaptive = PPOConfig(lr_schedule="adaptive", target_kl=0.01)
    rates = [float(adapt_learning_rate(adaptive, jnp.float32(3e-4), jnp.float32(kl))) for kl in (0.03, 0.01, 0.001)]
    np.testing.assert_allclose(rates, [2e-4, 3e-4, 4.5e-4], rtol=1e-5)
    assert adapt_learning_rate(adaptive, jnp.float32(1e-2), jnp.float32(0.0)) == pytest.approx(1e-2), "bounded"
    linear = PPOConfig(lr_schedule="linear", n_steps=100, batch_size=10, total_timesteps=1000)
    assert scheduled_rate(linear, jnp.float32(1.0), jnp.int32(5)) == pytest.approx(0.5)
    assert adapt_learning_rate(linear, jnp.float32(1.0), jnp.float32(9.0)) == 1.0


@pytest.fixture(scope="module")
def solved():
    """Training vmapped over all probes as over seeds: (learner, states after 80 updates, metrics [probe, update])."""
    config = PPOConfig(**SMALL | {"n_steps": 1024, "num_envs": 64, "num_minibatches": 4, "n_epochs": 4})
    learner, params = make_learner(config, SIZES)
    layout = make_layout(config)
    bare = init_training_state(learner, params)

    def train(kind):
        env = ProbeSuite(kind).init(jax.random.key(1), jnp.arange(64))
        state = bare.replace(env=env, discounted_return=jnp.zeros(64))
        update = make_update(learner, ProbeSuite(), layout)
        return jax.lax.scan(lambda state, _: update(state), state, length=80)

    return learner, *jax.jit(jax.vmap(train))(jnp.arange(len(PROBES)))


@pytest.mark.parametrize("name", PROBES)
def test_probe_values_are_found(solved, name):
    learner, states, _ = solved
    state = jax.tree.map(lambda leaf: leaf[list(PROBES).index(name)], states)
    for x, value in PROBES[name].values.items():
        inputs = normalized({"state": jnp.array([x])}, state.normalizer, learner.config)
        assert learner.network(state.params)(inputs)[1] == pytest.approx(value, abs=0.1), x


def test_reward_terms_are_means_over_transitions(solved):
    _, _, metrics = solved
    last = {name: dict(zip(PROBES, values[:, -1].tolist(), strict=True)) for name, values in metrics.items()}
    assert last["episode_reward"]["time limit"] == 10
    assert (last["reward/gain"]["time limit"], last["reward/cost"]["time limit"]) == (2, -1)
    assert last["reward/gain"]["delayed reward"] == 1, "2 at every second step"


@pytest.fixture(scope="module")
def on_devices(probe):
    """devices -> (state and metrics after two updates, the compiled program's text)."""

    def run(count):
        config = PPOConfig(**SMALL | {"num_envs": 64, "n_steps": 512, "normalize_rewards": True})
        learner, params = make_learner(config, SIZES)
        mesh = sharding.make_mesh(jax.devices()[:count])
        layout = make_layout(config, count)
        bare = sharding.put_replicated(init_training_state(learner, params), mesh)
        state = make_init(learner, probe, layout, mesh)(bare)
        program = make_dispatch(learner, probe, layout, mesh, 2).lower(state, 2).compile()
        return *program(state, np.int32(2)), program.as_text()

    return {count: run(count) for count in (1, 8)}


def test_eight_devices_do_what_one_does(on_devices):
    (one, one_metrics, _), (eight, eight_metrics, _) = on_devices[1], on_devices[8]
    assert len(eight.env.x.sharding.device_set) == 8
    assert eight.env.x.addressable_shards[0].data.shape == (8,)
    for name in ("env", "normalizer", "reward_stats", "params"):
        for a, b in zip(jax.tree.leaves(getattr(one, name)), jax.tree.leaves(getattr(eight, name)), strict=True):
            if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                np.testing.assert_allclose(a, b, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(one_metrics["episode_reward"], eight_metrics["episode_reward"], rtol=1e-5)
    for name in ("gain", "cost"):
        np.testing.assert_allclose(one_metrics[f"reward/{name}"], eight_metrics[f"reward/{name}"], rtol=1e-5)
    np.testing.assert_allclose(one_metrics["policy_loss"], eight_metrics["policy_loss"], atol=1e-4)


@pytest.mark.parametrize("wanted", [None, "bfloat16"])
def test_every_product_is_whole_float32(wanted):
    """Acting, its values and the gradient, with a critic and an encoder of its own, whatever the default is."""
    config = PPOConfig(encoder="cnn", critic_keys=("far",), auxiliary_keys=("near",))
    sizes = SIZES | {"critic_obs_dim": 2, "image_shape": (20, 20, 3), "auxiliary_dim": 3}
    learner, params = make_learner(config, sizes)
    stats = {name: init_stats(size) for name, size in (("state", 1), ("critic", 2), ("auxiliary", 3))}
    inputs = {"state": jnp.ones((4, 1)), "critic": jnp.ones((4, 2)), "auxiliary": jnp.ones((4, 3))}
    inputs["image"] = jnp.zeros((4, 20, 20, 3), jnp.uint8)
    batch = Batch(inputs, jnp.ones((4, 1)), *[jnp.ones(4)] * 4)
    obs = {"state": jnp.ones((4, 1)), "image": inputs["image"]}
    acting = {"params": params, "normalizer": stats}
    with jax.default_matmul_precision(wanted):
        programs = [
            jax.jit(jax.grad(lambda params: ppo_loss(learner, params, stats, batch), has_aux=True)).lower(params),
            jax.jit(lambda acting, obs: act_distribution(learner, acting, obs)).lower(acting, obs),
        ]
    for text in (program.as_text() for program in programs):
        products = [line for line in text.splitlines() if "dot_general" in line or "convolution" in line]
        assert products
        assert all("HIGHEST" in line for line in products), products


def test_a_minibatch_makes_one_all_reduce(on_devices):
    state, _, text = on_devices[8]
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params)) + 6  # and the six numbers of the loss
    computations = re.split(r"\n(?=%|ENTRY)", text)
    with_gradients = [body for body in computations if re.search(rf"f32\[{size}\]\S* all-reduce", body)]
    assert len(with_gradients) == 1, "the body of the loop over minibatches"
    assert len(re.findall(r" all-reduce(?:-start)?\(", with_gradients[0])) == 1
