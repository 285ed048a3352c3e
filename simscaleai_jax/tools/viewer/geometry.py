"""A scene's geoms as triangles in their own frames, in metres, for a viewer."""

from collections.abc import Iterator

import mujoco
import numpy as np

from simscaleai_jax.sim.render.materials import read_colours
from simscaleai_jax.sim.render.scene import DEFAULT_GROUPS

PLANE = 4.0  # m, side of a plane that has none
GEOM = mujoco.mjtGeom


def shapes(model: mujoco.MjModel) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (geom, vertices [V, 3] m, faces [F, 3], rgba [4] in [0, 1]) of every geom that can be seen."""
    colours = read_colours(model)
    for geom in range(model.ngeom):
        if model.geom_group[geom] in DEFAULT_GROUPS and colours[geom, 3] > 0:
            vertices, faces = triangles(model, geom)
            yield geom, vertices, faces, colours[geom]


def triangles(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of one geom.

    Raises:
      ValueError: a height field or a signed-distance shape.
    """
    from trimesh import creation

    kind, size = GEOM(int(model.geom_type[geom])), model.geom_size[geom]
    if kind == GEOM.mjGEOM_MESH:
        return _mesh(model, int(model.geom_dataid[geom]))
    if kind == GEOM.mjGEOM_PLANE:
        sides = np.where(size[:2] > 0, 2 * size[:2], PLANE)
        shape = creation.box(extents=(*sides, 1e-3), transform=_moved(-5e-4))
    elif kind == GEOM.mjGEOM_BOX:
        shape = creation.box(extents=2 * size)
    elif kind == GEOM.mjGEOM_SPHERE:
        shape = creation.icosphere(subdivisions=3, radius=size[0])
    elif kind == GEOM.mjGEOM_ELLIPSOID:
        shape = creation.icosphere(subdivisions=3, radius=1.0)
        shape.vertices = shape.vertices * size
    elif kind == GEOM.mjGEOM_CYLINDER:
        shape = creation.cylinder(radius=size[0], height=2 * size[1])
    elif kind == GEOM.mjGEOM_CAPSULE:
        shape = creation.capsule(radius=size[0], height=2 * size[1], count=(24, 24))
        shape.vertices = shape.vertices - shape.bounds.mean(0)
    else:
        raise ValueError(f"geom {model.geom(geom).name or geom} is a {kind.name}, which the viewer cannot draw")
    return np.asarray(shape.vertices, np.float32), np.asarray(shape.faces, np.uint32)


def _moved(height: float) -> np.ndarray:
    pose = np.eye(4)
    pose[2, 3] = height
    return pose


def _mesh(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    start, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    return model.mesh_vert[first : first + count].copy(), model.mesh_face[start : start + faces].astype(np.uint32)
