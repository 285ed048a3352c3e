"""How far an object reaches around its body's origin, whatever geoms it is made of."""

import mujoco
import numpy as np

MESH, SPHERE, CAPSULE, CYLINDER, ELLIPSOID = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind}")) for kind in ("MESH", "SPHERE", "CAPSULE", "CYLINDER", "ELLIPSOID")
)


def half_size(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Half the width (m) of a free body along its x and y axes, and how far its lowest point is below its origin.

    Geoms that nothing touches, neither by themselves nor in a contact pair, do not count where others do.
    """
    geoms = geoms_of(model, body)
    touched = [g for g in geoms if model.geom_contype[g] or model.geom_conaffinity[g] or g in _paired(model)]
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    frame, origin = data.xmat[body].reshape(3, 3), data.xpos[body]
    sides = []
    for geom in touched or geoms:
        turn, centre = frame.T @ data.geom_xmat[geom].reshape(3, 3), frame.T @ (data.geom_xpos[geom] - origin)
        sides += [centre + side for side in _sides(model, geom, turn)]
    reach = np.stack(sides)
    low, high = reach.min(axis=0), reach.max(axis=0)
    return np.array([*(0.5 * (high - low)[:2]), -low[2]])


def geoms_of(model: mujoco.MjModel, body: int) -> list[int]:
    """Geoms of a body and of all that is welded to it."""
    return [g for g in range(model.ngeom) if model.body_weldid[model.geom_bodyid[g]] == body]


def why_not_scaled(model: mujoco.MjModel, body: int) -> str:
    """Why the size of a body cannot be randomized; "" where it can."""
    geoms = geoms_of(model, body)
    meshes = [model.geom(g).name or f"#{g}" for g in geoms if model.geom_type[g] == MESH]
    if meshes:
        return f"its geom {', '.join(meshes)} is a mesh, whose vertices all episodes share: use primitive geoms"
    if any(model.geom_bodyid[g] != body for g in geoms):
        return "it has geoms on bodies of their own: put them all on its body"
    return "" if geoms else "it has no geom"


def _paired(model: mujoco.MjModel) -> set[int]:
    return {*model.pair_geom1.tolist(), *model.pair_geom2.tolist()}


def _sides(model: mujoco.MjModel, geom: int, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far a geom reaches from its centre, either way along the axes of a frame in which its own are `turn`'s
    columns.
    """
    kind, size = model.geom_type[geom], model.geom_size[geom]
    along = np.abs(turn[:, 2])
    if kind == MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        points = model.mesh_vert[first : first + count] @ turn.T
        return points.min(axis=0), points.max(axis=0)
    if kind in (SPHERE, CAPSULE):
        reach = size[0] + along * (size[1] if kind == CAPSULE else 0.0)
    elif kind == CYLINDER:
        reach = along * size[1] + size[0] * np.sqrt(np.maximum(1.0 - along**2, 0.0))
    elif kind == ELLIPSOID:
        reach = np.linalg.norm(turn * size, axis=1)
    else:
        middle, reach = turn @ model.geom_aabb[geom, :3], np.abs(turn) @ model.geom_aabb[geom, 3:]
        return middle - reach, middle + reach
    return -reach, reach
