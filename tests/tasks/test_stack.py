"""Success, rewards and starts of stack, with plain arrays and no simulator."""

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.tasks.stack.config import StackConfig

from .scenes import FREE, HALF, PRESSED, assert_inside, fresh_state, play, scene, starts, task

BASE = (0.5, 0.1, HALF)
ON_BASE = (0.5, 0.1, 3 * HALF)
ON_TABLE = (0.5, -0.1, HALF)


def cubes(place, touch=FREE, gripper=0.04, base=BASE, vel=(0.0, 0.0, 0.0), ee_pos=None):
    """The cube at `place`, the tool there too."""
    return scene(task("stack"), place, base, ee_pos=ee_pos or place, touch=touch, gripper=gripper, vel=vel)


def held(place):
    return cubes(place, PRESSED, HALF)


SOLUTION = [
    cubes(ON_TABLE, ee_pos=(0.5, -0.1, 0.3)),
    held(ON_TABLE),
    held((0.5, -0.1, 0.12)),
    held((0.5, 0.1, 0.12)),
    held(ON_BASE),
    cubes(ON_BASE, gripper=0.03),
]


def test_a_cube_that_stands_free_is_success():
    of = task("stack")
    totals, info, terminated = play(of, fresh_state(of, ON_BASE), SOLUTION)
    assert info["success"]
    assert terminated
    assert totals["success"] == of.config.success_bonus
    for name in ("grasp", "lift", "place"):
        assert totals[name] == pytest.approx(getattr(of.config, f"{name}_weight"), rel=0.1), name
    assert totals["release"] == pytest.approx(0.5 * of.config.release_weight, rel=0.01)


@pytest.mark.parametrize(
    ("last", "stands"),
    [
        (held(ON_BASE), True),
        (cubes(ON_BASE, touch=(3.0, 0.0)), True),
        (cubes(ON_BASE, vel=(0.0, 0.0, 0.2)), True),
        (cubes((0.5, 0.117, 3 * HALF)), False),
        (cubes((0.5, 0.1, 3 * HALF + 0.008)), False),
        (cubes(ON_BASE, base=(0.5, 0.12, HALF)), False),
    ],
)
def test_held_touched_moving_or_askew_is_no_success(last, stands):
    of = task("stack")
    _, info, terminated = play(of, fresh_state(of, ON_BASE), [*SOLUTION[:-1], last])
    assert info["stands"] is stands
    assert not info["success"]
    assert not terminated


def test_a_cube_that_was_never_lifted_does_not_count():
    of = task("stack")
    state = fresh_state(of, ON_BASE)
    assert not bool(of.has_arrived(cubes(ON_BASE), state))
    assert bool(of.has_arrived(cubes(ON_BASE), state.replace(lifted=jnp.bool_(True))))


def test_letting_go_beside_the_base_costs_what_was_earned():
    of = task("stack")
    dropped = cubes((0.5, 0.02, HALF), ee_pos=(0.5, 0.02, 0.12))
    totals, _, _ = play(of, fresh_state(of, ON_BASE), [*SOLUTION[:4], dropped])
    assert totals["place"] == pytest.approx(0.0, abs=1e-5)
    assert totals["release"] == 0.0
    assert totals["lift"] == pytest.approx(0.0, abs=1e-5)


def test_the_goal_follows_the_base():
    of = task("stack")
    state = of.update(cubes(ON_TABLE, base=(0.45, 0.05, HALF)), fresh_state(of, ON_BASE), jnp.zeros(4))
    np.testing.assert_allclose(state.target_pos, (0.45, 0.05, 3 * HALF), atol=1e-6)
    obs = of.observe(cubes(ON_TABLE, base=(0.45, 0.05, HALF)), state)
    np.testing.assert_allclose(obs["base_pos"], (0.45, 0.05, HALF), atol=1e-6)
    assert_inside(obs, of.observation_bounds())


def test_a_base_that_is_knocked_away_fails():
    of = task("stack")
    totals, info, terminated = play(
        of, fresh_state(of, ON_BASE), [*SOLUTION[:2], cubes(ON_TABLE, base=(0.9, 0.1, HALF))]
    )
    assert info["failed"]
    assert terminated
    assert totals["failure"] == -of.config.failure_penalty


def test_plain_starts_are_apart():
    of = task("stack")
    start, state = starts(of)
    first, base = start.qpos[:, 9:12], start.qpos[:, 16:19]
    assert np.all(np.linalg.norm(first - base, axis=1) >= of.config.min_distance)
    np.testing.assert_allclose(state.target_pos, base + np.array([0.0, 0.0, 2 * HALF]), atol=1e-6)
    assert np.ptp(2 * np.arctan2(start.qpos[:, 22], start.qpos[:, 19])) > 1.5 * of.config.object_yaw


def test_eased_starts_hold_the_cube_over_the_base_and_nothing_is_inside_anything():
    of = task("stack", curriculum_share=1.0, curriculum_held=0.5, curriculum_around=0.3, curriculum_over=0.6)
    start, state = starts(of, {"curriculum": jnp.float32(1.0)}, 400)
    sideways = np.linalg.norm(start.qpos[:, 9:11] - start.qpos[:, 16:18], axis=1)
    is_over = sideways < 0.01
    assert np.all(state.lifted[is_over])
    assert is_over.sum() / state.lifted.sum() == pytest.approx(0.6, abs=0.1)
    assert np.all(sideways[~is_over] >= of.config.min_distance - 1e-3)
    model = of.robot.model
    data, cube = mujoco.MjData(model), model.geom("object").id
    for row, is_held in zip(start.qpos, state.lifted, strict=True):
        data.qpos[:] = row
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        wrong = [contact.dist for contact in data.contact if not is_held or cube not in contact.geom]
        assert min(wrong, default=0.0) > -1e-4


def test_bad_settings():
    with pytest.raises(ValueError, match=r"curriculum_over must lie in \[0, 1\], got 1.5"):
        StackConfig(curriculum_over=1.5)
    with pytest.raises(ValueError, match="sideways_tolerance must be positive"):
        StackConfig(sideways_tolerance=0.0)
