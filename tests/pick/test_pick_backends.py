"""The engines against the host, randomization on each, and the same episode everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim.factory import make_env
from simscaleai_jax.sim.randomization import NOMINAL, PRESETS, draw
from simscaleai_jax.sim.tasks.snapshot import make_snapshot

from .conftest import BATCH, SETTINGS, CompiledEnv
from .episodes import host_expert, play

STEPS = 50
AFTER_LIFT = 5  # control steps after the cube has left the table that parity is asked for
# What each parameter is set to in the sweep: far from nominal, the same for every backend.
EXTREMES = {
    "friction": 0.3, "object_mass": 3.0, "object_size": 1.25, "joint_damping": 3.0, "actuator_gain": 0.75,
    "gravity": 1.15, "table_height": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def demonstrations(host):
    """BATCH expert episodes on host physics, cut or continued to STEPS steps."""
    act = host_expert(host)
    keys = [jax.random.key(seed) for seed in range(BATCH)]
    return keys, [play(host, act, STEPS, options={"key": key}) for key in keys]


def start_as_host(pick, host, keys):
    """A batch whose starts and goals are the host's, under nominal overrides."""
    nominal = pick.nominal_overrides()
    overrides = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (BATCH, *leaf.shape)), nominal)
    state = pick.reset(jnp.stack([jax.random.key(0)] * BATCH))

    def sample(key):
        return host.task.sample(jax.random.split(key)[1], {})

    start, task_state = jax.vmap(sample)(jnp.stack(keys))
    physics = jax.vmap(pick.env.physics.reset)(start)
    kinematics = jax.jit(jax.vmap(pick.env.physics.kinematics))(physics)
    snapshot = jax.vmap(lambda read: make_snapshot(pick.env.task.robot, read))(kinematics)
    return state.replace(physics=physics, task_state=task_state, snapshot=snapshot, overrides=overrides)


@pytest.fixture(scope="module", params=["c", pytest.param("jax", marks=pytest.mark.wide)])
def engine(request):
    return request.getfixturevalue({"c": "pick", "jax": "pick_mjx"}[request.param])


@pytest.fixture(scope="module")
def parity(engine, host, demonstrations):
    """Shares of grasp-and-lift steps on which an engine agrees with the host: same start, same actions."""
    pick = engine
    keys, episodes = demonstrations
    state = start_as_host(pick, host, keys)
    gaps, same_grasp, same_lift = [], [], []
    for t in range(STEPS):
        state = pick.step(state, jnp.stack([actions[t] for actions, _, _ in episodes]))
        cube = np.asarray(state.snapshot.object_pos[:, 0])
        gaps.append(np.linalg.norm(cube - np.stack([positions[t] for _, positions, _ in episodes]), axis=1))
        for flags, name in ((same_grasp, "grasped"), (same_lift, "lifted")):
            flags.append(np.asarray(state.info[name]) == np.array([infos[t][name] for _, _, infos in episodes]))
    lifted_at = np.array([[info["lifted"] for info in infos].index(True) for _, _, infos in episodes])
    in_window = np.arange(STEPS)[:, None] <= lifted_at + AFTER_LIFT  # grasp and lift, not the carrying after it
    return {
        "within 5 mm": np.mean((np.array(gaps) < 0.005)[in_window]),
        "same grasped": np.mean(np.array(same_grasp)[in_window]),
        "same lifted": np.mean(np.array(same_lift)[in_window]),
    }


@pytest.mark.wide
def test_engines_follow_the_host_through_grasp_and_lift(parity):
    assert parity["within 5 mm"] >= 0.95, parity
    assert parity["same lifted"] >= 0.95, parity


@pytest.mark.wide
def test_engines_report_the_same_grasps(parity):
    assert parity["same grasped"] >= 0.95, parity


@pytest.mark.wide
def test_each_parameter_changes_the_motion_on_each_engine(engine, host, demonstrations):
    _check_sweep(sweep(engine, host, demonstrations))


@pytest.mark.wide
@pytest.mark.warp
def test_each_parameter_changes_the_motion_under_warp(host, demonstrations):
    _check_sweep(sweep(CompiledEnv(impl="warp"), host, demonstrations))


def sweep(pick, host, demonstrations):
    """The first demonstration's actions under nominal overrides (twice) and with each parameter at its extreme."""
    keys, episodes = demonstrations
    state = start_as_host(pick, host, [keys[0]] * BATCH)
    model, rows = pick.env.physics.host_model, [pick.nominal_overrides()] * 2
    for name in NOMINAL:
        changed = draw(jax.random.key(0), {name: (EXTREMES[name], EXTREMES[name])}, model)
        assert changed, name
        rows.append(pick.nominal_overrides() | changed)
    rows += [rows[0]] * (BATCH - len(rows))
    overrides = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    raise_table = overrides["table_height"]
    physics = state.physics.replace(
        qpos=state.physics.qpos.at[:, 11].add(raise_table),
        mocap_pos=state.physics.mocap_pos.at[:, host.task.robot.table_mocap, 2].add(raise_table),
    )
    state = state.replace(overrides=overrides, physics=physics)
    paths = []
    for t in range(STEPS):
        state = pick.step(state, jnp.stack([episodes[0][0][t]] * BATCH))
        paths.append(np.concatenate([state.physics.qpos, state.physics.qvel], axis=1))
    return np.array(paths)


def _check_sweep(paths):
    assert np.all(np.isfinite(paths))
    assert np.allclose(paths[:, 0], paths[:, 1], atol=1e-5)  # what nothing changes stays
    for row, name in enumerate(NOMINAL, start=2):
        assert np.abs(paths[:, row] - paths[:, 0]).max() > 1e-3, name


@pytest.mark.wide
def test_each_parameter_changes_the_motion_on_the_host(demonstrations):
    actions = demonstrations[1][0][0]
    paths = {}
    for name in ("none", "again", *NOMINAL):
        values = {name: (EXTREMES[name], EXTREMES[name])} if name in NOMINAL else {}
        env = make_env("pick_place", cameras=[], dt=0.01, domain_randomization=True, randomization=values)
        env.reset(options={"key": jax.random.key(0)})
        states = []
        for action in actions:
            env.step(action)
            states.append(np.concatenate([env.data.qpos, env.data.qvel]))
        paths[name] = np.array(states)
    assert np.array_equal(paths["none"], paths["again"])
    for name in NOMINAL:
        assert np.abs(paths[name] - paths["none"]).max() > 1e-3, name


@pytest.mark.slow
def test_a_thousand_resets_stay_in_range_and_do_not_drift():
    env = make_env("pick_place", dt=0.01, cameras=[], domain_randomization=True, randomization="heavy")
    nominal, heavy = env._host_task.nominal, PRESETS["heavy"]
    cube, geom = nominal.body("object").id, nominal.geom("object").id
    seen = {name: [] for name in NOMINAL}
    for seed in range(1000):
        env.reset(seed=seed)
        model = env.model
        seen["friction"].append(model.pair_friction[0, 0] / nominal.pair_friction[0, 0])
        seen["object_mass"].append(model.body_mass[cube] / nominal.body_mass[cube])
        seen["object_size"].append(model.geom_size[geom, 0] / nominal.geom_size[geom, 0])
        seen["joint_damping"].append(model.dof_damping[0] / nominal.dof_damping[0])
        seen["actuator_gain"].append(model.actuator_gainprm[0, 0] / nominal.actuator_gainprm[0, 0])
        seen["gravity"].append(model.opt.gravity[2] / nominal.opt.gravity[2])
        seen["table_height"].append(env.data.mocap_pos[env.task.robot.table_mocap, 2] + env.task.robot.table_top)
        assert env.data.qpos[11] == pytest.approx(seen["table_height"][-1] + model.geom_size[geom, 2], abs=1e-6)
    for name, values in seen.items():
        low, high = getattr(heavy, name)
        margin = 1e-5 * max(1.0, abs(high))
        assert low - margin <= min(values), name
        assert max(values) <= high + margin, name
        assert np.ptp(values) > 0.97 * (high - low), name
        assert abs(np.mean(values) - (low + high) / 2) < 0.05 * (high - low), name  # 5 standard errors: no drift
    assert nominal.body_mass[cube] == pytest.approx(0.05)


def test_the_same_key_gives_the_same_episode_on_the_host_and_in_a_batch(pick):
    env = make_env("pick_place", **SETTINGS)
    keys = jax.random.split(jax.random.key(11), BATCH)
    state = pick.reset(keys)
    for index in range(3):
        obs, _ = env.reset(options={"key": keys[index]})
        for name, value in obs.items():
            np.testing.assert_allclose(value, state.obs[name][index], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(env.model.body_mass, state.overrides["body_mass"][index], rtol=1e-6)
        np.testing.assert_allclose(env.model.opt.gravity, state.overrides["gravity"][index], rtol=1e-6)


def test_same_keys_same_trajectories_and_any_batch(pick):
    """Same batch: bit for bit. Another place in the batch: float32 rounding over 30 steps."""
    keys = jax.random.split(jax.random.key(5), BATCH)
    order = np.roll(np.arange(BATCH), 5)
    actions = jax.random.uniform(jax.random.key(6), (30, BATCH, 4), minval=-1.0, maxval=1.0)

    def run(keys, actions):
        state = pick.reset(keys)
        for action in actions:
            state = pick.step(state, action)
        return np.asarray(state.physics.qpos)

    first, again = run(keys, actions), run(keys, actions)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(run(keys[order], actions[:, order]), first[order], atol=1e-4)
    assert pick.step._cache_size() == 1  # one trace for everything in this folder


@pytest.mark.wide
def test_look_is_randomized_in_batch_and_on_the_host(pick):
    from simscaleai_jax.sim.cameras import make_camera_fn
    from simscaleai_jax.sim.config import CameraConfig

    model = pick.env.physics.host_model
    camera = CameraConfig(name="front_cam", width=32, height=32)
    look = jax.jit(make_camera_fn(model, [camera]))
    data = pick.env.physics.kinematics(
        jax.tree.map(lambda leaf: leaf[0], pick.reset(jax.random.split(jax.random.key(0), BATCH)).physics)
    )
    plain = np.asarray(look(data, {})["image"], int)
    env = make_env("pick_place", dt=0.01, cameras=[camera])
    pictures = {}
    for name in ("colour", "light_direction", "light_intensity", "camera_position", "camera_rotation"):
        overrides = draw(jax.random.key(1), {name: getattr(PRESETS["heavy"], name)}, model)
        assert np.abs(np.asarray(look(data, overrides)["image"], int) - plain).max() > 3, name
        for deviation in (0.0, getattr(PRESETS["heavy"], name)):
            env.config.domain_randomization, env.config.randomization = True, {name: deviation}
            env._host = None  # built anew with these settings
            pictures[deviation > 0.0] = env.reset(options={"key": jax.random.key(2)})[0]["image"].astype(int)
        assert np.abs(pictures[True] - pictures[False]).max() > 3, name
