"""Success, rewards and starts of lift, with plain arrays and no simulator."""

import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim.tasks.lift import BEYOND, LiftConfig

from .scenes import FREE, HALF, PRESSED, fresh_state, play, scene, starts, task

ON_TABLE = (0.5, 0.0, HALF)


def at(height, touch=PRESSED):
    """The cube at that clearance above the table, between the fingers."""
    place = (0.5, 0.0, HALF + height)
    return scene(task("lift"), place, ee_pos=place, touch=touch, gripper=HALF)


@pytest.mark.parametrize(
    ("height", "touch", "success"),
    [(0.101, PRESSED, True), (0.099, PRESSED, False), (0.15, FREE, False), (0.15, (3.0, 0.0), False)],
)
def test_success_is_a_cube_held_high(height, touch, success):
    of = task("lift")
    state = fresh_state(of, (0.5, 0.0, 0.14))
    totals, info, terminated = play(of, state, [at(0.0), at(height, touch)])
    assert info["success"] is terminated is success
    assert totals["success"] == (of.config.success_bonus if success else 0.0)
    assert info["height"] == pytest.approx(height, abs=1e-6)


def test_every_stage_earns_its_weight_and_letting_go_costs_it():
    of = task("lift")
    state = fresh_state(of, (0.5, 0.0, 0.14))
    path = [scene(of, ON_TABLE, ee_pos=(0.5, 0.0, 0.3)), *(at(height) for height in (0.0, 0.02, 0.06, 0.1))]
    totals, _, _ = play(of, state, path)
    config = of.config
    for name in ("grasp", "lift", "raise"):
        assert totals[name] == pytest.approx(getattr(config, f"{name}_weight"), rel=0.1), name
    dropped, _, _ = play(of, state, [*path[:-1], scene(of, ON_TABLE, ee_pos=(0.5, 0.0, 0.3))])
    assert all(abs(dropped[name]) < 1e-5 for name in ("reach", "grasp", "lift", "raise"))


def test_the_goal_hangs_straight_above_the_cube():
    start, state = starts(task("lift"))
    cubes = start.qpos[:, 9:12]
    np.testing.assert_array_equal(state.target_pos[:, :2], cubes[:, :2])
    np.testing.assert_allclose(state.target_pos[:, 2], HALF + task("lift").config.height + BEYOND, atol=1e-6)


def test_a_start_in_a_grasp_has_its_height_behind_it():
    of = task("lift", curriculum_share=1.0, curriculum_held=1.0, curriculum_around=0.0)
    start, state = starts(of, {"curriculum": jnp.float32(1.0)}, 50)
    height = start.qpos[:, 11] - HALF
    np.testing.assert_allclose(state.potential["raise"], np.clip(height / of.config.height, 0.0, 1.0), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0.005}, "height must be above lift_height=0.01, got 0.005"),
        ({"raise_weight": -1.0}, "raise_weight must not be negative"),
        ({"area_low": (0.7, -0.2)}, "area_low must lie below area_high"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LiftConfig(**settings)
