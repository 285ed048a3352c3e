"""Reach: reward composition, no pay for hovering, and targets that the arm can reach."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.control import ik_step
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.rewards import ActionPenalty, CompositeReward, DistanceReward, SuccessBonus
from simscaleai_jax.sim.robot import find_robot, load_model
from simscaleai_jax.sim.tasks.reach import ReachConfig, ReachState, ReachTask


@pytest.fixture(scope="module")
def task():
    return ReachTask(find_robot(load_model(asset("reach.xml"), 0.01)))


def snapshot_at(distance, state):
    """A snapshot with the end effector `distance` metres from the target; only what rewards read is filled."""

    class Snapshot:
        joint_pos = joint_vel = jnp.zeros(7)
        ee_pos = state.target_pos + jnp.array([distance, 0.0, 0.0])

    return Snapshot()


def test_reward_is_composed_of_the_documented_classes(task):
    state = ReachState(target_pos=jnp.array([0.5, 0.0, 0.3]))
    composite = CompositeReward([(DistanceReward(), 1.0), (SuccessBonus(threshold=0.05, bonus=1.0), 1.0)])
    for distance in (0.3, 0.04):
        snapshot = snapshot_at(distance, state)
        terms = task.reward_terms(snapshot, state, jnp.zeros(4), jnp.int32(10))
        expected = composite.compute(task.observe(snapshot, state), jnp.zeros(4), {})
        np.testing.assert_allclose(sum(terms.values()), expected, rtol=1e-6)


def test_reward_classes_return_floats_on_numpy():
    obs = {"ee_pos": np.zeros(3), "target_pos": np.array([0.03, 0.0, 0.04])}
    assert DistanceReward(scale=2.0).compute(obs, None, {}) == pytest.approx(-0.1)
    assert type(DistanceReward().compute(obs, None, {})) is float
    assert SuccessBonus(threshold=0.06, bonus=3.0).compute(obs, None, {}) == 3.0
    assert SuccessBonus(threshold=0.04).compute(obs, None, {}) == 0.0
    assert ActionPenalty(0.5).compute(obs, np.array([3.0, 4.0]), {}) == -2.5
    assert ActionPenalty(0.5, squared=True).compute(obs, np.array([3.0, 4.0]), {}) == -12.5
    with pytest.raises(ValueError, match=r"'goal'.*ee_pos, target_pos"):
        DistanceReward(key_b="goal").compute(obs, None, {})


def test_arriving_is_never_worth_less_than_hovering(task):
    state = ReachState(target_pos=jnp.array([0.5, 0.0, 0.3]))
    horizon = 50
    hover = sum(_reward(task, state, 0.021, left) for left in range(horizon - 1, -1, -1))
    for arrival in (0, 10, 49):
        before = sum(_reward(task, state, 0.021, horizon - 1 - t) for t in range(arrival))
        assert before + _reward(task, state, 0.019, horizon - 1 - arrival) >= hover


def _reward(task, state, distance, left):
    return float(sum(task.reward_terms(snapshot_at(distance, state), state, jnp.zeros(4), jnp.int32(left)).values()))


@pytest.mark.wide
def test_every_target_can_be_reached_with_the_tool_upright(task):
    """Damped least squares from the home pose, on MuJoCo's own kinematics, for 200 targets and the box's 8 corners."""
    model = load_model(asset("reach.xml"), 0.01)
    data = mujoco.MjData(model)
    targets = np.asarray(
        jax.vmap(lambda key: task.sample(key, {})[1].target_pos)(jax.random.split(jax.random.key(0), 200))
    )
    config, robot = task.config, task.robot
    assert np.all(np.linalg.norm(targets - robot.home_ee_pos, axis=1) > config.min_distance)
    corners = [
        [(config.target_low, config.target_high)[bit >> axis & 1][axis] for axis in range(3)] for bit in range(8)
    ]
    solve = jax.jit(ik_step)
    for target in np.concatenate([targets, corners]):
        data.qpos[:] = robot.home_qpos
        for _ in range(60):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            error = target - data.site_xpos[robot.ee_site]
            jac = np.zeros((6, model.nv))
            mujoco.mj_jacSite(model, data, jac[:3], jac[3:], robot.ee_site)
            mat = data.site_xmat[robot.ee_site].reshape(3, 3)
            step = solve(*(np.float32(x) for x in (jac[:, :7], mat, robot.home_ee_mat, np.clip(error, -0.05, 0.05))))
            data.qpos[:7] = np.clip(data.qpos[:7] + step, *robot.joint_range.T)
        assert np.linalg.norm(error) < config.termination_distance, target


def test_sampling_covers_the_box_and_stays_inside(task):
    keys = jax.random.split(jax.random.key(1), 500)
    start, state = jax.vmap(lambda key: task.sample(key, {}))(keys)
    low, high = np.array(task.config.target_low), np.array(task.config.target_high)
    targets = np.asarray(state.target_pos)
    assert np.all((targets >= low) & (targets <= high))
    assert np.all(targets.max(0) - targets.min(0) > 0.9 * (high - low))
    joints = np.asarray(start.qpos)[:, :7] - task.robot.home_qpos[:7]
    assert np.abs(joints).max() <= task.config.joint_noise + 1e-6
    np.testing.assert_array_equal(start.ctrl[:, :7], start.qpos[:, :7])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_low": (0.9, 0.0, 0.0)}, "target_low"),
        ({"termination_distance": 0.2}, "termination_distance"),
        ({"min_distance": -0.1}, "min_distance must not be negative, got -0.1"),
        ({"joint_noise": -0.05}, "joint_noise must not be negative"),
        ({"success_bonus": -1.0}, "success_bonus must not be negative"),
    ],
)
def test_config_relations_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ReachConfig(), **values)


def test_targets_are_far_from_home_even_where_few_points_are(task):
    """Of this box only the tips of its corners are."""
    home = task.robot.home_ee_pos
    box = {"target_low": tuple(home - 0.1), "target_high": tuple(home + 0.1)}
    cornered = ReachTask(task.robot, ReachConfig(**box, min_distance=0.17))
    keys = jax.random.split(jax.random.key(2), 300)
    targets = np.asarray(jax.jit(jax.vmap(lambda key: cornered.sample(key, {})[1].target_pos))(keys), np.float64)
    distance = np.linalg.norm(targets - home, axis=1)
    assert distance.min() > 0.17
    with pytest.raises(ValueError, match=r"no target is min_distance=0.18 m from the home pose.* 0.173 m away"):
        ReachTask(task.robot, ReachConfig(**box, min_distance=0.18))
