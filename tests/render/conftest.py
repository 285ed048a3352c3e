"""The gallery scene and its compiled renderers, shared by the tests of this folder."""

import functools

import jax
import mujoco
import pytest

from simscaleai_jax.sim.render import camera_pose, geom_poses, make_scene, render

from .render_gallery import GALLERY

SIZE = 32  # pixels, both sides


@pytest.fixture(scope="session")
def model():
    return mujoco.MjModel.from_xml_string(GALLERY)


@pytest.fixture(scope="session")
def scene(model):
    return make_scene(model)


@pytest.fixture(scope="session")
def draw(scene):
    """Jitted (body_pos, body_mat, overrides, camera shift) -> images of the camera mounted on the box."""

    @functools.partial(jax.jit, static_argnames=("shadows",))
    def drawn(body_pos, body_mat, overrides, shift, shadows=False):
        camera = camera_pose(scene, "rider", body_pos, body_mat)
        camera = camera.replace(pos=camera.pos + shift)
        poses = geom_poses(scene, body_pos, body_mat)
        return render(scene, *poses, camera, SIZE, SIZE, overrides=overrides, shadows=shadows)

    return drawn
