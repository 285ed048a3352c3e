"""`impl="warp"` against `impl="jax"`: the same task, the same functions, and buffers that fit any batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim import make_functional_env
from simscaleai_jax.sim.physics.buffers import check_pair_limit, is_jax_buffer_full, warp_capacity
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot import load_model

SETTINGS = {"cameras": [], "dt": 0.01}
STEPS, SETTLING = 10, 5


def rewritten(tmp_path, custom):
    """The package's scene with other <custom> numbers."""
    from pathlib import Path

    text = Path(asset("pick_place.xml")).read_text().replace("<worldbody>", custom + "<worldbody>", 1)
    (tmp_path / "panda.xml").write_text(Path(asset("panda.xml")).read_text())
    (tmp_path / "scene.xml").write_text(text)
    return str(tmp_path / "scene.xml")


@pytest.mark.wide
def test_a_world_has_room_for_every_contact_of_its_pairs():
    pick, reach = (load_model(asset(name), 0.01) for name in ("pick_place.xml", "reach.xml"))
    contacts, rows = warp_capacity(pick)
    assert contacts == 8 * pick.npair == 40
    assert rows >= 4 * contacts + pick.neq
    assert warp_capacity(reach)[0] < contacts


@pytest.mark.wide
def test_the_packages_scene_drops_no_contacts_in_the_jax_implementation():
    model = load_model(asset("pick_place.xml"), 0.01)
    check_pair_limit(model)
    from mujoco import mjx

    data = mjx.make_data(model)
    assert data._impl.contact.dist.shape == (4 * model.npair,), "box against box makes four"
    touching = data.tree_replace({"_impl.contact.dist": jnp.full(4 * model.npair, -1e-3)})
    assert not is_jax_buffer_full(model, touching)


@pytest.mark.wide
def test_a_limit_on_contacts_is_reported_when_it_is_reached(tmp_path):
    from mujoco import mjx

    limit = '<custom><numeric name="max_contact_points" data="8"/></custom>'
    model = load_model(rewritten(tmp_path, limit), 0.01)
    data = mjx.make_data(model)
    assert data._impl.contact.dist.shape == (8,)
    seven = jnp.full(8, -1e-3).at[3].set(1e-3)
    assert not is_jax_buffer_full(model, data.tree_replace({"_impl.contact.dist": seven}))
    assert is_jax_buffer_full(model, data.tree_replace({"_impl.contact.dist": jnp.full(8, -1e-3)}))


def test_a_limit_on_pairs_is_refused(tmp_path):
    scene = rewritten(tmp_path, '<custom><numeric name="max_geom_pairs" data="4"/></custom>')
    with pytest.raises(ValueError, match=r"max_geom_pairs=4 would drop contacts silently.*raise it to 5"):
        make_functional_env("pick_place", xml_path=scene, impl="jax", **SETTINGS)


@pytest.mark.warp
@pytest.mark.parametrize("name", ["reach", "pick_place"])
def test_warp_follows_jax(name):
    """Same state, same actions: states, observations and rewards stay together, in a batch and in a batch of those."""
    envs = {impl: make_functional_env(name, impl=impl, **SETTINGS) for impl in ("jax", "warp")}
    steps = {impl: jax.jit(jax.vmap(env.step)) for impl, env in envs.items()}
    keys = jax.random.split(jax.random.key(0), 6)
    starts = {impl: jax.jit(jax.vmap(env.reset))(keys) for impl, env in envs.items()}
    np.testing.assert_array_equal(starts["jax"].physics.qpos, starts["warp"].physics.qpos)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), starts["jax"].obs, starts["warp"].obs)

    rest = jnp.zeros((SETTLING, 6, 4))
    settled = {impl: play(steps[impl], starts[impl], rest)[0] for impl in envs}
    if name == "pick_place":
        check_settled(settled["jax"].snapshot, settled["warp"].snapshot)

    actions = jax.random.uniform(jax.random.key(1), (STEPS, 6, 4), minval=-0.5, maxval=0.5)
    paths = {impl: play(step, settled["jax"], actions)[1] for impl, step in steps.items()}
    for one, other in zip(paths["jax"], paths["warp"], strict=True):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)
    if name == "reach":
        nested = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), settled["jax"])
        state = jax.jit(jax.vmap(jax.vmap(envs["warp"].step)))(nested, actions[0].reshape(2, 3, 4))
        np.testing.assert_allclose(state.physics.qpos.reshape(6, -1), paths["warp"][0][0], atol=1e-4)


def play(step, state, actions):
    """The last state, and (joint angles and poses, observation, reward) after every step."""
    path = []
    for action in actions:
        state = step(state, action)
        path.append(jax.tree.map(np.asarray, (state.physics.qpos, state.obs, state.reward)))
    assert not state.info["overflow"].any()
    assert not state.info["nan"].any()
    return state, path


def check_settled(ours, theirs):
    """Warp's first contacts may turn a cube that starts just touching the table, by 0.4 degrees about the vertical; it
    lies flat in the same place a few steps later.
    """
    np.testing.assert_allclose(ours.object_pos, theirs.object_pos, atol=2e-3)
    np.testing.assert_allclose(ours.object_quat, theirs.object_quat, atol=5e-3)
    for snapshot in (ours, theirs):
        np.testing.assert_allclose(snapshot.object_quat[..., 1:3], 0.0, atol=2e-4)


@pytest.mark.warp
def test_warp_reports_a_full_buffer():
    """With room for one contact of four the step says that some were lost; with the right room it does not."""
    env = make_functional_env("pick_place", impl="warp", **SETTINGS)
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 3))
    action = jnp.zeros((3, 4))
    assert not jax.jit(jax.vmap(env.step))(state, action).info["overflow"].any()
    env.physics._capacity = (1, env.physics._capacity[1])  # four contacts of the cube with the table are wanted
    assert jax.jit(jax.vmap(env.step_state))(state, action).info["overflow"].all()
