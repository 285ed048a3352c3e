"""Success, rewards and starts of push, with plain arrays and no simulator."""

import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim.tasks.push import FINGERTIP, PushConfig

from .scenes import HALF, assert_inside, fresh_state, play, scene, starts, task

GOAL = (0.6, 0.1, HALF)


def pushed(x, ee_x=None, vel=(0.0, 0.0, 0.0)):
    """The cube on the line to the goal, the closed fingers right behind it."""
    behind = x - HALF - FINGERTIP if ee_x is None else ee_x
    return scene(task("push"), (x, 0.1, HALF), ee_pos=(behind, 0.1, HALF), vel=vel, gripper=0.0)


@pytest.mark.parametrize(
    ("x", "speed", "success"), [(0.575, 0.05, True), (0.575, 0.15, False), (0.565, 0.05, False), (0.625, 0.0, True)]
)
def test_success_needs_nearness_and_rest(x, speed, success):
    of = task("push")
    totals, info, terminated = play(of, fresh_state(of, GOAL), [pushed(0.45), pushed(x, vel=(speed, 0.0, 0.0))])
    assert info["success"] is terminated is success
    assert totals["success"] == (of.config.success_bonus if success else 0.0)
    assert info["distance"] == pytest.approx(abs(x - 0.6), abs=1e-6)


def test_pushing_earns_and_pushing_back_costs_it():
    of = task("push")
    way = [pushed(x) for x in np.linspace(0.42, 0.58, 9)]
    there, _, _ = play(of, fresh_state(of, GOAL), way)
    assert there["push"] > 0.3 * of.config.push_weight
    assert there["reach"] == pytest.approx(0.0, abs=1e-4), "the fingers stayed where they push from"
    back, _, _ = play(of, fresh_state(of, GOAL), way + way[::-1])
    assert back["push"] == pytest.approx(0.0, abs=1e-5)


def test_the_far_side_of_the_cube_is_where_it_pays_to_be():
    of = task("push")
    far = [pushed(0.45, ee_x=0.2), pushed(0.45)]
    near = [pushed(0.45, ee_x=0.2), pushed(0.45, ee_x=0.45 + HALF + FINGERTIP)]
    assert play(of, fresh_state(of, GOAL), far)[0]["reach"] > 1.5 * play(of, fresh_state(of, GOAL), near)[0]["reach"]


def test_leaving_the_workspace_fails():
    of = task("push")
    totals, info, terminated = play(of, fresh_state(of, GOAL), [pushed(0.45), pushed(0.86)])
    assert info["failed"]
    assert terminated
    assert not info["success"]
    assert totals["failure"] == -of.config.failure_penalty


def test_the_gripper_stays_closed_whatever_the_action_says():
    of = task("push")
    for opening in (-1.0, 1.0):
        ctrl = of.control(pushed(0.45), fresh_state(of, GOAL), jnp.array([0.3, 0.0, 0.0, opening]))
        np.testing.assert_array_equal(ctrl[of.robot.gripper_actuators], of.robot.gripper_range[:, 0])


def test_starts_are_apart_with_the_gripper_closed():
    of = task("push")
    start, state = starts(of)
    cubes, config = start.qpos[:, 9:12], of.config
    assert np.all(np.linalg.norm(cubes - state.target_pos, axis=1) >= config.min_distance)
    for points in (cubes[:, :2], state.target_pos[:, :2]):
        assert np.all((points >= np.array(config.area_low) - 1e-6) & (points <= np.array(config.area_high) + 1e-6))
    np.testing.assert_allclose(start.qpos[:, 7:9], 0.0)
    np.testing.assert_allclose(start.ctrl[:, 7:9], 0.0)
    np.testing.assert_array_equal(start.mocap_pos[:, of.robot.target_mocap], state.target_pos)


@pytest.mark.parametrize("relative", [False, True])
def test_observations_are_inside_their_bounds(relative):
    of = task("push", relative_observations=relative)
    for place in (GOAL, (9.0, 0.0, -9.0)):
        obs = of.observe(scene(of, place), fresh_state(of, GOAL))
        assert ("object_to_target" in obs) is relative
        assert_inside(obs, of.observation_bounds())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"success_distance": 0.0}, "success_distance must be positive, got 0"),
        ({"push_weight": -1.0}, "push_weight must not be negative"),
        ({"min_distance": 0.5}, "min_distance must be less than half the diagonal"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PushConfig(**settings)


def test_an_area_out_of_reach_is_refused():
    with pytest.raises(ValueError, match=r"outside the arm's workspace.*make area_low..area_high smaller"):
        task("push", area_high=(1.2, 0.2), workspace_high=(1.5, 0.45, 0.6))
