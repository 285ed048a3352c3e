"""One small reach batch and its compiled functions, shared by all tests of this folder: one compile, many asserts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim import make_batched_env

NUM_ENVS = 8
MAX_STEPS = 12


class Counted:
    """A jitted function that counts its traces."""

    def __init__(self, function):
        self.traces = 0

        @functools.wraps(function)  # the name is part of the compile cache's key
        def traced(*args):
            self.traces += 1
            return function(*args)

        self._jitted = jax.jit(traced)

    def __call__(self, *args):
        return self._jitted(*args)


@pytest.fixture(scope="session")
def batched():
    return make_batched_env("reach", dt=0.01, cameras=[], max_episode_steps=MAX_STEPS)


@pytest.fixture(scope="session")
def init(batched):
    return Counted(batched.init)


@pytest.fixture(scope="session")
def step(batched):
    return Counted(batched.step)


@pytest.fixture(scope="session")
def single_reset(batched):
    return Counted(batched.functional.reset)


@pytest.fixture(scope="session")
def single_step(batched):
    return Counted(batched.functional.step)


@pytest.fixture(scope="session")
def play(init, step):
    """(seed, first id, number of steps, action seed) -> the BatchStates of that run, one after another."""

    def run(seed=0, first_id=0, num_steps=30, action_seed=0):
        ids = first_id + jnp.arange(NUM_ENVS)
        state = init(jax.random.key(seed), ids)
        states = [state]
        for t in range(num_steps):
            state = step(state, actions_for(ids, t, action_seed))
            states.append(state)
        return states

    return run


def actions_for(ids, t, seed=0):
    """Random actions that depend on an environment's id, not on its place in the batch."""
    rows = [np.random.default_rng([seed, int(i), t]).uniform(-1, 1, 4) for i in ids]
    return np.array(rows, np.float32)


def tree_equal(first, second):
    """Whether two pytrees are equal bit for bit."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(_plain(a), _plain(b)) for a, b in pairs)


def _plain(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)
