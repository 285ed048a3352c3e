"""Pinhole cameras: poses as MuJoCo has them (looking along -z, x to the right, y up) and the vertical field of view."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim.render.scene import AnyArray, RenderScene

Number = float | int
CAMERA_KEYS = ("camera_offset", "camera_rotation")  # see move_camera


@struct.dataclass
class Camera:
    """A camera in the world; every field may be traced, so that a new pose or view angle compiles nothing."""

    pos: Float[AnyArray, "*B 3"]  # m
    mat: Float[AnyArray, "*B 3 3"]  # columns: right, up, backward
    fovy: Float[AnyArray, "*B"]  # degrees, vertical


def make_camera(pos: ArrayLike, mat: ArrayLike, fovy: Number = 45.0) -> Camera:
    """Builds a camera from plain numbers.

    Raises:
      ValueError: fovy outside (0, 180), or shapes other than (3,) and (3, 3).
    """
    check_fovy(fovy)
    place, frame = jnp.asarray(pos, jnp.float32), jnp.asarray(mat, jnp.float32)
    if place.shape != (3,) or frame.shape != (3, 3):
        raise ValueError(f"a camera needs pos (3,) and mat (3, 3), got {place.shape} and {frame.shape}")
    return Camera(place, frame, jnp.asarray(fovy, jnp.float32))


def look_at(
    pos: Sequence[Number], target: Sequence[Number], fovy: Number = 45.0, up: Sequence[Number] = (0.0, 0.0, 1.0)
) -> Camera:
    """A camera at `pos` that looks at `target` (m, world) with the horizon level.

    Raises:
      ValueError: pos equals target, or the line of sight is parallel to `up`.
    """
    backward = np.asarray(pos, float) - np.asarray(target, float)
    right = np.cross(np.asarray(up, float), backward)
    if np.linalg.norm(right) < 1e-9:
        raise ValueError(f"cannot look from {tuple(pos)} at {tuple(target)}: nothing to see or parallel to up")
    right, backward = right / np.linalg.norm(right), backward / np.linalg.norm(backward)
    return make_camera(np.asarray(pos, float), np.stack([right, np.cross(backward, right), backward], axis=1), fovy)


def camera_pose(
    scene: RenderScene,
    name: str,
    body_pos: Float[AnyArray, "N 3"],
    body_mat: Float[AnyArray, "N 3 3"],
    fovy: Number | Float[AnyArray, ""] | None = None,
) -> Camera:
    """The model's camera `name`, fixed in the world or mounted on a body whose pose is given.

    Args:
      fovy: degrees; None takes the model's.

    Raises:
      ValueError: unknown name (the message lists those there are), a tracking or orthographic camera, or fovy outside
        (0, 180).
    """
    index = find_camera(scene, name)
    angle = float(scene.camera_fovy[index]) if fovy is None else fovy
    check_fovy(angle)
    body = scene.camera_body[index]
    pos, mat = jnp.asarray(scene.camera_pos[index]), jnp.asarray(scene.camera_mat[index])
    if body > 0:
        rotation = jnp.asarray(body_mat)[body]
        pos = jnp.asarray(body_pos)[body] + jnp.sum(rotation * pos, axis=-1)
        mat = jnp.sum(rotation[:, :, None] * mat, axis=-2)
    return Camera(pos, mat, jnp.asarray(angle, jnp.float32))


def find_camera(scene: RenderScene, name: str) -> int:
    """Index of a camera of the model; a ValueError lists those there are, or says why this one cannot be drawn."""
    if name not in scene.camera_names:
        raise unknown_name("camera", name, (n for n in scene.camera_names if n))
    index = scene.camera_names.index(name)
    if not scene.camera_is_fixed[index]:
        raise ValueError(
            f"camera {name!r} cannot be drawn: only mode 'fixed' in perspective, not tracking or orthographic"
        )
    return index


def move_camera(camera: Camera, overrides: Mapping[str, Any]) -> Camera:
    """Shifts a camera by `camera_offset` (m) and turns it by `camera_rotation` (rotation vector, rad), in its frame."""
    if "camera_offset" in overrides:
        camera = Camera(camera.pos + jnp.sum(camera.mat * overrides["camera_offset"], axis=-1), camera.mat, camera.fovy)
    if "camera_rotation" in overrides:
        turn = _rotation_matrix(overrides["camera_rotation"])
        camera = Camera(camera.pos, jnp.sum(camera.mat[:, :, None] * turn, axis=-2), camera.fovy)
    return camera


def check_fovy(fovy: Number | Float[AnyArray, ""]) -> None:
    """Raises a ValueError unless 0 < fovy < 180; a traced angle cannot be checked and passes."""
    if isinstance(fovy, Tracer):
        return
    if not 0.0 < float(fovy) < 180.0:
        raise ValueError(f"fov must lie inside (0, 180) degrees, got {float(fovy):g}")


def check_resolution(width: Any, height: Any) -> None:
    """Raises a ValueError unless both are whole numbers of at least one pixel."""
    for label, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{label} must be a whole number of pixels >= 1, got {value!r}")


def _rotation_matrix(vector: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rodrigues' formula for a rotation vector (rad)."""
    angle = jnp.sqrt(jnp.sum(vector**2) + 1e-24)
    x, y, z = vector / angle
    skew = jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) * z
    skew += jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]) * y
    skew += jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]) * x
    square = jnp.sum(skew[:, :, None] * skew, axis=1)
    return jnp.eye(3) + jnp.sin(angle) * skew + (1.0 - jnp.cos(angle)) * square
