"""Copies and pickles of environments go on alone, and bit for bit like the original."""

import copy
import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import simscaleai_jax.sim as sim
from simscaleai_jax.sim import registry
from simscaleai_jax.sim.envs.vector_env import BatchedVectorEnv
from tests.params import others_wide

from .conftest import NUM_ENVS, actions_for

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
SMALL = {"dt": 0.01, "cameras": [], "max_episode_steps": 12}


def played(env, num_steps=15, seed=3):
    """What `num_steps` random actions give, episodes that end within them included."""
    rows = []
    for action in np.random.default_rng(seed).uniform(-1, 1, (num_steps, 4)).astype(np.float32):
        obs, *rest = env.step(action)
        rows.append((obs, *rest))
        if rest[1] or rest[2]:
            rows.append(env.reset())
    return rows


def same(first, second):
    """Whether two nested results are equal bit for bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second)


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setattr(registry, "_USER_TASKS", {})
    entry = registry.find_task("reach")
    sim.register_task(
        "mine", registry.TaskEntry(lambda *given: entry.make_task(*given), entry.config_cls, entry.xml_path)
    )


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", others_wide(["plain", "randomized", "of a registered task"], "plain"))
def test_a_copied_adapter_goes_on_alone_and_identically(how, kind, mine):
    name = "mine" if kind == "of a registered task" else "reach"
    env = sim.make_env(name, **SMALL, domain_randomization=kind == "randomized", randomization="clean", seed=5)
    env.reset(seed=4)
    played(env, 5)
    other = COPIES[how](env)
    assert type(other) is type(env)
    assert type(env).__module__.startswith("simscaleai_jax.sim.envs."), "a class says where it was made"
    assert other.observation_space == env.observation_space
    before = env.data.qpos.copy()
    theirs = played(other)
    np.testing.assert_array_equal(env.data.qpos, before, "the copy moved the original")
    assert same(played(env), theirs)
    assert len(np.unique([row[0]["ee_pos"] for row in theirs], axis=0)) > 10, "observations stand still"
    again = COPIES[how](other)
    assert same(played(again), played(other)), "a copy of a copy"


@pytest.mark.parametrize("how", COPIES)
def test_an_adapter_is_copied_before_its_first_reset(how):
    env = sim.make_env("reach", **SMALL, seed=2)
    other = COPIES[how](env)
    assert same(env.reset(), other.reset())
    with pytest.raises(RuntimeError, match="call reset before step"):
        COPIES[how](sim.make_env("reach", **SMALL)).step(np.zeros(4, np.float32))


def test_a_deep_copy_compiles_nothing_anew():
    env = sim.make_env("reach", **SMALL)
    assert copy.deepcopy(env)._host_task is env._host_task


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_batch_is_the_same_program(how, batched):
    ids = jax.ShapeDtypeStruct((NUM_ENVS,), jnp.int32)
    lowered = [jax.jit(env.init).lower(jax.random.key(1), ids).as_text() for env in (batched, COPIES[how](batched))]
    assert lowered[0] == lowered[1]


@pytest.mark.wide
@pytest.mark.parametrize("how", COPIES)
def test_a_copied_vector_env_goes_on_alone_and_identically(how, batched):
    envs = BatchedVectorEnv(batched, NUM_ENVS)
    envs.reset(seed=6)
    envs.step(actions_for(range(NUM_ENVS), 0))
    other = COPIES[how](envs)

    def trajectory(envs):
        rows = [envs.step(actions_for(range(NUM_ENVS), t))[:4] for t in range(1, 4)]
        return rows, envs.reset()[0]

    theirs = trajectory(other)
    assert same(trajectory(envs), theirs)
    assert copy.deepcopy(envs)._step is envs._step


@pytest.mark.wide
def test_a_functional_env_with_cameras_is_pickled():
    env = sim.make_functional_env("reach", dt=0.01, cameras=[{"name": "front_cam", "width": 4, "height": 3}])
    for copied in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        spec = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), copied.observation_spec)
        assert spec == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), env.observation_spec)
        bodies = env.physics.host_model.nbody
        data = types.SimpleNamespace(xpos=jnp.ones((bodies, 3)), xmat=jnp.tile(jnp.eye(3), (bodies, 1, 1)))
        assert same(dict(copied._camera_fn(data, {})), dict(env._camera_fn(data, {})))
