"""Pinhole cameras: poses as MuJoCo has them (looking along -z, x to the right, y up) and the vertical field of view."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim.render.scene import AnyArray, RenderScene


@struct.dataclass
class Camera:
    """A camera in the world; every field may be traced, so that a new pose or view angle compiles nothing."""

    pos: Float[Array, "3"]  # m
    mat: Float[Array, "3 3"]  # columns: right, up, backward
    fovy: Float[Array, ""]  # degrees, vertical


def make_camera(pos: ArrayLike, mat: ArrayLike, fovy: float = 45.0) -> Camera:
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
    pos: Sequence[float], target: Sequence[float], fovy: float = 45.0, up: Sequence[float] = (0.0, 0.0, 1.0)
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
    fovy: float | Float[Array, ""] | None = None,
) -> Camera:
    """The model's camera `name`, fixed in the world or mounted on a body whose pose is given.

    Args:
      fovy: degrees; None takes the model's.

    Raises:
      ValueError: unknown name (the message lists those there are), a tracking or orthographic camera, or fovy outside
        (0, 180).
    """
    if name not in scene.camera_names:
        raise unknown_name("camera", name, (n for n in scene.camera_names if n))
    index = scene.camera_names.index(name)
    if not scene.camera_is_fixed[index]:
        raise ValueError(
            f"camera {name!r} cannot be drawn: only mode 'fixed' in perspective, not tracking or orthographic"
        )
    angle = float(scene.camera_fovy[index]) if fovy is None else fovy
    check_fovy(angle)
    body = scene.camera_body[index]
    pos, mat = jnp.asarray(scene.camera_pos[index]), jnp.asarray(scene.camera_mat[index])
    if body > 0:
        rotation = jnp.asarray(body_mat)[body]
        pos = jnp.asarray(body_pos)[body] + jnp.sum(rotation * pos, axis=-1)
        mat = jnp.sum(rotation[:, :, None] * mat, axis=-2)
    return Camera(pos, mat, jnp.asarray(angle, jnp.float32))


def check_fovy(fovy: float | Float[Array, ""]) -> None:
    """Raises a ValueError unless 0 < fovy < 180; a traced angle cannot be checked and passes."""
    if isinstance(fovy, Tracer):
        return
    if not 0.0 < float(fovy) < 180.0:
        raise ValueError(f"fov must lie inside (0, 180) degrees, got {float(fovy):g}")


def check_resolution(width: int, height: int) -> None:
    """Raises a ValueError unless both are whole numbers of at least one pixel."""
    for label, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{label} must be a whole number of pixels >= 1, got {value!r}")
