"""The renderer: rays against every drawn geom, then colour, in two passes that XLA keeps as two fused loops.

The first pass reduces each ray to one integer. A positive float's bits are ordered like the float, so the depth with
the geom id in its lowest bits is a key whose minimum is the nearest hit; carrying (depth, id) as a pair instead makes
XLA compute every intersection again for each of the two (7 times slower on a CPU). With 64 geoms the key rounds the
depth by 4e-6 of itself, with the most that a scene may have (scene.MAX_IDS) by 2.4e-4. `optimization_barrier` keeps
the passes apart. Gradients of depth are those of the exact intersections.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from simscaleai_jax.core.errors import check_names
from simscaleai_jax.sim.render.camera import Camera, check_fovy, check_resolution
from simscaleai_jax.sim.render.scene import AnyArray, RenderScene
from simscaleai_jax.sim.render.shading import Look, shade
from simscaleai_jax.sim.render.shapes import DISTANCE, MISS
from simscaleai_jax.sim.render.view import View, make_view, pixel_slopes

LOOK_KEYS = ("geom_rgb", "geom_size", "light_pos", "light_dir", "light_diffuse", "ambient")
SUPERSAMPLE = 2  # rays per pixel and side


def render(
    scene: RenderScene,
    geom_pos: Float[AnyArray, "G 3"],
    geom_mat: Float[AnyArray, "G 3 3"],
    camera: Camera,
    width: int,
    height: int,
    *,
    overrides: Mapping[str, Any] | None = None,
    rgb: bool = True,
    depth: bool = True,
    segmentation: bool = True,
    shadows: bool = False,
    ray_chunk: int | None = None,
) -> dict[str, Array]:
    """Draws one picture; pure, so jit and vmap apply. Nothing compiles anew when poses, camera or overrides change.

    Args:
      scene: from make_scene; static.
      geom_pos, geom_mat: world poses of all geoms, m (see geom_poses).
      camera: see camera_pose, look_at.
      width, height: pixels.
      overrides: any of LOOK_KEYS: geom_rgb (G, 3) in [0, 1], geom_size (G, 3) m, light_pos (L, 3) m, light_dir (L, 3),
        light_diffuse (L, 3), ambient (3,); the model's where a key is missing.
      rgb, depth, segmentation: which pictures to make.
      shadows: hard shadows of the lights that cast them; each light costs another pass over the geoms.
      ray_chunk: at most about this many rays at once (whole rows), to bound memory; None takes all.

    Returns:
      "rgb" uint8 (H, W, 3); "depth" float32 (H, W), metres along the camera's forward axis, and as in mujoco.Renderer
      the far clip distance where nothing is hit; "segmentation" int32 (H, W) geom ids, -1 where nothing is hit.

    Raises:
      ValueError: width or height below 1, fov outside (0, 180), an unknown override or one of the wrong shape.
    """
    _check(scene, geom_pos, geom_mat, camera, width, height, overrides or {})
    look = _look(scene, overrides or {})
    view = make_view(scene, geom_pos, geom_mat, look.geom_size, camera)
    draw = functools.partial(
        _draw_rows, scene, look, view, rgb=rgb, depth=depth, segmentation=segmentation, shadows=shadows
    )
    columns, rows = pixel_slopes(camera.fovy, width, height)
    if ray_chunk is None or ray_chunk >= width * height:
        return draw(columns, rows)
    count = max(1, int(ray_chunk) // width)
    padded = jnp.pad(rows, (0, -height % count)).reshape(-1, count)
    chunks = jax.lax.map(lambda part: draw(columns, part), padded)
    return {name: image.reshape(-1, *image.shape[2:])[:height] for name, image in chunks.items()}


def render_smooth(
    scene: RenderScene,
    geom_pos: Float[AnyArray, "G 3"],
    geom_mat: Float[AnyArray, "G 3 3"],
    camera: Camera,
    width: int,
    height: int,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> UInt8[Array, "H W 3"]:
    """A picture for people: RGB with shadows and smooth edges, each pixel the mean of SUPERSAMPLE x SUPERSAMPLE rays.

    Takes and raises what `render` does.
    """
    check_resolution(width, height)
    size = SUPERSAMPLE * width, SUPERSAMPLE * height
    options = {"overrides": overrides, "depth": False, "segmentation": False, "shadows": True}
    fine = render(scene, geom_pos, geom_mat, camera, *size, **options)["rgb"]
    blocks = fine.reshape(height, SUPERSAMPLE, width, SUPERSAMPLE, 3).astype(jnp.float32)
    return jnp.round(blocks.mean(axis=(1, 3))).astype(jnp.uint8)


def _draw_rows(
    scene: RenderScene, look: Look, view: View, columns: Array, rows: Array, **wanted: bool
) -> dict[str, Array]:
    """Draws the rows whose slopes are given: columns (W,) to the right, rows (H,) up, per metre of depth."""
    distance, geom = trace(scene, view, columns[None, :], rows[:, None])
    is_hit = geom >= 0
    images = {}
    if wanted["rgb"]:
        packed = shade(scene, look, view, distance, geom, columns[None, :], rows[:, None], wanted["shadows"])
        packed = jax.lax.optimization_barrier(packed)
        images["rgb"] = jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :3]
    if wanted["depth"]:
        images["depth"] = jnp.where(is_hit, distance, jnp.float32(scene.far))
    if wanted["segmentation"]:
        images["segmentation"] = geom
    return images


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def trace(scene: RenderScene, view: View, columns: Array, rows: Array) -> tuple[Array, Array]:
    """Nearest hit of each ray: depth in metres (meaningless where nothing is hit) and geom id, -1 for nothing."""
    rays = _rays(columns, rows)
    id_mask = (1 << max(1, (len(scene.kind) - 1).bit_length())) - 1
    nothing = np.float32(scene.far).view(np.int32) & ~np.int32(id_mask)
    nearest = jnp.full(rays[0].shape, nothing, jnp.int32)
    for g in scene.drawn:
        distance = DISTANCE[scene.kind[g]](view.shape(scene, g), rays)
        distance = jnp.where(distance > scene.near, distance, MISS)
        key = (jax.lax.bitcast_convert_type(distance, jnp.int32) & ~np.int32(id_mask)) | np.int32(g)
        nearest = jnp.minimum(nearest, key)
    nearest = jax.lax.optimization_barrier(nearest)
    middle = np.int32((id_mask + 1) // 2)  # of the depths that share a key
    depth = jax.lax.bitcast_convert_type((nearest & ~np.int32(id_mask)) | middle, jnp.float32)
    return depth, jnp.where(nearest < nothing, nearest & np.int32(id_mask), -1)


@trace.defjvp
def _trace_jvp(scene: RenderScene, primals, tangents):
    """Differentiates the exact distance of the geom that each ray hits; ids have no slope."""
    depth, geom = trace(scene, *primals)

    def hit_distance(view: View, columns: Array, rows: Array) -> Array:
        rays = _rays(columns, rows)
        total = jnp.zeros_like(depth)
        for g in scene.drawn:
            total = jnp.where(geom == g, DISTANCE[scene.kind[g]](view.shape(scene, g), rays), total)
        return total

    _, slope = jax.jvp(hit_distance, primals, tangents)
    return (depth, geom), (slope, np.zeros(geom.shape, jax.dtypes.float0))


def _rays(columns: Array, rows: Array) -> tuple[Array, Array, Array]:
    shape = jnp.broadcast_shapes(columns.shape, rows.shape)
    u, v = jnp.broadcast_to(columns, shape), jnp.broadcast_to(rows, shape)
    return u, v, jnp.float32(-1.0)


def _look(scene: RenderScene, overrides: Mapping[str, Any]) -> Look:
    model = {
        "geom_rgb": scene.rgb,
        "geom_size": scene.size,
        "light_pos": scene.lights.pos,
        "light_dir": scene.lights.dir,
        "light_diffuse": scene.lights.diffuse,
        "ambient": scene.lights.ambient,
    }
    return Look(**{name: jnp.asarray(overrides.get(name, value), jnp.float32) for name, value in model.items()})


def _check(scene: RenderScene, geom_pos, geom_mat, camera: Camera, width, height, overrides: Mapping[str, Any]) -> None:
    check_resolution(width, height)
    check_fovy(camera.fovy)
    num_geoms, num_lights = len(scene.kind), len(scene.lights.pos)
    if jnp.shape(geom_pos) != (num_geoms, 3) or jnp.shape(geom_mat) != (num_geoms, 3, 3):
        raise ValueError(
            f"geom poses must have shapes ({num_geoms}, 3) and ({num_geoms}, 3, 3), "
            f"got {jnp.shape(geom_pos)} and {jnp.shape(geom_mat)}"
        )
    check_names("override", overrides, LOOK_KEYS)
    for name, value in overrides.items():
        wanted = {"geom": (num_geoms, 3), "light": (num_lights, 3), "ambient": (3,)}[name.split("_")[0]]
        if jnp.shape(value) != wanted:
            raise ValueError(f"override {name!r} must have shape {wanted}, got {jnp.shape(value)}")
