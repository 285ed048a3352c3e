"""What a MuJoCo model contributes to a picture, read once and folded into the compiled renderer.

Drawn: planes, spheres, capsules, cylinders, boxes and ellipsoids of the chosen geom groups whose colour is not fully
transparent (partly transparent ones are drawn opaque). A mesh is drawn as the capsule that fits its bounding box, with
a warning, or left out on request. Height fields and signed-distance geoms are refused by name. Sites, tendons and skins
are not drawn.
"""

import dataclasses
import functools
import pickle
import warnings
from collections.abc import Sequence

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import listed
from simscaleai_jax.sim.render.materials import Checker, Lights, Sky, read_checkers, read_colours, read_lights, read_sky

AnyArray = Array | np.ndarray  # host data comes as NumPy

DEFAULT_GROUPS = (0, 1, 2)
MAX_GEOMS = 512  # the loop over geoms is unrolled in the compiled program
MAX_IDS = 4096  # geoms of the model, hidden ones too: ids take the lowest bits of depths, which they round by 2.4e-4

_DRAWN = {
    int(mujoco.mjtGeom.mjGEOM_PLANE): "plane",
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
    int(mujoco.mjtGeom.mjGEOM_MESH): "capsule",
}


@dataclasses.dataclass(frozen=True, eq=False)
class RenderScene:
    """Static picture data of one model; compared by content, so that equal scenes share one compiled program.

    G geoms, C cameras, N bodies. Lengths in metres, colours linear in [0, 1].
    """

    drawn: tuple[int, ...]  # ids of the geoms that are drawn
    kind: tuple[str, ...]  # per geom: plane, sphere, capsule, cylinder, box, ellipsoid, or "" where it is not drawn
    is_fixed: np.ndarray  # [G] bool: welded to the world, so that its pose is a constant
    geom_body: np.ndarray  # [G] body ids
    local_pos: np.ndarray  # [G, 3] in the body frame
    local_mat: np.ndarray  # [G, 3, 3]
    world_pos: np.ndarray  # [G, 3] at qpos0; the pose of fixed geoms
    world_mat: np.ndarray  # [G, 3, 3]
    shape_pos: np.ndarray  # [G, 3] drawn shape in the geom frame: zero but for meshes
    shape_mat: np.ndarray  # [G, 3, 3]: the identity but for meshes
    is_shifted: bool  # whether any drawn shape differs from its geom's frame
    size: np.ndarray  # [G, 3] MuJoCo's geom_size of the drawn shape
    rgb: np.ndarray  # [G, 3]
    checkers: dict[int, Checker]  # by id of a plane
    lights: Lights
    sky: Sky
    near: float  # m, clip distances
    far: float  # also the depth where nothing is hit
    fog: tuple[float, float]  # m, where endless planes begin to fade and where they are gone
    camera_names: tuple[str, ...]
    camera_body: np.ndarray  # [C]
    camera_is_fixed: np.ndarray  # [C] bool: mode "fixed" and a perspective camera
    camera_pos: np.ndarray  # [C, 3] in the body frame
    camera_mat: np.ndarray  # [C, 3, 3]
    camera_fovy: np.ndarray  # [C] degrees, vertical
    num_bodies: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RenderScene) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @functools.cached_property
    def _content(self) -> bytes:
        return pickle.dumps([getattr(self, field.name) for field in dataclasses.fields(self)])


def make_scene(model: mujoco.MjModel, groups: Sequence[int] = DEFAULT_GROUPS, meshes: str = "capsule") -> RenderScene:
    """Reads what pictures need from a compiled model.

    Args:
      model: any MuJoCo model of primitives.
      groups: geom groups to draw (MuJoCo's own default: 0, 1 and 2).
      meshes: "capsule" draws each mesh as the capsule that fits its bounding box and warns; "skip" leaves meshes out.

    Raises:
      ValueError: a visible geom is a height field or a signed-distance shape, or there are too many geoms.
    """
    if meshes not in ("capsule", "skip"):
        raise ValueError(f"meshes must be 'capsule' or 'skip', got {meshes!r}")
    if model.ngeom > MAX_IDS:
        raise ValueError(f"the model has {model.ngeom} geoms; depths stay exact to 2.4e-4 with {MAX_IDS} at most")
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
    rgba = read_colours(model)
    drawn = _drawn_geoms(model, rgba, groups, meshes)
    size, shape_pos, shape_mat = _shapes(model, drawn)
    ground = _welded_to_world(model)
    return RenderScene(
        drawn=drawn,
        kind=tuple(_DRAWN[int(model.geom_type[g])] if g in drawn else "" for g in range(model.ngeom)),
        is_fixed=ground[model.geom_bodyid],
        geom_body=np.array(model.geom_bodyid),
        local_pos=_float32(model.geom_pos),
        local_mat=_matrices(model.geom_quat),
        world_pos=_float32(data.geom_xpos),
        world_mat=_float32(data.geom_xmat).reshape(-1, 3, 3),
        shape_pos=shape_pos,
        shape_mat=shape_mat,
        is_shifted=bool(np.any(shape_pos) or np.any(shape_mat != np.eye(3))),
        size=size,
        rgb=rgba[:, :3],
        checkers=read_checkers(model, drawn, rgba),
        lights=read_lights(model, data),
        sky=read_sky(model),
        near=float(model.vis.map.znear * model.stat.extent),
        far=_far_depth(model),
        fog=(float(model.vis.map.fogstart * model.stat.extent), float(model.vis.map.fogend * model.stat.extent)),
        camera_names=tuple(model.camera(i).name for i in range(model.ncam)),
        camera_body=np.array(model.cam_bodyid),
        camera_is_fixed=_is_plain_camera(model),
        camera_pos=_float32(model.cam_pos),
        camera_mat=_matrices(model.cam_quat),
        camera_fovy=_float32(model.cam_fovy),
        num_bodies=model.nbody,
    )


def geom_poses(
    scene: RenderScene,
    body_pos: Float[AnyArray, "N 3"],
    body_mat: Float[AnyArray, "N 3 3"],
    local_pos: Float[AnyArray, "G 3"] | None = None,
) -> tuple[Float[Array, "G 3"], Float[Array, "G 3 3"]]:
    """Places every geom in the world from body poses (MuJoCo's xpos in metres and xmat).

    Geoms welded to the world keep the model's own pose, whatever the given poses say. `local_pos` takes the place of
    the model's geom_pos (m, in the bodies' frames).
    """
    if body_pos.shape[-2:] != (scene.num_bodies, 3) or body_mat.shape[-3:] != (scene.num_bodies, 3, 3):
        raise ValueError(
            f"body poses must have shapes ({scene.num_bodies}, 3) and ({scene.num_bodies}, 3, 3), "
            f"got {body_pos.shape} and {body_mat.shape}"
        )
    local = scene.local_pos if local_pos is None else jnp.asarray(local_pos)
    mat = jnp.asarray(body_mat)[scene.geom_body]
    pos = jnp.asarray(body_pos)[scene.geom_body] + jnp.sum(mat * local[:, None, :], axis=-1)
    mat = jnp.sum(mat[:, :, :, None] * scene.local_mat[:, None, :, :], axis=-2)
    fixed = scene.is_fixed
    return jnp.where(fixed[:, None], scene.world_pos, pos), jnp.where(fixed[:, None, None], scene.world_mat, mat)


def _drawn_geoms(model: mujoco.MjModel, rgba: np.ndarray, groups: Sequence[int], meshes: str) -> tuple[int, ...]:
    visible = [g for g in range(model.ngeom) if model.geom_group[g] in groups and rgba[g, 3] > 0]
    unknown = [g for g in visible if int(model.geom_type[g]) not in _DRAWN]
    if unknown:
        named = ", ".join(f"{_label(model, g)} ({mujoco.mjtGeom(model.geom_type[g]).name})" for g in unknown)
        raise ValueError(
            f"cannot draw {named}: the ray-caster draws {', '.join(sorted(set(_DRAWN.values())))}. "
            "Hide such a geom with group 3 or alpha 0, or render with renderer='mujoco'."
        )
    mesh = [g for g in visible if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH]
    if mesh:
        named = listed([_label(model, g) for g in mesh])
        fate = "left out" if meshes == "skip" else "drawn as the capsules that fit their bounding boxes"
        warnings.warn(f"mesh geoms are {fate}: {named}", UserWarning, stacklevel=3)
    if meshes == "skip":
        visible = [g for g in visible if g not in mesh]
    if len(visible) > MAX_GEOMS:
        raise ValueError(f"{len(visible)} visible geoms in groups {groups}, at most {MAX_GEOMS} can be drawn")
    return tuple(visible)


def _shapes(model: mujoco.MjModel, drawn: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes and, in the geom frame, poses of the drawn shapes: a mesh's is a capsule along its longest extent."""
    size = _float32(model.geom_size)
    pos = np.zeros((model.ngeom, 3), np.float32)
    mat = np.broadcast_to(np.eye(3, dtype=np.float32), (model.ngeom, 3, 3)).copy()
    for g in drawn:
        if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH:
            centre, half = model.geom_aabb[g, :3], model.geom_aabb[g, 3:]
            axis = int(np.argmax(half))
            radius = np.max(np.delete(half, axis))
            size[g] = radius, max(half[axis] - radius, 0.0), 0.0
            pos[g], mat[g] = centre, np.roll(np.eye(3), axis + 1, axis=0)
    return size, pos, mat


def _welded_to_world(model: mujoco.MjModel) -> np.ndarray:
    """[N] bool: neither the body nor any of its ancestors has a joint or is a mocap body."""
    welded = np.zeros(model.nbody, bool)
    welded[0] = True
    for body in range(1, model.nbody):
        is_free = model.body_jntnum[body] > 0 or model.body_mocapid[body] >= 0
        welded[body] = welded[model.body_parentid[body]] and not is_free
    return welded


def _far_depth(model: mujoco.MjModel) -> float:
    """What mujoco.Renderer reports where nothing is hit: the far clip distance after its float32 projection."""
    near, far = (np.float32(x * model.stat.extent) for x in (model.vis.map.znear, model.vis.map.zfar))
    scale = np.float32(0.5) * (far + near) / (far - near) - np.float32(0.5)
    offset = far * near / (far - near)
    return float(np.float32(offset / np.float64(scale)))


def _is_plain_camera(model: mujoco.MjModel) -> np.ndarray:
    is_perspective = np.array(model.cam_projection) == mujoco.mjtProjection.mjPROJ_PERSPECTIVE
    return (np.array(model.cam_mode) == mujoco.mjtCamLight.mjCAMLIGHT_FIXED) & is_perspective


def _label(model: mujoco.MjModel, geom: int) -> str:
    name = model.geom(geom).name
    return f"geom {name!r}" if name else f"geom {geom} of body {model.body(model.geom_bodyid[geom]).name!r}"


def _matrices(quats: np.ndarray) -> np.ndarray:
    """[K, 4] wxyz to [K, 3, 3]."""
    mats = np.zeros((len(quats), 9))
    for mat, quat in zip(mats, quats, strict=True):
        mujoco.mju_quat2Mat(mat, quat)
    return mats.reshape(-1, 3, 3).astype(np.float32)


def _float32(values: np.ndarray) -> np.ndarray:
    return np.array(values, np.float32)
