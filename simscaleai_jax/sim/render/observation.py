"""Camera images as observations of a functional environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float

from simscaleai_jax.sim.render.camera import Camera, camera_pose, check_fovy, check_resolution
from simscaleai_jax.sim.render.raycast import LOOK_KEYS, render
from simscaleai_jax.sim.render.scene import geom_poses, make_scene

CAMERA_KEYS = ("camera_offset", "camera_rotation")  # of a randomized camera: m and rotation vector (rad), camera frame


class CameraSettings(Protocol):
    """The documented CameraConfig, as far as a picture needs it."""

    name: str
    width: int
    height: int
    fov: float


def make_camera_fn(
    model: mujoco.MjModel, cameras: Sequence[CameraSettings]
) -> Callable[[Any, Mapping[str, Array]], dict[str, Array]]:
    """Builds `camera_fn(data, overrides) -> {"image": uint8 (H, W, 3)}` for the first camera; pure, for use under vmap.

    `data` carries body poses `xpos` (N, 3) and `xmat` (N, 3, 3) or (N, 9), m. Of `overrides` the keys in LOOK_KEYS and
    CAMERA_KEYS are used; others belong to physics.

    Raises:
      ValueError: no camera, an unknown camera name, width or height below 1, fov outside (0, 180), or a geom that
        cannot be drawn; all of it now, before anything is compiled.
    """
    if not cameras:
        raise ValueError("an image observation needs at least one camera, got none")
    scene, settings = make_scene(model), cameras[0]
    nowhere = jnp.zeros((scene.num_bodies, 3)), jnp.zeros((scene.num_bodies, 3, 3))
    for camera in cameras:
        check_resolution(camera.width, camera.height)
        check_fovy(camera.fov)
        camera_pose(scene, camera.name, *nowhere, camera.fov)

    def camera_fn(data: Any, overrides: Mapping[str, Array]) -> dict[str, Array]:
        bodies = data.xpos, jnp.reshape(data.xmat, (scene.num_bodies, 3, 3))
        pose = move_camera(camera_pose(scene, settings.name, *bodies, fovy=settings.fov), overrides)
        look = {key: overrides[key] for key in LOOK_KEYS if key in overrides}
        images = render(
            scene,
            *geom_poses(scene, *bodies),
            pose,
            settings.width,
            settings.height,
            overrides=look,
            depth=False,
            segmentation=False,
        )
        return {"image": images["rgb"]}

    return camera_fn


def move_camera(camera: Camera, overrides: Mapping[str, Float[Array, "3"]]) -> Camera:
    """Shifts a camera by `camera_offset` (m) and turns it by `camera_rotation` (rotation vector, rad), in its frame."""
    if "camera_offset" in overrides:
        camera = Camera(camera.pos + jnp.sum(camera.mat * overrides["camera_offset"], axis=-1), camera.mat, camera.fovy)
    if "camera_rotation" in overrides:
        turn = rotation_matrix(overrides["camera_rotation"])
        camera = Camera(camera.pos, jnp.sum(camera.mat[:, :, None] * turn, axis=-2), camera.fovy)
    return camera


def rotation_matrix(vector: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rodrigues' formula for a rotation vector (rad)."""
    angle = jnp.sqrt(jnp.sum(vector**2) + 1e-24)
    x, y, z = vector / angle
    skew = jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) * z
    skew += jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]) * y
    skew += jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]) * x
    square = jnp.sum(skew[:, :, None] * skew, axis=1)
    return jnp.eye(3) + jnp.sin(angle) * skew + (1.0 - jnp.cos(angle)) * square
