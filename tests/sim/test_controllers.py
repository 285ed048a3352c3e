"""Four ways to read an action, each with its own length, in which every expert can speak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim import SimConfig, make_env, make_functional_env
from simscaleai_jax.sim.control import CONTROLLERS, JOINT_STEP, from_cartesian
from simscaleai_jax.sim.registry import find_expert
from tests.params import others_wide

SIZES = {"cartesian": 4, "cartesian_position": 4, "joint_position": 8, "joint_delta": 8}


@pytest.mark.parametrize("name", others_wide(sorted(CONTROLLERS), "cartesian"))
def test_the_expert_of_reach_succeeds_with_every_controller(name):
    env = make_env("reach", cameras=[], controller=name)
    assert env.action_space.shape == (SIZES[name],)
    expert = find_expert("reach", env.task)
    act = jax.jit(expert.act)
    for seed in range(5):
        env.reset(seed=seed)
        is_over, info = False, {}
        while not is_over:
            action, _ = act(env.snapshot, env.task_state, expert.first_phase)
            assert np.all(np.abs(action) <= 1.0 + 1e-6)
            *_, terminated, truncated, info = env.step(action)
            is_over = terminated or truncated
        assert info["success"]


def test_functional_environments_have_the_controllers_actions():
    env = make_functional_env("reach", cameras=[], controller="joint_delta", impl="c")
    state = jax.eval_shape(env.step, jax.eval_shape(env.reset, jax.random.key(0)), jnp.zeros(env.action_size))
    assert env.action_size == 8
    assert state.obs["joint_pos"].shape == (7,)


def test_what_joint_actions_mean():
    env = make_env("pick_place", cameras=[])
    env.reset(seed=0)
    robot, scene = env.task.robot, env.snapshot
    low, high = robot.joint_range.T
    arm, hand = robot.arm_actuators, robot.gripper_actuators
    middle = CONTROLLERS["joint_position"].control(robot, scene, jnp.zeros(8))
    near = np.clip((low + high) / 2, scene.joint_pos - 0.3, scene.joint_pos + 0.3)  # MAX_LEAD
    np.testing.assert_allclose(middle[arm], near, atol=1e-6)
    np.testing.assert_allclose(middle[hand], robot.gripper_range.mean(axis=1), atol=1e-6)
    action = jnp.zeros(8).at[2].set(0.5).at[7].set(-1.0)
    moved = CONTROLLERS["joint_delta"].control(robot, scene, action)
    expected = np.array(scene.ctrl)[arm]
    expected[2] += 0.5 * JOINT_STEP
    np.testing.assert_allclose(moved[arm], expected, atol=1e-6)
    np.testing.assert_allclose(moved[hand], robot.gripper_range[:, 0], atol=1e-6)


def test_a_cartesian_action_in_other_words_goes_to_the_same_joints():
    for name in ("joint_position", "joint_delta"):
        env = make_env("pick_place", cameras=[], controller=name)
        env.reset(seed=1)
        robot, scene = env.task.robot, env.snapshot
        small = jnp.array([0.2, -0.1, 0.15, -1.0])
        wanted = CONTROLLERS["cartesian"].control(robot, scene, small)
        said = CONTROLLERS[name].control(robot, scene, from_cartesian(robot, scene, small))
        np.testing.assert_allclose(said, wanted, atol=1e-5)


def test_position_alone_lets_the_orientation_go():
    env = make_env("reach", cameras=[])
    env.reset(seed=0)
    robot, scene, sideways = env.task.robot, env.snapshot, jnp.array([0.0, 1.0, 0.0, 0.0])
    turned = scene.replace(ee_mat=scene.ee_mat @ jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    held = [CONTROLLERS["cartesian"].control(robot, view, sideways) for view in (scene, turned)]
    free = [CONTROLLERS["cartesian_position"].control(robot, view, sideways) for view in (scene, turned)]
    assert np.max(np.abs(held[0] - held[1])) > 0.05
    np.testing.assert_array_equal(free[0], free[1])


def test_an_unknown_controller_is_refused():
    with pytest.raises(ValueError, match="controller must be one of cartesian, cartesian_position, joint_pos"):
        SimConfig(controller="joints")
