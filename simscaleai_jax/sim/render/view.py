"""Shapes and lights as one camera sees them: everything the rays meet is moved into the camera's frame first."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.sim.render.camera import Camera
from simscaleai_jax.sim.render.scene import AnyArray, RenderScene
from simscaleai_jax.sim.render.shapes import Shape, Vector


@struct.dataclass
class View:
    """Drawn shapes in the camera's frame (x right, y up, z backward); G geoms."""

    centre: Float[Array, "G 3"]  # m
    axes: Float[Array, "G 3 3"]  # columns: the shapes' x, y, z axes
    size: Float[Array, "G 3"]  # m
    camera: Camera

    def shape(self, scene: RenderScene, geom: int) -> Shape:
        """One shape, coordinate by coordinate."""
        axes = tuple(vector(self.axes[geom, :, i]) for i in range(3))
        is_endless = bool(np.all(scene.size[geom, :2] <= 0))
        return Shape(vector(self.centre[geom]), axes, vector(self.size[geom]), is_endless)  # pyright: ignore

    def to_camera(self, direction: Float[AnyArray, "3"]) -> Vector:
        """A world direction in the camera's frame, coordinate by coordinate."""
        return vector(jnp.sum(self.camera.mat * direction[:, None], axis=0))


def make_view(
    scene: RenderScene,
    geom_pos: Float[AnyArray, "G 3"],
    geom_mat: Float[AnyArray, "G 3 3"],
    geom_size: Float[Array, "G 3"],
    camera: Camera,
) -> View:
    """Moves the geoms' drawn shapes into the camera's frame.

    Products are written as sums because a float32 matrix product may run in reduced precision on an accelerator.
    """
    pos, mat = jnp.asarray(geom_pos, jnp.float32), jnp.asarray(geom_mat, jnp.float32)
    if scene.is_shifted:
        pos = pos + jnp.sum(mat * scene.shape_pos[:, None, :], axis=-1)
        mat = jnp.sum(mat[:, :, :, None] * scene.shape_mat[:, None, :, :], axis=-2)
    centre = jnp.sum((pos - camera.pos)[:, :, None] * camera.mat[None], axis=1)
    axes = jnp.sum(camera.mat[None, :, :, None] * mat[:, :, None, :], axis=1)
    return View(centre, axes, geom_size, camera)


def pixel_slopes(fovy: Float[AnyArray, ""], width: int, height: int) -> tuple[Float[Array, "W"], Float[Array, "H"]]:
    """Slopes of the rays through pixel centres: metres to the right per column and up per row, per metre of depth.

    Row 0 is the top row; pixels are square.
    """
    reach = jnp.tan(jnp.deg2rad(jnp.asarray(fovy, jnp.float32)) / 2)
    columns = (2 * np.arange(width, dtype=np.float32) + 1 - width) / height
    rows = (height - 1 - 2 * np.arange(height, dtype=np.float32)) / height
    return reach * columns, reach * rows


def vector(values: Float[Array, "3"]) -> Vector:
    """Splits a vector into its coordinates."""
    return tuple(jax.lax.index_in_dim(values, i, keepdims=False) for i in range(3))  # pyright: ignore
