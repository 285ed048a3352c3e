"""Draws are uniform, and the same to the last bit in every program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim import exact_random
from simscaleai_jax.sim.factory import make_functional_env

# The compiler contracts products with sums only where it optimizes, which this suite's own settings forbid.
OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
PARAMETERS = {"object_size": (0.9, 1.1), "object_mass": (0.5, 2.0), "table_height": (-0.02, 0.02)}
KEYS = jax.random.split(jax.random.key(5), 256)


def test_values_are_uniform_between_their_bounds():
    low, high = jnp.array([-0.3, 0.1, 2.0]), jnp.array([0.3, 0.1, 2.5])
    values = np.asarray(exact_random.uniform(jax.random.key(0), (20_000, 3), low, high), np.float64)
    assert np.all((values >= low) & (values <= high))
    for column in (0, 2):
        counts = np.histogram(values[:, column], 10, (float(low[column]), float(high[column])))[0]
        assert np.abs(counts - 2000).max() < 6 * np.sqrt(2000 * 0.9)
    assert abs(np.corrcoef(values[:, 0], values[:, 2])[0, 1]) < 0.03


def test_shares_of_zero_and_one_are_never_and_always():
    values = np.asarray(exact_random.uniform(jax.random.key(1), (20_000,)))
    assert values.min() >= 0.0
    assert values.max() < 1.0


def test_bounds_may_be_traced():
    value = jax.jit(lambda low: exact_random.uniform(jax.random.key(2), (), low, low + 1.0))(5.0)
    assert 5.0 <= value < 6.0


def test_bounds_that_cannot_be_counted_are_refused():
    with pytest.raises(ValueError, match="below 128"):
        exact_random.uniform(jax.random.key(0), (), 0.0, 200.0)


def test_first_far_takes_the_first_that_is_far_enough_and_else_the_farthest():
    points = jnp.array([[0.05, 0.0], [0.0, 0.0999], [0.0, 0.101], [0.3, 0.0]])
    centre = jnp.zeros(2)
    assert exact_random.first_far(points, centre, 0.1) == 2
    assert exact_random.first_far(points, centre, 0.2) == 3
    assert exact_random.first_far(points, centre, 0.5) == 3
    assert exact_random.first_far(points, jnp.array([40.0, 40.0]), 0.1) == 0
    assert exact_random.first_far(points, jnp.array([1.0, 1.0]), 0.1) == 0


def test_first_far_keeps_its_distance_from_several_centres():
    points = jax.random.uniform(jax.random.key(1), (200, 2))
    centres = jnp.array([[0.2, 0.2], [0.7, 0.4], [0.4, 0.9]])
    nearest = np.linalg.norm(np.asarray(points)[:, None] - centres, axis=-1).min(axis=1)
    assert exact_random.first_far(points, centres, 0.35) == np.flatnonzero(nearest > 0.35)[0] > 0
    assert exact_random.first_far(points, centres, 2.0) == nearest.argmax()


RANDOM = {"domain_randomization": True, "randomization": PARAMETERS}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("reach", {}),
        pytest.param("pick_place", RANDOM | {"task": {"curriculum_share": 0.7}}, marks=pytest.mark.wide),
        pytest.param("lift", RANDOM | {"task": {"curriculum_share": 0.7}}, marks=pytest.mark.wide),
        pytest.param("push", RANDOM, marks=pytest.mark.wide),
        pytest.param("stack", RANDOM | {"task": {"curriculum_share": 0.7}}, marks=pytest.mark.wide),
    ],
)
def test_c27_starts_goals_and_models_are_drawn_to_the_same_bit_in_every_program(name, settings):
    env = make_functional_env(name, **settings)

    def sample(key):
        key_model, key_task = jax.random.split(key)
        overrides = env._draw_overrides(key_model)
        if "task" in settings:
            overrides["curriculum"] = jnp.float32(0.7)
        start, task_state = env.task.sample(key_task, overrides)
        return start, task_state.target_pos, overrides

    def run(function, num_envs):
        compiled = jax.jit(function).lower(KEYS[:num_envs]).compile(compiler_options=OPTIMIZED)
        return jax.tree.map(np.asarray, compiled(KEYS[:num_envs]))

    whole = run(jax.vmap(sample), len(KEYS))
    others = {
        "7 environments": run(jax.vmap(sample), 7),
        "operation by operation": jax.vmap(sample)(KEYS[:64]),
    }
    for what, other in others.items():
        for (path, one), value in zip(jax.tree_util.tree_leaves_with_path(other), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(one, value[: len(one)], err_msg=f"{what}: {jax.tree_util.keystr(path)}")


def test_wide_ranges_are_drawn_from_as_well():
    """Their multiples of UNIT are more than int32 counts."""
    values = np.asarray(exact_random.uniform(jax.random.key(0), (1000,), -100.0, 100.0))
    assert -100.0 <= values.min() < -95.0
    assert 95.0 < values.max() <= 100.0
    assert abs(values.mean()) < 10.0
