"""Action heads: schedules, samplers and whether they recover a target with two modes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from simscaleai_jax.models import DiffusionActionHead, FlowActionHead, MLPActionHead, ResidualBlock, SinusoidalPosEmbed
from simscaleai_jax.models.policy_heads.schedule import alpha_bars, betas, sampling_steps

LOW_SHARE = 0.3
GENERATIVE = {"diffusion": DiffusionActionHead, "flow": FlowActionHead}


def train(head: nnx.Module, target_fn: Callable[[Any], Any], num_steps: int, batch: int = 256) -> nnx.Module:
    """The head after `num_steps` Adam steps on targets drawn by `target_fn(key)`, with constant features."""
    graphdef, params = nnx.split(head)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))
    features = jnp.zeros((batch, 4))

    def loss(params: Any, key: Any) -> Any:
        key_target, key_noise = jax.random.split(key)
        return nnx.merge(graphdef, params)(features, target_fn(key_target), key=key_noise)["loss"]

    def step(carry: Any, key: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), num_steps)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((params, optimizer.init(params)))
    return nnx.merge(graphdef, params)


def two_modes(key: Any) -> Any:
    """-0.5 in 30 % and 0.5 in 70 % of the cases."""
    return jnp.where(jax.random.uniform(key, (256, 1)) < LOW_SHARE, -0.5, 0.5)


@pytest.mark.wide
@pytest.mark.parametrize("name", sorted(GENERATIVE))
def test_a_two_mode_target_is_recovered_in_ten_steps(name: str) -> None:
    head = train(GENERATIVE[name](4, 1, 64, 2), two_modes, 1500)
    samples = np.asarray(head.sample(jnp.zeros((4000, 4)), key=jax.random.key(5), num_steps=10))[:, 0]
    low, high = samples[samples < 0], samples[samples >= 0]
    assert abs(len(low) / len(samples) - LOW_SHARE) < 0.1
    assert abs(np.median(low) + 0.5) < 0.05
    assert abs(np.median(high) - 0.5) < 0.05
    assert (np.abs(np.abs(samples) - 0.5) < 0.05).mean() > 0.75


def test_alpha_bar_starts_near_one_and_ends_near_zero() -> None:
    signal = alpha_bars("cosine", 100, 1e-4, 0.02)
    assert (np.diff(signal) < 0).all()
    assert signal[0] > 0.999
    assert signal[-1] < 1e-4
    time = (np.arange(1, 100) / 100 + 0.008) / 1.008
    np.testing.assert_allclose(signal[:-1], (np.cos(time * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2)
    np.testing.assert_allclose(betas("linear", 3, 0.1, 0.3), [0.1, 0.2, 0.3])


def test_explicit_betas_select_the_linear_schedule() -> None:
    assert DiffusionActionHead(4, 1, 8, 1).schedule == "cosine"
    assert DiffusionActionHead(4, 1, 8, 1, beta_start=1e-4).schedule == "linear"
    linear = DiffusionActionHead(4, 1, 8, 1, schedule="linear")
    np.testing.assert_allclose(linear.alpha_bar, np.cumprod(1 - np.linspace(1e-4, 0.02, 100)))
    with pytest.raises(ValueError, match="cosine, linear"):
        DiffusionActionHead(4, 1, 8, 1, schedule="cubic")


@pytest.mark.parametrize("num_steps", [1, 3, 7, 10, 99, 100])
def test_sampling_takes_exactly_as_many_steps(num_steps: int) -> None:
    steps = sampling_steps(100, num_steps)
    assert len(set(steps.tolist())) == num_steps
    assert (np.diff(steps) < 0).all()
    assert 0 <= steps[-1] <= steps[0] < 100
    for cls in GENERATIVE.values():
        head = cls(4, 1, 8, 1)
        calls = jax.make_jaxpr(lambda f, head=head: head.sample(f, num_steps=num_steps))(jnp.zeros((1, 4)))
        (scan,) = [equation for equation in calls.eqns if equation.primitive.name == "scan"]
        assert scan.params["length"] == num_steps


def test_too_many_sampling_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted 1 to 5"):
        DiffusionActionHead(4, 1, 8, 1, num_diffusion_steps=5, num_inference_steps=6)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("name", sorted(GENERATIVE))
def test_every_depth_and_chunks_work_and_samples_are_clipped(name: str, n_layers: int) -> None:
    head = GENERATIVE[name](4, 2, 8, n_layers, action_horizon=3)
    head.network.final.bias[...] = jnp.full(6, 30.0)  # predictions far outside
    features = jnp.ones((5, 4))
    actions = head(features, key=jax.random.key(0))["predicted_actions"]
    assert actions.shape == (5, 3, 2)
    assert np.abs(actions).max() <= 1.0
    np.testing.assert_array_equal(actions, head(features, key=jax.random.key(0))["predicted_actions"])
    assert not np.array_equal(head.sample(features, key=jax.random.key(2)), actions) or np.abs(actions).min() == 1.0
    out = head(features, jnp.zeros((5, 3, 2)), key=jax.random.key(0))
    assert out["loss"].shape == ()
    with pytest.raises(ValueError, match="n_layers is 0"):
        GENERATIVE[name](4, 2, 8, 0)


def test_ddim_with_a_perfect_network_lands_on_the_target() -> None:
    head = DiffusionActionHead(4, 2, 8, 1)
    target = jnp.asarray([[0.3, -0.6]])
    signal = jnp.asarray(head.alpha_bar, jnp.float32)

    def perfect(condition: Any, actions: Any, time: Any) -> Any:
        here = signal[time][:, None]
        return (actions - jnp.sqrt(here) * target) / jnp.sqrt(1.0 - here)

    class Perfect(nnx.Module):
        def condition(self, features: Any) -> Any:
            return features

        def __call__(self, condition: Any, actions: Any, time: Any) -> Any:
            return perfect(condition, actions, time)

    head.network = Perfect()
    for num_steps in (1, 4, 10, 33):
        np.testing.assert_allclose(head.sample(jnp.zeros((1, 4)), num_steps=num_steps), target, atol=1e-4)


def test_training_estimates_and_evaluation_samples() -> None:
    head = DiffusionActionHead(4, 1, 8, 1)
    features, target = jnp.ones((3, 4)), jnp.zeros((3, 1))
    training = head(features, target, key=jax.random.key(0))
    head.eval()
    evaluated = head(features, target, key=jax.random.key(0))
    np.testing.assert_array_equal(training["loss"], evaluated["loss"])
    sampled = head(features, key=jax.random.key(0))["predicted_actions"]
    np.testing.assert_array_equal(evaluated["predicted_actions"], sampled)
    assert not np.array_equal(training["predicted_actions"], sampled)


def test_small_parts() -> None:
    embedded = SinusoidalPosEmbed(8)(jnp.asarray([0.0, 3.0]))
    frequencies = 10000.0 ** -(np.arange(4) / 3)
    np.testing.assert_allclose(embedded[1], np.r_[np.sin(3 * frequencies), np.cos(3 * frequencies)], atol=1e-6)
    assert ResidualBlock(6, 8, 4)(jnp.ones((2, 6))).shape == (2, 4)
    assert ResidualBlock(6, 8, 6).skip is None
    squashed, plain = (MLPActionHead(4, 2, 8, tanh_output=flag)(jnp.ones((2, 4))) for flag in (True, False))
    np.testing.assert_allclose(squashed, np.tanh(plain), atol=1e-6)
