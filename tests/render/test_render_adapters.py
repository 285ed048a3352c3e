"""Cameras of environments: host and batched pictures agree, live models show, images are drawn once per step."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim import CameraConfig, make_batched_env
from simscaleai_jax.sim.cameras import PORTRAIT_SIZE, HostCameras, make_camera_fn, make_portrait_fn
from simscaleai_jax.sim.render import camera_pose, make_camera, make_host_renderer, move_camera

from .render_gallery import assert_same_images, body_poses, random_states

RIDER = CameraConfig("rider", 32, 32, fov=60.0)  # the size and angle of the `draw` fixture


@pytest.fixture(scope="module")
def state(model):
    return random_states(model, 1)[0]


class Bodies:
    """What a camera function reads of MJX data; xmat as C MuJoCo stores it."""

    def __init__(self, data: mujoco.MjData) -> None:
        self.xpos, mat = (jnp.asarray(a) for a in body_poses(data))
        self.xmat = mat.reshape(-1, 9)


def test_host_and_functional_pictures_agree(model, state, draw):
    host = HostCameras(model, "jax").picture(state, RIDER, {}, depth=True, segmentation=True)
    assert all(isinstance(image, np.ndarray) for image in host.values())
    assert_same_images(host, draw(*body_poses(state), {}, np.zeros(3, np.float32)))
    both = make_camera_fn(model, [RIDER, CameraConfig("front", 8, 6)])
    images = jax.jit(lambda: both(Bodies(state), {"pair_friction": jnp.ones(3)}))()
    assert {key: image.shape for key, image in images.items()} == {"image": (32, 32, 3), "image_front": (6, 8, 3)}
    assert np.mean(np.abs(np.asarray(images["image"], int) - host["rgb"]) <= 1) > 0.999


def test_changes_of_the_live_model_show_without_compiling(model, state):
    renderer = make_host_renderer(model)

    def image() -> dict:
        return renderer.images(state, "rider", 32, 32, depth=True, segmentation=True)

    before = image()
    geom = int(before["segmentation"].max())
    from simscaleai_jax.sim.render import host

    count = host._draw._cache_size()
    saved = model.geom_rgba.copy(), model.cam_fovy.copy(), model.geom_size.copy()
    try:
        model.geom_rgba[geom, :3] = 0.0
        recoloured = image()
        model.cam_fovy[:] = 30.0
        zoomed = image()
        model.geom_size[geom] *= 0.3
        shrunk = image()
    finally:
        model.geom_rgba[:], model.cam_fovy[:], model.geom_size[:] = saved
    shown = before["segmentation"] == geom
    assert np.all(recoloured["rgb"][shown] == 0)
    np.testing.assert_array_equal(recoloured["rgb"][~shown], before["rgb"][~shown])
    assert not np.array_equal(zoomed["segmentation"], before["segmentation"])
    assert np.sum(shrunk["segmentation"] == geom) < np.sum(zoomed["segmentation"] == geom)
    assert host._draw._cache_size() == count


@pytest.mark.wide
def test_portraits_have_one_size_and_agree(model, state):
    host = HostCameras(model, "jax").portrait(state, "front", {})
    assert host.shape == (PORTRAIT_SIZE[1], PORTRAIT_SIZE[0], 3)
    small = jax.jit(lambda: make_portrait_fn(model, "front", 48, 36)(Bodies(state), {}))()
    blocks = host.reshape(36, 10, 48, 10, 3).mean(axis=(1, 3))
    assert np.mean(np.abs(np.asarray(small, float) - blocks) < 12) > 0.9  # the same picture, but for edges


def test_a_randomized_camera_moves_in_its_own_frame(scene, state):
    camera = camera_pose(scene, "rider", *body_poses(state))
    moved = move_camera(camera, {"camera_offset": jnp.array([0.1, 0.0, -0.2])})
    np.testing.assert_allclose(camera.mat.T @ (moved.pos - camera.pos), [0.1, 0.0, -0.2], atol=1e-6)
    angle = 0.3
    turned = move_camera(camera, {"camera_rotation": jnp.array([0.0, angle, 0.0])})  # about the camera's up axis
    relative = np.asarray(camera.mat).T @ np.asarray(turned.mat)
    expected = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    np.testing.assert_allclose(relative, expected, atol=1e-6)
    still = move_camera(camera, {"camera_rotation": jnp.zeros(3)})
    np.testing.assert_allclose(still.mat, camera.mat, atol=1e-6)
    with pytest.raises(ValueError, match=r"pos \(3,\) and mat \(3, 3\)"):
        make_camera((0.0, 0.0), np.eye(3))


@pytest.mark.wide
def test_batched_images_are_drawn_once_per_control_step():
    """After the auto-reset has chosen each state, so that `final_obs` has none (C10, C11); counted while tracing."""
    env = make_batched_env("reach", dt=0.05, cameras=[{"name": "front_cam", "width": 8, "height": 8}])
    functional, calls = env.functional, []
    drawn = functional._camera_fn
    functional._camera_fn = lambda data, overrides: calls.append(1) or drawn(data, overrides)
    state = jax.eval_shape(env.init, jax.random.key(0), jax.ShapeDtypeStruct((2,), jnp.int32))
    assert state.obs["image"].shape == (2, 8, 8, 3)
    assert state.obs["image"].dtype == jnp.uint8
    calls.clear()
    after = jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((2, env.action_size), jnp.float32))
    assert calls == [1]
    assert "image" not in after.final_obs


def test_without_opengl_the_message_says_what_to_install(model, state, monkeypatch):
    def broken(*_):
        raise ImportError("no libEGL")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    renderer = make_host_renderer(model, "mujoco")
    with pytest.raises(RuntimeError, match="install-system"):
        renderer.images(state, "front", 8, 8)
    for options, message in (
        ({"camera": "fronts"}, "Unknown camera 'fronts'. Available: chaser, front, rider"),
        ({"overrides": {"camera_offset": np.zeros(3)}}, "camera_offset"),
    ):
        with pytest.raises(ValueError, match=message):
            renderer.images(state, **{"camera": "front", "width": 8, "height": 8, **options})


@pytest.mark.opengl
def test_overrides_show_in_mujocos_picture_and_leave_the_model_alone(model, state):
    renderer = make_host_renderer(model, "mujoco")
    before = model.geom_rgba.copy()
    rgb = np.zeros((model.ngeom, 3))
    try:
        plain = renderer.images(state, "front", 64, 64, segmentation=True)
        black = renderer.images(state, "front", 64, 64, overrides={"geom_rgb": rgb, "ambient": np.zeros(3)})
    finally:
        renderer.close()
    sphere = plain["segmentation"] == 3
    assert plain["rgb"][sphere].max() > 100 > black["rgb"][sphere].mean()
    np.testing.assert_array_equal(model.geom_rgba, before)
    np.testing.assert_allclose(model.vis.headlight.ambient, 0.1)
