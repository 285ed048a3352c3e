"""Colour of each ray: Lambert's law under the lights and the camera's headlight, checker floors, sky, hard shadows."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from simscaleai_jax.sim.render.materials import Checker
from simscaleai_jax.sim.render.scene import RenderScene
from simscaleai_jax.sim.render.shapes import DISTANCE, NORMAL, Rays, Shape, dot
from simscaleai_jax.sim.render.view import View, vector

SUN_DISTANCE = 20.0  # m; shadows of a directional light are cast from a point this far away
SHADOW_MARGIN = 2e-3  # of the distance to the light; keeps a surface from shadowing itself


@struct.dataclass
class Look:
    """How the scene looks, all of it free to change without compiling; G geoms, L lights, colours in [0, 1]."""

    geom_rgb: Float[Array, "G 3"]
    geom_size: Float[Array, "G 3"]  # m
    light_pos: Float[Array, "L 3"]  # m, world
    light_dir: Float[Array, "L 3"]  # the way the light travels
    light_diffuse: Float[Array, "L 3"]
    ambient: Float[Array, "3"]


def shade(
    scene: RenderScene, look: Look, view: View, depth: Array, geom: Array, columns: Array, rows: Array, shadows: bool
) -> Array:
    """Returns red | green << 8 | blue << 16 per ray as uint32: one result, so that the shading is one loop."""
    rays = (jnp.broadcast_to(columns, depth.shape), jnp.broadcast_to(rows, depth.shape), jnp.float32(-1.0))
    point = tuple(depth * r for r in rays)
    normal, colour = _surface(scene, look, view, geom, point)
    light = _light(scene, look, view, point, normal, shadows)
    sky = _sky(scene, view, rays)
    haze = _haze(scene, geom, depth)
    packed = jnp.zeros(depth.shape, jnp.uint32)
    for channel in range(3):
        lit = jnp.minimum(colour[channel] * light[channel], 1.0)
        lit = lit + haze * (float(scene.sky.horizon[channel]) - lit)
        value = jnp.where(geom >= 0, lit, sky[channel])
        packed |= (jnp.clip(value, 0.0, 1.0) * 255.0 + 0.5).astype(jnp.uint32) << (8 * channel)
    return packed


def _surface(scene: RenderScene, look: Look, view: View, geom: Array, point: Rays) -> tuple[Rays, Rays]:
    """Unit normal and colour of the hit geom, chosen among the geoms without a gather."""
    zero = jnp.zeros_like(point[0])
    normal, colour = (zero, zero, zero), (zero, zero, zero)
    for g in scene.drawn:
        is_this = geom == g
        shape = view.shape(scene, g)
        rgb = vector(look.geom_rgb[g])
        if g in scene.checkers:
            rgb = _checker_colour(scene.checkers[g], scene.rgb[g], shape, point, rgb)
        candidate = NORMAL[scene.kind[g]](shape, point)
        normal = tuple(jnp.where(is_this, new, old) for new, old in zip(candidate, normal, strict=True))
        colour = tuple(jnp.where(is_this, new, old) for new, old in zip(rgb, colour, strict=True))
    scale = jax.lax.rsqrt(dot(normal, normal) + 1e-20)
    return tuple(n * scale for n in normal), colour


def _light(scene: RenderScene, look: Look, view: View, point: Rays, normal: Rays, shadows: bool) -> Rays:
    """Light that reaches each point, per channel."""
    facing = jnp.maximum(-dot(point, normal), 0.0) * jax.lax.rsqrt(dot(point, point) + 1e-20)
    total = [look.ambient[c] + float(scene.lights.headlight[c]) * facing for c in range(3)]
    for i, is_directional in enumerate(scene.lights.is_directional):
        direction = view.to_camera(look.light_dir[i])
        if is_directional:
            lambert = jnp.maximum(-dot(direction, normal), 0.0) * jax.lax.rsqrt(dot(direction, direction) + 1e-20)
            source = tuple(-SUN_DISTANCE * d for d in direction)
        else:
            source = view.to_camera(look.light_pos[i] - view.camera.pos)
            offset = tuple(s - p for s, p in zip(source, point, strict=True))
            lambert = jnp.maximum(dot(offset, normal), 0.0) * jax.lax.rsqrt(dot(offset, offset) + 1e-20)
        if shadows and scene.lights.casts_shadow[i]:
            lambert = jnp.where(_is_shadowed(scene, view, source, point), 0.0, lambert)
        total = [t + look.light_diffuse[i, c] * lambert for c, t in enumerate(total)]
    return tuple(total)


def _is_shadowed(scene: RenderScene, view: View, source, point: Rays) -> Array:
    """Whether some geom lies between the light at `source` and the point: rays are cast from the light."""
    rays = tuple(p - s for p, s in zip(point, source, strict=True))
    nearest = jnp.ones_like(point[0])
    for g in scene.drawn:
        if scene.kind[g] == "plane":
            continue
        shape = view.shape(scene, g)
        shape = shape._replace(centre=tuple(c - s for c, s in zip(shape.centre, source, strict=True)))
        distance = DISTANCE[scene.kind[g]](shape, rays)
        nearest = jnp.where(distance > 0.0, jnp.minimum(nearest, distance), nearest)
    return nearest < 1.0 - SHADOW_MARGIN


def _checker_colour(checker: Checker, mean, shape: Shape, point: Rays, rgb) -> Rays:
    """The cells' colours, scaled as an override scales the plane's own colour."""
    offset = tuple(p - c for p, c in zip(point, shape.centre, strict=True))
    cells = [jnp.floor(dot(axis, offset) / edge) for axis, edge in zip(shape.axes[:2], checker.cell, strict=True)]
    half = 0.5 * (cells[0] + cells[1])
    is_odd = half != jnp.floor(half)
    tints = [rgb[c] / max(float(mean[c]), 1e-6) for c in range(3)]
    return tuple(tints[c] * jnp.where(is_odd, checker.odd[c], checker.even[c]) for c in range(3))


def _sky(scene: RenderScene, view: View, rays: Rays) -> Rays:
    """Blend from the horizon to the zenith above and to the ground colour below, by the ray's elevation."""
    up = vector(view.camera.mat[2])
    elevation = dot(up, rays) * jax.lax.rsqrt(dot(rays, rays))
    above, below = jnp.clip(elevation / 0.6, 0.0, 1.0), jnp.clip(-elevation / 0.3, 0.0, 1.0)
    zenith, horizon, ground = scene.sky.zenith, scene.sky.horizon, scene.sky.ground
    return tuple(
        float(horizon[c]) + float(zenith[c] - horizon[c]) * above + float(ground[c] - horizon[c]) * below
        for c in range(3)
    )


def _haze(scene: RenderScene, geom: Array, depth: Array) -> Array:
    """Endless planes fade into the horizon over the model's fog range."""
    endless = [g for g in scene.drawn if scene.kind[g] == "plane" and (scene.size[g, :2] <= 0).all()]
    start, end = scene.fog
    haze = jnp.zeros_like(depth)
    for g in endless:
        haze = jnp.where(geom == g, jnp.clip((depth - start) / (end - start), 0.0, 1.0), haze)
    return haze
