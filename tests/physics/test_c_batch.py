"""MuJoCo's engine behind the functional API: purity, threads, shards, vmaps, the state that goes on, errors."""

import concurrent.futures
import copy
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.core import sharding
from simscaleai_jax.sim import make_batched_env, make_env, make_functional_env
from simscaleai_jax.sim.physics.c_batch import BatchPhysics, PhysicsError, Pools, call_host
from simscaleai_jax.sim.physics.host import num_threads
from simscaleai_jax.sim.randomization import DERIVED_FIELDS, MODEL_INPUTS, draw
from simscaleai_jax.sim.registry import asset

SETTINGS = {"dt": 0.01, "cameras": []}
NUM_ENVS = 32


def reach_scene(tmp_path, old, new):
    """The scene of reach with a piece of the arm's file replaced."""
    arm = Path(asset("panda.xml")).read_text()
    assert old in arm
    (tmp_path / "panda.xml").write_text(arm.replace(old, new))
    (tmp_path / "reach.xml").write_text(Path(asset("reach.xml")).read_text())
    return str(tmp_path / "reach.xml")


def random_actions(num_steps, num_envs, seed=1):
    return jax.random.uniform(jax.random.key(seed), (num_steps, num_envs, 4), minval=-1.0, maxval=1.0)


@pytest.fixture(scope="module")
def env():
    return make_functional_env("pick_place", **SETTINGS, domain_randomization=True, randomization="heavy")


@pytest.fixture(scope="module")
def programs(env):
    """Jitted reset and rollout: (keys), (states, actions) -> qpos [T, B, nq]."""

    def rollout(state, actions):
        return jax.lax.scan(lambda s, a: ((s := jax.vmap(env.step)(s, a)), s.physics.qpos), state, actions)[1]

    return jax.jit(jax.vmap(env.reset)), jax.jit(rollout)


@pytest.fixture(scope="module")
def trajectory(programs):
    reset, rollout = programs
    keys, actions = jax.random.split(jax.random.key(0), NUM_ENVS), random_actions(20, NUM_ENVS)
    return keys, actions, np.asarray(rollout(reset(keys), actions))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(env, programs, trajectory, threads, monkeypatch):
    reset, rollout = programs
    keys, actions, wanted = trajectory
    monkeypatch.setattr(env.physics._pools, "_threads", threads)
    monkeypatch.setattr(env.physics._pools, "_idle", [])
    assert np.array_equal(rollout(reset(keys), actions), wanted)
    assert {pool.batch.nthread for _, pool in env.physics._pools._idle} == {threads}


def test_neighbours_and_the_size_of_the_batch_change_no_bit(programs, trajectory):
    reset, rollout = programs
    keys, actions, wanted = trajectory
    others = jax.random.split(jax.random.key(9), NUM_ENVS)
    keys = jnp.concatenate([others, keys])
    actions = jnp.concatenate([random_actions(20, NUM_ENVS, seed=7), actions], axis=1)
    assert np.array_equal(rollout(reset(keys), actions)[:, NUM_ENVS:], wanted)


@pytest.mark.wide
def test_eight_devices_give_the_bits_of_one(env, programs, trajectory):
    """Eight callbacks at a time, each on a thread of its own."""
    reset, rollout = programs
    mesh = sharding.make_mesh(jax.devices()[:8])
    keys, actions = jax.random.split(jax.random.key(0), 8 * NUM_ENVS), random_actions(20, 8 * NUM_ENVS)
    by_env, by_step = sharding.BATCH, jax.sharding.PartitionSpec(None, *sharding.BATCH)

    def run(keys, actions):
        return jax.lax.scan(
            lambda s, a: ((s := jax.vmap(env.step)(s, a)), s.physics.qpos), jax.vmap(env.reset)(keys), actions
        )[1]

    split = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(by_env, by_step), out_specs=by_step, check_vma=False))
    assert np.array_equal(split(keys, actions), rollout(reset(keys), actions))


def test_results_vary_over_the_devices_that_their_arguments_vary_over():
    def double(out, values):
        out["y"][...] = 2.0 * values

    def body(x, _):
        return jax.vmap(lambda x: call_host(double, {"y": ((), np.float32)}, x)["y"])(x), None

    mesh = sharding.make_mesh(jax.devices()[:8])
    run = jax.shard_map(
        lambda x: jax.lax.scan(body, x, None, length=3)[0], mesh=mesh, in_specs=sharding.BATCH, out_specs=sharding.BATCH
    )
    assert np.array_equal(jax.jit(run)(jnp.arange(16.0)), 8.0 * np.arange(16.0))


def test_several_threads_may_call_at_once(programs, trajectory):
    reset, rollout = programs
    keys, actions, wanted = trajectory
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [pool.submit(lambda: np.asarray(rollout(reset(keys), actions))) for _ in range(12)]
        assert all(np.array_equal(result.result(timeout=120), wanted) for result in results)


def test_nested_vmaps_and_single_calls_agree_with_the_batch(env, programs):
    reset, _ = programs
    keys = jax.random.split(jax.random.key(3), 4)
    batch = reset(jnp.repeat(keys, 4)).physics  # 16 of them
    ctrl = batch.ctrl + 0.05

    def step(state, ctrl):
        return env.physics.step(state, ctrl, {})[0].qpos

    flat = jax.jit(jax.vmap(step))(batch, ctrl)
    square = jax.tree.map(lambda leaf: leaf.reshape(4, 4, *leaf.shape[1:]), (batch, ctrl))
    nested = jax.jit(jax.vmap(jax.vmap(step)))(*square)
    assert np.array_equal(nested.reshape(flat.shape), flat)
    single = jax.jit(step)(*jax.tree.map(lambda leaf: leaf[5], (batch, ctrl)))
    assert np.array_equal(single, flat[5])


def test_it_follows_the_host_over_two_hundred_random_steps():
    """The same MuJoCo, but that its state passes through float32 between control steps."""
    host = make_env("reach", **SETTINGS, max_episode_steps=300)
    env = make_functional_env("reach", **SETTINGS, max_episode_steps=300)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    key, worst = jax.random.key(4), 0.0
    host.reset(options={"key": key})
    state = reset(key)
    for action in np.random.default_rng(0).uniform(-1, 1, (200, 4)).astype(np.float32):
        host.step(action)
        state = step(state, action)
        worst = max(worst, np.abs(np.asarray(state.physics.qpos) - host.data.qpos).max())
    assert worst < 3e-4, "0.6e-4 to 1.1e-4, by how the CPU rounds the control targets"


@pytest.mark.parametrize("impl", ["c", pytest.param("jax", marks=pytest.mark.wide)])
def test_activations_of_actuators_go_on(tmp_path, impl):
    """A first-order filter before a finger's servo holds a state that a control step must not forget."""
    path = reach_scene(tmp_path, 'name="finger_joint1" joint', 'timeconst="0.1" name="finger_joint1" joint')
    host = make_env("reach", **SETTINGS, xml_path=path)
    env = make_functional_env("reach", **SETTINGS, xml_path=path, impl=impl)
    assert env.physics.host_model.na > 0
    reset, step, key = jax.jit(env.reset), jax.jit(env.step), jax.random.key(0)
    host.reset(options={"key": key})
    state = reset(key)
    for action in np.random.default_rng(1).uniform(-1, 1, (20, 4)).astype(np.float32):
        host.step(action)
        state = step(state, action)
    np.testing.assert_allclose(state.physics.act, host.data.act, atol=1e-3)
    np.testing.assert_allclose(state.physics.qpos, host.data.qpos, atol=1e-3)


@pytest.mark.parametrize("impl", ["c", "jax"])
def test_a_state_that_would_be_forgotten_is_refused(tmp_path, impl):
    path = reach_scene(tmp_path, '<position class="panda" ', '<position class="panda" delay="0.02" nsample="4" ')
    with pytest.raises(ValueError, match="does not carry all of this model's state: it has delays"):
        make_functional_env("reach", **SETTINGS, xml_path=path, impl=impl)


def test_what_derives_from_randomized_fields_is_what_mjx_is_given(env):
    model = env.physics.host_model
    keys = jax.random.split(jax.random.key(5), 64)
    drawn = {name: np.asarray(value) for name, value in jax.vmap(lambda key: draw(key, "heavy", model))(keys).items()}
    inputs = {name: drawn[name] for name in MODEL_INPUTS if name in drawn}
    with env.physics._pools.lend(64, tuple(inputs)) as pool:
        pool.randomize(inputs)
        for name in DERIVED_FIELDS:
            np.testing.assert_allclose(
                pool.batch.expanded(name).reshape(64, -1), drawn[name].reshape(64, -1), rtol=1e-5, atol=2e-6
            )


def test_only_changed_rows_are_derived_anew(env, monkeypatch):
    model = env.physics.host_model
    drawn = jax.vmap(lambda key: draw(key, "heavy", model))(jax.random.split(jax.random.key(6), 8))
    inputs = {name: np.array(drawn[name]) for name in MODEL_INPUTS if name in drawn}
    asked = []
    with Pools(model).lend(8, tuple(inputs)) as pool:
        monkeypatch.setattr(pool.batch, "set_const", lambda rows: asked.append(rows.tolist()))
        pool.randomize(inputs)
        pool.randomize(inputs)
        inputs["body_mass"][3] *= 2.0
        pool.randomize(inputs)
    assert asked == [list(range(8)), [3]]


def test_a_diverged_simulation_stays_so_and_writes_no_log(env, tmp_path, monkeypatch):
    """MuJoCo alone would put it back to the start, and the NaN guard would never see it."""
    monkeypatch.chdir(tmp_path)
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 4))
    broken = state.replace(physics=state.physics.replace(qvel=state.physics.qvel.at[2, 0].set(jnp.nan)))
    after = jax.jit(jax.vmap(env.step))(broken, jnp.zeros((4, 4)))
    assert after.info["nan"].tolist() == [False, False, True, False]
    assert after.terminated.tolist() == [False, False, True, False]
    assert np.all(np.isfinite(np.asarray(after.physics.qpos)[[0, 1, 3]]))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_mujoco_names_the_environment(env):
    def fail(batch):
        raise mujoco.batch.SimulationError(np.array([2]), "mj_step: out of memory", 4)

    with (
        env.physics._pools.lend(4, ()) as pool,
        pytest.raises(PhysicsError, match="environment 2 of a batch of 4"),
    ):
        pool.run(fail)


def test_an_error_in_a_callback_becomes_a_python_error():
    def fail(out, values):
        raise PhysicsError("MuJoCo stopped in environment 1 of a batch of 3: out of memory")

    function = jax.jit(jax.vmap(lambda x: call_host(fail, {"y": ((), np.float32)}, x)["y"]))
    with pytest.raises(Exception, match="MuJoCo stopped in environment 1 of a batch of 3"):
        jax.block_until_ready(function(jnp.arange(3.0)))


def test_callbacks_of_another_platform_give_the_same(env, programs, trajectory, monkeypatch):
    """Where XLA's buffers are not in the host's memory the callback works on copies."""
    keys, actions, wanted = trajectory
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")

    def rollout(keys, actions):
        state = jax.vmap(env.reset)(keys)
        return jax.lax.scan(lambda s, a: ((s := jax.vmap(env.step)(s, a)), s.physics.qpos), state, actions)[1]

    assert np.array_equal(jax.jit(rollout)(keys, actions), wanted)


def test_a_copy_has_simulations_of_its_own(env):
    for twin in (copy.deepcopy(env.physics), pickle.loads(pickle.dumps(env.physics._pools))):
        assert getattr(twin, "_pools", twin) is not env.physics._pools


def test_threads_are_limited_by_the_environment_and_shared_by_devices(monkeypatch):
    monkeypatch.setenv("SIMSCALE_NUM_THREADS", "32")
    monkeypatch.setattr("jax.local_device_count", lambda: 8)
    assert num_threads() == 4
    monkeypatch.setattr("jax.local_device_count", lambda: 64)
    assert num_threads() == 1
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("SIMSCALE_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match="SIMSCALE_NUM_THREADS must be a positive integer"):
            num_threads()


@pytest.mark.wide
def test_c12_a_curriculum_eases_the_same_starts_whoever_shares_the_batch():
    """Slots are drawn whenever any environment has used up its own; that moment must not decide what is drawn."""
    task = {"curriculum_share": 0.9, "curriculum_steps": 25}
    env = make_batched_env("pick_place", **SETTINGS, max_episode_steps=5, task=task)

    def run(ids):
        state = env.init(jax.random.key(0), ids)
        still = jnp.zeros((NUM_ENVS, 4))

        def step(state, _):
            state = env.step(state, still[: len(ids)])
            return state, (state.env.task_state.assisted, state.env.physics.qpos, state.episode)

        return jax.tree.map(np.asarray, jax.lax.scan(step, state, None, 30)[1])

    together = run(jnp.arange(NUM_ENVS))
    assisted, _, episode = together
    assert episode.max() >= 5
    assert 0.1 < assisted.mean() < 0.9, "some starts are eased"
    for part in np.split(np.arange(NUM_ENVS), 2):
        apart = run(jnp.asarray(part))
        assert all(np.array_equal(all_of[:, part], own) for all_of, own in zip(together, apart, strict=True))


@pytest.mark.slow
def test_many_environments_and_many_resets_do_not_hang():
    """Large arrays are where callbacks that touch JAX are known to deadlock."""
    env = make_batched_env("reach", **SETTINGS, max_episode_steps=4)
    num_envs = 16_384
    state = jax.jit(env.init)(jax.random.key(0), jnp.arange(num_envs))
    run = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: (env.step(s, jnp.zeros((num_envs, 4))), None), state, None, 10)[0]
    )
    for _ in range(5):
        state = run(state)
    assert np.all(np.isfinite(np.asarray(state.env.physics.qpos)))
    init = jax.jit(env.init)
    for seed in range(1000):
        state = init(jax.random.key(seed), jnp.arange(64))
    assert np.all(np.isfinite(np.asarray(state.obs["ee_pos"])))


def test_meshes_collide_as_in_mujoco(tmp_path):
    wedge = '<asset><mesh name="wedge" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/></asset>'
    path = reach_scene(
        tmp_path, "<worldbody>", wedge + '<worldbody><geom name="wedge" type="mesh" mesh="wedge" pos="1 1 0"/>'
    )
    env = make_functional_env("reach", **SETTINGS, xml_path=path)
    assert isinstance(env.physics, BatchPhysics)
    state = jax.jit(env.step)(jax.jit(env.reset)(jax.random.key(0)), jnp.zeros(4))
    assert np.all(np.isfinite(np.asarray(state.obs["ee_pos"])))
