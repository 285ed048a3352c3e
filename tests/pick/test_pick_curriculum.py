"""Eased starts of pick and place: which there are, how often, and that they are no gift."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot import load_model

from .scenes import HALF, robot, snapshot, task

HELD = (3.0, 3.0)  # N on each pad


def test_curriculum_starts_near_around_and_in_a_grasp():
    eased = task(curriculum_share=0.6, curriculum_held=0.5, curriculum_around=0.3)
    keys = jax.random.split(jax.random.key(4), 2000)
    start, state = jax.jit(jax.vmap(lambda key: eased.sample(key, {"curriculum": jnp.float32(0.6)})))(keys)
    assisted = np.asarray(state.assisted)
    assert abs(assisted.mean() - 0.6) < 0.05
    objects, hands = np.asarray(start.qpos[:, 9:12]), tool_positions(start.qpos)
    held = assisted & (objects[:, 2] > HALF + 0.01)
    around = assisted & (hands[:, 2] < HALF + 0.02)
    hovering = assisted & ~held & ~around
    for kind, share in ((held, 0.5), (around, 0.3), (hovering, 0.2)):
        assert abs(kind.sum() / assisted.sum() - share) < 0.06
    distance = np.linalg.norm(hands - objects, axis=1)
    assert distance[held].max() < 0.003
    assert distance[around].max() < 0.02  # inside the open gripper, which is 0.04 wide to either side
    assert np.linalg.norm((hands - objects)[hovering, :2], axis=1).max() < 0.06
    assert np.allclose(start.qpos[held][:, 7:9], HALF)  # fingers closed on the cube
    assert np.allclose(start.ctrl[held][:, 7:9], 0.0)
    assert np.allclose(start.qpos[~held][:, 7:9], 0.04)
    assert np.allclose(start.ctrl[~held][:, 7:9], 0.04)
    assert np.all(np.linalg.norm(objects - np.asarray(state.target_pos), axis=1) >= eased.config.min_distance)
    assert np.array_equal(np.asarray(state.lifted), held)


@pytest.mark.wide
def test_no_eased_start_has_its_fingers_inside_something():
    """By MuJoCo's own contacts, with the heavy preset's largest object; a table too high has plain starts instead."""
    eased, half = task(curriculum_share=1.0, curriculum_held=0.3, curriculum_around=0.3), np.float32(0.025)

    @jax.jit
    def sample(keys, table_height):
        drawn = {"curriculum": 1.0, "table_height": table_height, "object_half_size": jnp.full(3, half)}
        return jax.vmap(lambda key: eased.sample(key, drawn))(keys)

    for raised, share in ((0.0, 1.0), (0.05, 0.8), (0.12, 0.2)):
        start, state = sample(jax.random.split(jax.random.key(6), 1000), np.float32(raised))
        assert np.asarray(state.assisted).mean() == pytest.approx(share, abs=0.05)
        depth = contact_depths(start, np.asarray(state.lifted), half)
        assert depth.max() < 1e-4, (raised, depth.max())


def contact_depths(start, is_held, half):
    """How deep each start's worst contact is, m; fingers that hold the object may press on it."""
    model = load_model(asset("pick_place.xml"), 0.01)
    cube, table = model.geom("object").id, model.geom("table").id
    model.geom_size[cube], model.geom_rbound[cube] = half, np.sqrt(3.0) * half
    data, depths = mujoco.MjData(model), np.zeros(len(is_held))
    places, scenery = np.asarray(start.qpos), np.asarray(start.mocap_pos)
    for i in range(len(is_held)):
        data.qpos[:], data.mocap_pos[:] = places[i], scenery[i]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        wrong = [contact.dist for contact in data.contact if table in contact.geom or not is_held[i]]
        depths[i] = -min(wrong, default=0.0)
    return depths


def tool_positions(qpos):
    """Where MuJoCo has the end effector in each configuration."""
    data, places = mujoco.MjData(robot().model), []
    for row in np.asarray(qpos):
        data.qpos[:] = row
        mujoco.mj_kinematics(robot().model, data)
        places.append(data.site_xpos[robot().ee_site].copy())
    return np.array(places)


def test_a_start_in_a_grasp_has_that_much_to_lose_and_nothing_to_gain():
    eased = task(curriculum_share=1.0, curriculum_held=1.0, curriculum_around=0.0)
    start, state = eased.sample(jax.random.key(0), {"curriculum": jnp.float32(1.0)})
    held_at = tuple(np.asarray(start.qpos[9:12]))
    for touch, expected in ((HELD, 0.0), ((0.0, 0.0), -1.0)):
        scene = snapshot(held_at, ee_pos=held_at, touch=touch)
        scene = scene.replace(gripper=jnp.array([0.04 if expected else HALF]))
        after = eased.update(scene, state, jnp.zeros(4))
        terms = eased.reward_terms(scene, after, jnp.zeros(4), jnp.int32(9))
        assert float(terms["lift"]) == pytest.approx(expected * eased.config.lift_weight)
        assert float(terms["grasp"]) == pytest.approx(0.7 * expected * eased.config.grasp_weight)
        assert (float(terms["place"]) < -0.01) is bool(expected)
        assert float(terms["success"]) == 0.0


@pytest.mark.wide
def test_plain_resets_are_never_eased():
    eased = task(curriculum_share=1.0)
    _, state = jax.vmap(lambda key: eased.sample(key, {}))(jax.random.split(jax.random.key(5), 50))
    assert not np.asarray(state.assisted).any()


def test_curriculum_is_annealed_to_zero():
    eased = task(curriculum_share=0.8, curriculum_steps=100)
    shares = [float(eased.curriculum(jnp.int32(steps))) for steps in (0, 50, 100, 1000)]
    assert shares == pytest.approx([0.8, 0.4, 0.0, 0.0])
