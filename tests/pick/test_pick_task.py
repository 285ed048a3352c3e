"""Success, termination, rewards and starts of pick and place, with plain arrays and no simulator."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.core.observations import state_vector
from simscaleai_jax.sim.randomization import draw_between
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot import PICKING, find_robot
from simscaleai_jax.sim.tasks.grasping.stages import clearance
from tests.params import others_wide

from .scenes import HALF, STILL, TARGET, fresh_state, play, robot, snapshot, task

HELD = (3.0, 3.0)
ON_TABLE = (0.5, -0.1, HALF)


def near_target(distance):
    return (TARGET[0] + distance, TARGET[1], TARGET[2])


@pytest.mark.parametrize(
    ("distance", "speed", "lifted", "success", "strict", "terminated"),
    [
        (0.045, 0.05, True, True, False, False),
        (0.025, 0.05, True, True, False, True),
        (0.015, 0.05, True, True, True, True),
        (0.015, 0.15, True, False, False, False),  # too fast
        (0.055, 0.0, True, False, False, False),  # too far
    ],
)
def test_success_needs_distance_and_rest(distance, speed, lifted, success, strict, terminated):
    scene = snapshot(near_target(distance), vel=(speed, 0.0, 0.0))
    state = fresh_state(lifted=lifted)
    info = task().info(scene, state)
    assert bool(info["success"]) is success
    assert bool(info["success_strict"]) is strict
    assert bool(task().terminated(scene, state)) is terminated


def test_success_needs_a_lift_in_this_episode():
    target = (0.5, 0.1, HALF)
    scene = snapshot(target)  # the cube lies exactly at a target on the table, at rest
    for lifted in (False, True):
        state = fresh_state(target, lifted=lifted)
        assert bool(task().info(scene, state)["success"]) is lifted
        assert bool(task().terminated(scene, state)) is lifted


@pytest.mark.parametrize(
    ("position", "failed"),
    [((0.5, 0.0, HALF), False), ((0.19, 0.0, HALF), True), ((0.5, 0.46, HALF), True), ((0.5, 0.0, -0.06), True),
     ((0.5, 0.0, 0.61), True)],
)  # fmt: skip
def test_leaving_the_workspace_fails(position, failed):
    totals, info, terminated = play([snapshot(ON_TABLE), snapshot(position)])
    assert info["failed"] is failed
    assert terminated is failed
    assert (totals["failure"] < 0.0) is failed
    assert not info["success"]


def test_the_workspace_moves_with_the_table():
    state = fresh_state().replace(table_height=jnp.float32(0.1))
    assert not bool(task().has_failed(snapshot((0.5, 0.0, 0.65)), state))
    assert bool(task().has_failed(snapshot((0.5, 0.0, 0.04)), state))


def test_tipping_is_no_lift():
    for angle in np.linspace(0.0, np.pi / 2, 7):
        height = HALF * (abs(np.cos(angle)) + abs(np.sin(angle)))  # resting on an edge
        scene = snapshot((0.5, 0.0, height), quat=(np.cos(angle / 2), np.sin(angle / 2), 0.0, 0.0))
        assert abs(float(clearance(scene, fresh_state().half_size, 0.0))) < 1e-6
    _, info, _ = play([scene])
    assert not info["lifted"]


def test_lifted_is_remembered():
    _, info, _ = play([snapshot(ON_TABLE), snapshot((0.5, -0.1, HALF + 0.02)), snapshot(ON_TABLE)])
    assert info["lifted"]


def test_both_pads_must_press():
    for touch, expected in [((3.0, 3.0), True), ((3.0, 0.0), False), ((0.0, 3.0), False), ((0.0, 0.0), False)]:
        _, info, _ = play([snapshot(ON_TABLE, touch=touch)])
        assert info["grasped"] is expected


def with_gripper(opening, ee_pos, touch=(0.0, 0.0)):
    """The cube on the table and the gripper somewhere, opened by so many metres per finger."""
    return snapshot(ON_TABLE, ee_pos=ee_pos, touch=touch).replace(gripper=jnp.array([opening]))


def test_gripper_closed_on_nothing_earns_nothing():
    closed = with_gripper(0.0, (0.5, 0.2, 0.3))
    totals, info, _ = play([closed] * 20)
    assert not info["grasped"]
    assert all(value == 0.0 for value in totals.values())


PLACES = [(0.5, 0.2, 0.3), (0.5, -0.1, 0.06), (0.5, -0.06, HALF), ON_TABLE]


@pytest.mark.parametrize("place", others_wide(PLACES, PLACES[0]))
def test_closing_on_nothing_never_earns(place):
    """Far away, above the cube, beside it, and (which only a broken scene allows) through it."""
    openings = np.linspace(0.04, 0.0, 9)
    closing = [with_gripper(opening, place) for opening in openings]
    totals, _, _ = play(closing)
    assert totals["grasp"] <= 1e-6
    assert totals["lift"] == totals["place"] == totals["success"] == 0.0
    again, _, _ = play((closing + closing[::-1]) * 5)
    assert again["grasp"] == pytest.approx(0.0, abs=1e-5)


def test_each_part_of_a_grasp_earns():
    above = (0.5, -0.1, 0.08)
    path = [with_gripper(0.02, above), with_gripper(0.04, above), with_gripper(0.04, ON_TABLE),
            with_gripper(0.03, ON_TABLE), with_gripper(0.02, ON_TABLE), with_gripper(0.02, ON_TABLE, HELD)]  # fmt: skip
    earned = [play(path[: i + 1])[0]["grasp"] for i in range(len(path))]
    assert np.all(np.diff(earned) > 0.01), earned
    assert earned[-1] == pytest.approx(task().config.grasp_weight)


def test_pushing_to_the_target_earns_no_more_than_reaching():
    target = (0.5, 0.1, HALF)
    path = [
        snapshot((0.5, y, HALF), ee_pos=(0.5, y - 0.03, HALF), touch=(2.0, 0.0)) for y in np.linspace(-0.1, 0.1, 21)
    ]
    totals, info, terminated = play(path, target)
    assert info["place_dist"] < 1e-6
    assert not info["success"]
    assert not terminated
    assert abs(totals["reach"]) < 1e-5
    assert abs(totals["grasp"]) < 1e-5
    assert totals["lift"] == totals["place"] == totals["success"] == 0.0


def test_throwing_past_the_target_earns_nothing():
    grip = [snapshot((0.5, -0.1, z), ee_pos=(0.5, -0.1, z), touch=HELD) for z in (HALF, 0.08, 0.12)]
    flight = [
        snapshot((0.5, y, TARGET[2]), ee_pos=(0.5, -0.1, 0.12), vel=(0, 1.5, 0)) for y in np.linspace(-0.05, 0.3, 15)
    ]
    totals, info, _ = play(grip + flight)
    assert info["lifted"]
    assert not info["success"]
    assert totals["success"] == 0.0
    # What the grip had earned is lost with the grip. The first scene is the start and earned nothing, so the sum is
    # negative.

    assert totals["grasp"] == pytest.approx(-1.0)
    assert totals["lift"] == pytest.approx(0.0, abs=1e-6)
    assert totals["place"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.wide
def test_hovering_earns_nothing_anywhere():
    for scene in (snapshot(ON_TABLE), snapshot(ON_TABLE, ee_pos=ON_TABLE, touch=HELD),
                  snapshot(near_target(0.06), ee_pos=near_target(0.06), touch=HELD)):  # fmt: skip
        totals, _, terminated = play([scene] * 50)
        assert not terminated
        assert all(value == 0.0 for value in totals.values())


def test_repeating_a_grasp_earns_nothing():
    grip, release = snapshot(ON_TABLE, ee_pos=ON_TABLE, touch=HELD), snapshot(ON_TABLE, ee_pos=ON_TABLE)
    totals, _, _ = play([release] + [grip, release] * 10)
    assert all(value == pytest.approx(0.0, abs=1e-5) for value in totals.values())


def test_each_stage_of_a_true_solution_earns():
    heights = [HALF, HALF, 0.05, 0.12]
    path = [snapshot(ON_TABLE, ee_pos=(0.5, -0.1, 0.3)), snapshot(ON_TABLE, ee_pos=ON_TABLE)]
    path += [snapshot((0.5, -0.1, z), ee_pos=(0.5, -0.1, z), touch=HELD) for z in heights]
    path += [snapshot((0.5, y, 0.12), ee_pos=(0.5, y, 0.12), touch=HELD) for y in np.linspace(-0.1, 0.1, 6)]
    totals, info, terminated = play(path)
    assert info["success"]
    assert info["success_strict"]
    assert terminated
    config = task().config
    assert totals["success"] == config.success_bonus
    assert totals["grasp"] == pytest.approx(config.grasp_weight)
    assert totals["lift"] == pytest.approx(config.lift_weight)
    assert 0.0 < totals["reach"] <= config.reach_weight
    assert totals["place"] == pytest.approx(config.place_weight, rel=0.01)


def test_weights_scale_their_terms():
    path = [snapshot(ON_TABLE, ee_pos=(0.5, -0.1, 0.3)), snapshot(ON_TABLE, ee_pos=ON_TABLE, touch=HELD)]
    once, _, _ = play(path)
    more, _, _ = play(path, reach_weight=3.0, grasp_weight=5.0)
    assert more["reach"] == pytest.approx(3.0 * once["reach"])
    assert more["grasp"] == pytest.approx(5.0 * once["grasp"])


def test_action_penalty():
    state = task(action_penalty=0.1).update(snapshot(ON_TABLE), fresh_state(), jnp.zeros(4))
    terms = task(action_penalty=0.1).reward_terms(snapshot(ON_TABLE), state, jnp.array([1.0, 0, 0, -1.0]), jnp.int32(1))
    assert float(terms["action"]) == pytest.approx(-0.2)


def test_observation_is_documented_and_inside_its_bounds():
    obs = task().observe(snapshot((9.0, 0.0, -9.0), vel=STILL), fresh_state())
    shapes = {key: value.shape for key, value in obs.items()}
    wanted = {"joint_pos": (7,), "joint_vel": (7,), "ee_pos": (3,), "object_pos": (3,), "object_quat": (4,),
              "target_pos": (3,), "gripper_state": (1,)}  # fmt: skip
    assert shapes == wanted
    assert state_vector(obs).shape == (28,)
    assert_inside(obs, task().observation_bounds())


def assert_inside(obs, bounds):
    assert set(bounds) == set(obs)
    for key, (low, high) in bounds.items():
        assert np.all(np.isfinite(low) & np.isfinite(high))
        assert np.shape(low) == np.shape(high) == obs[key].shape
        assert np.all(low <= np.asarray(obs[key]))
        assert np.all(np.asarray(obs[key]) <= high)


def test_relative_observations_are_added_on_request():
    of = task(relative_observations=True)
    scene = snapshot((0.5, -0.1, HALF), ee_pos=(0.47, -0.1, 0.3), touch=(3.0, 0.0))
    obs = of.observe(scene, fresh_state())
    plain = task().observe(scene, fresh_state())
    assert all(np.array_equal(obs[key], plain[key]) for key in plain)
    assert np.allclose(obs["ee_to_object"], (0.03, 0.0, HALF - 0.3))
    assert np.allclose(obs["ee_to_object_near"], np.tanh([1.0, 0.0, (HALF - 0.3) / 0.03]), atol=1e-5)
    assert np.allclose(obs["object_to_target"], np.subtract(TARGET, (0.5, -0.1, HALF)))
    assert np.allclose(obs["object_to_target_near"], np.tanh(np.subtract(TARGET, (0.5, -0.1, HALF)) / 0.03), atol=1e-5)
    assert obs["touch"].tolist() == [1.0, 0.0]
    far = snapshot((9.0, 0.0, -9.0), ee_pos=(-0.5, 0.0, 0.4))
    assert_inside(of.observe(far, fresh_state()), of.observation_bounds())


@pytest.fixture(scope="module")
def starts():
    keys = jax.random.split(jax.random.key(3), 2000)
    return jax.jit(jax.vmap(lambda key: task().sample(key, {})))(keys)


def test_starts_cover_the_area_and_keep_their_distance(starts):
    start, state = starts
    objects, targets = np.asarray(start.qpos[:, 9:12]), np.asarray(state.target_pos)
    config = task().config
    for points in (objects[:, :2], targets[:, :2]):
        assert np.all(points >= np.array(config.area_low) - 1e-6)
        assert np.all(points <= np.array(config.area_high) + 1e-6)
        assert np.all(np.ptp(points, axis=0) > 0.95 * (np.array(config.area_high) - config.area_low))
    assert np.all(np.linalg.norm(objects - targets, axis=1) >= config.min_distance)
    assert np.allclose(objects[:, 2], HALF)
    in_air = targets[:, 2] > HALF + 1e-4
    assert abs(in_air.mean() - config.air_share) < 0.05
    assert np.all(targets[in_air, 2] >= HALF + config.air_low - 1e-6)
    assert not np.asarray(state.assisted).any()
    assert np.array_equal(np.asarray(start.mocap_pos[:, robot().target_mocap]), targets)


def test_randomization_starts_from_the_table_where_the_keyframe_puts_it():
    model = mujoco.MjModel.from_xml_path(str(asset("pick_place.xml")))
    table = model.body("table").mocapid[0]
    model.key_mpos[0, 3 * table + 2] += 0.1
    moved = find_robot(model, PICKING)
    assert moved.table_height == pytest.approx(robot().table_height + 0.1)
    drawn = draw_between(jax.random.key(0), {"table_height": (0.02, 0.02)}, {}, model)
    assert drawn["table_height"] == pytest.approx(moved.table_height + 0.02, abs=1e-6)
