"""The sim-to-sim transfer report: many physics in one batch, the table and the heat map."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.rl import play
from simscaleai_jax.rl.evaluator import EvalConfig, play_episodes
from simscaleai_jax.rl.transfer import Condition, evaluate_conditions, make_conditions, sweepable
from simscaleai_jax.rl.transfer.report import heat_map, write_report
from simscaleai_jax.sim import make_functional_env
from simscaleai_jax.sim.randomization import PRESETS, DomainRandomizationConfig, draw, draw_between

EPISODES, STEPS = 2, 3


@pytest.fixture(scope="module")
def env():
    return make_functional_env("reach", dt=0.01, cameras=[])


@pytest.fixture(scope="module")
def report(env):
    """Clean twice, a preset, and actuators too weak to follow, with a policy that always pulls one way."""
    weak = Condition("weak", DomainRandomizationConfig(actuator_gain=(0.002, 0.002)), "actuator_gain", -1.0, 0.002)
    conditions = [Condition("clean", PRESETS["clean"]), Condition("again", PRESETS["clean"]),
                  Condition("heavy", PRESETS["heavy"]), weak]  # fmt: skip
    policy = lambda obs, key: jnp.array([1.0, 0.0, 0.0, 0.0])  # noqa: E731
    return evaluate_conditions(env, policy, conditions, EPISODES, STEPS, seed=1)


def test_conditions_share_their_episodes_and_differ_by_their_physics(report):
    clean, again, heavy, weak = (row["mean_reward"] for row in report)
    assert clean == pytest.approx(again, rel=1e-5)
    assert abs(weak - clean) > 1e-3
    assert abs(heavy - clean) > 1e-6
    for row in report:
        assert row["episodes"] == EPISODES
        assert row["mean_length"] == STEPS
        assert row["nan_episodes"] == 0
        assert row["success_low"] <= row["success_rate"] <= row["success_high"]


@pytest.mark.wide
def test_episodes_are_the_same_however_many_are_played_at_once(env, monkeypatch):
    def policy(obs, key):
        return jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)

    def rows():
        conditions = [Condition("clean", PRESETS["clean"]), Condition("heavy", PRESETS["heavy"])]
        played = play_episodes(env, policy, EvalConfig(n_episodes=5, max_steps=STEPS, seed=3), num_filmed=2)
        assert all(len(leaf[0]) == 2 for leaf in jax.tree.leaves(played.physics))
        returns = np.asarray(played.returns)
        return returns, [row["mean_reward"] for row in evaluate_conditions(env, policy, conditions, 4, STEPS, seed=1)]

    whole = rows()
    monkeypatch.setattr(play, "EPISODES_AT_ONCE", 3)
    parts = rows()
    assert len(set(whole[0].tolist())) == 5
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-6)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-6)


def test_ranges_of_each_environment_draw_what_the_presets_draw(env):
    model, key, heavy = env.physics.host_model, jax.random.key(3), PRESETS["heavy"]
    ranges = {name: getattr(heavy, name) for name in ("actuator_gain", "joint_damping", "gravity", "friction")}
    batched = jax.jit(lambda key, ranges: draw_between(key, ranges, {}, model))(key, ranges)
    whole = draw(key, heavy, model)
    for name, value in batched.items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6, err_msg=name)
    assert "actuator_gainprm" in batched


def test_sweeps_leave_out_what_does_not_reach_the_scene(env):
    known = sweepable(env)
    assert {"actuator_gain", "joint_damping", "table_height"} <= set(known)
    assert not {"object_mass", "object_size", "friction", "colour"} & set(known)
    pick = sweepable(make_functional_env("pick_place", dt=0.01, cameras=["front_cam"]))
    assert {"object_mass", "object_size", "friction", "colour", "camera_position"} <= set(pick)
    conditions = make_conditions(env, ("joint_damping",), levels=2)
    assert [c.name for c in conditions[:4]] == list(PRESETS)
    assert [(c.level, c.value) for c in conditions[4:]] == [(-1.0, 0.3), (-0.5, 0.65), (0.5, 2.0), (1.0, 3.0)]
    assert conditions[4].config.joint_damping == (0.3, 0.3)


@pytest.mark.parametrize(
    ("parameters", "levels", "message"),
    [
        (("joint_dampin",), 2, "Did you mean 'joint_damping'"),
        (("object_mass",), 2, "Unknown parameter of reach 'object_mass'"),
        ((), 0, "levels must be at least 1"),
    ],
)
def test_bad_sweeps(env, parameters, levels, message):
    with pytest.raises(ValueError, match=message):
        make_conditions(env, parameters, levels)


def test_bad_evaluations(env):
    clean = [Condition("clean", PRESETS["clean"])]
    for settings in ({"n_episodes": 0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match="at least one episode"):
            evaluate_conditions(env, lambda obs, key: jnp.zeros(4), clean, **settings)
    with pytest.raises(ValueError, match="0 conditions"):
        evaluate_conditions(env, lambda obs, key: jnp.zeros(4), [])
    wide = [Condition("wide", DomainRandomizationConfig(object_size=(2.0, 2.0)))]
    with pytest.raises(ValueError, match="cannot fit the gripper"):
        evaluate_conditions(make_functional_env("pick_place", cameras=[], dt=0.01), lambda obs, key: obs, wide)


def test_the_report_on_disk(report, tmp_path):
    paths = write_report(report, tmp_path / "report", {"title": "pulling", "env_name": "reach"})
    assert [path.name for path in paths] == ["transfer.json", "transfer.csv", "transfer.png"]
    written = json.loads(paths[0].read_text())
    assert written["env_name"] == "reach"
    assert [row["condition"] for row in written["conditions"]] == ["clean", "again", "heavy", "weak"]
    with paths[1].open() as file:
        assert [float(row["mean_reward"]) for row in csv.DictReader(file)] == [row["mean_reward"] for row in report]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one condition"):
        write_report([], tmp_path, {})


def test_the_heat_map_puts_each_rate_in_its_cell():
    rows = [{"condition": "clean", "parameter": "", "level": 0.0, "value": 0.0, "success_rate": 0.9}]
    rows += [
        {"condition": f"{name}={level}", "parameter": name, "level": level, "value": value, "success_rate": rate}
        for name, level, value, rate in (
            ("friction", -1.0, 0.5, 0.2), ("friction", 1.0, 1.5, 0.8), ("colour", 1.0, 0.4, 0.7),
        )
    ]  # fmt: skip
    parameters, levels, rates, values = heat_map(rows)
    assert (parameters, levels) == (["friction", "colour"], [-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(rates, [[0.2, 0.9, 0.8], [np.nan, 0.9, 0.7]])
    np.testing.assert_array_equal(values, [[0.5, np.nan, 1.5], [np.nan, np.nan, 0.4]])


def test_wilson_interval():
    low, high = wilson(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 20)[1] == pytest.approx(1.0)
    assert wilson(1.0, 20)[0] == pytest.approx(0.8389, abs=1e-4)
