"""Bad input is refused before anything is compiled, with what was wrong and what there is."""

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.render import (
    camera_pose,
    geom_poses,
    look_at,
    make_host_renderer,
    make_scene,
    render,
)
from simscaleai_jax.sim.render.camera import check_resolution
from simscaleai_jax.sim.render.scene import MAX_IDS

from .render_gallery import body_poses, random_states


@pytest.fixture(scope="module")
def bodies(model):
    return body_poses(random_states(model, 1)[0])


def test_unknown_camera_lists_those_there_are(scene, bodies):
    with pytest.raises(
        ValueError, match=r"Unknown camera 'fronts'. Available: chaser, front, rider. Did you mean 'front'"
    ):
        camera_pose(scene, "fronts", *bodies)


def test_tracking_camera_is_refused_by_name(scene, bodies):
    with pytest.raises(ValueError, match="'chaser' cannot be drawn"):
        camera_pose(scene, "chaser", *bodies)


@pytest.mark.parametrize("fov", [0.0, 180.0, -5.0, float("nan")])
def test_fov_outside_0_180(scene, bodies, fov):
    with pytest.raises(ValueError, match=r"fov must lie inside \(0, 180\)"):
        camera_pose(scene, "front", *bodies, fovy=fov)
    with pytest.raises(ValueError, match=r"fov must lie inside \(0, 180\)"):
        look_at((1, 0, 0), (0, 0, 0), fovy=fov)


@pytest.mark.parametrize("size", [0, -3])
def test_size_must_be_whole_and_positive(scene, size):
    camera = look_at((1, 0, 1), (0, 0, 0))
    with pytest.raises(ValueError, match="width must be a whole number"):
        render(scene, scene.world_pos, scene.world_mat, camera, size, 8)
    with pytest.raises(ValueError, match="height must be a whole number"):
        render(scene, scene.world_pos, scene.world_mat, camera, 8, size)


@pytest.mark.parametrize("size", [2.5, True, "8", 0])
def test_resolution_of_another_type(size):
    with pytest.raises(ValueError, match="height must be a whole number of pixels >= 1, got"):
        check_resolution(8, size)


def test_poses_of_another_model(scene, bodies):
    with pytest.raises(ValueError, match="geom poses must have shapes"):
        render(scene, scene.world_pos[:-1], scene.world_mat[:-1], look_at((1, 0, 1), (0, 0, 0)), 8, 8)
    with pytest.raises(ValueError, match="body poses must have shapes"):
        geom_poses(scene, jnp.asarray(bodies[0][:-1]), jnp.asarray(bodies[1][:-1]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"geom_rbg": np.zeros((9, 3))}, "Did you mean 'geom_rgb'"),
        ({"geom_rgb": np.zeros((2, 3))}, "'geom_rgb' must have shape"),
        ({"light_pos": np.zeros(3)}, r"'light_pos' must have shape \(2, 3\)"),
        ({"ambient": np.zeros(())}, r"'ambient' must have shape \(3,\)"),
    ],
)
def test_overrides(scene, overrides, message):
    with pytest.raises(ValueError, match=message):
        render(scene, scene.world_pos, scene.world_mat, look_at((1, 0, 1), (0, 0, 0)), 8, 8, overrides=overrides)


def test_a_geom_that_cannot_be_drawn_is_named():
    xml = """<mujoco><asset><hfield name="hill" nrow="4" ncol="4" size="1 1 1 .1"/></asset>
      <worldbody><geom name="ground" type="hfield" hfield="hill" group="{}"/></worldbody></mujoco>"""
    with pytest.raises(ValueError, match=r"cannot draw geom 'ground' \(mjGEOM_HFIELD\).*group 3.*renderer='mujoco'"):
        make_scene(mujoco.MjModel.from_xml_string(xml.format(0)))
    assert make_scene(mujoco.MjModel.from_xml_string(xml.format(3))).drawn == ()


def test_more_geoms_than_depths_have_bits_for_are_refused():
    """Hidden geoms count: their ids are taken all the same."""
    hidden = '<geom size=".1" group="3"/>' * (MAX_IDS + 1)
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{hidden}</worldbody></mujoco>")
    with pytest.raises(ValueError, match=f"{MAX_IDS + 1} geoms.*{MAX_IDS} at most"):
        make_scene(model)


def test_view_along_up_is_refused():
    with pytest.raises(ValueError, match="cannot look"):
        look_at((0, 0, 1), (0, 0, 0))
    with pytest.raises(ValueError, match="cannot look"):
        look_at((0, 0, 1), (0, 0, 1))


def test_unknown_options(model):
    with pytest.raises(ValueError, match="meshes must be"):
        make_scene(model, meshes="draw")
    with pytest.raises(ValueError, match=r"Unknown renderer 'opengl'\. Available: jax, mujoco"):
        make_host_renderer(model, "opengl")
