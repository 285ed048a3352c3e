"""Analytic ray intersections and normals of MuJoCo's primitives, one array per coordinate.

Rays leave the origin of the frame that the shapes are given in (the camera's, or a light's) along a direction d that is
not normalised, so a distance t means the point t * d; with d = (u, v, -1) it is the depth along the forward axis.
A shape is hit where the ray enters it: from inside nothing is seen, as with OpenGL's back-face culling.

Discriminants are written with Lagrange's identity, |d|^2 r^2 - |c x d|^2, which keeps its digits in float32 where the
textbook's b^2 - 4ac cancels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

MISS = 1e30  # m; stands for no hit and stays finite in arithmetic

Plane = Float[Array | np.ndarray, "..."]  # one number per ray
Vector = tuple[Float[Array | np.ndarray, ""], ...]  # x, y and z
Rays = tuple[Plane, ...]  # x, y and z, one number per ray each


class Shape(NamedTuple):
    """One primitive in the rays' frame."""

    centre: Vector  # m
    axes: tuple[Vector, ...]  # the shape's own x, y and z axes
    size: Vector  # MuJoCo's geom_size, m
    is_endless: bool  # a plane without edges


def plane_distance(shape: Shape, rays: Rays) -> Plane:
    """A plane is seen from both sides; its size bounds it where positive."""
    normal = shape.axes[2]
    distance = dot(shape.centre, normal) / _nonzero(dot(normal, rays))
    if shape.is_endless:
        return distance
    inside = jnp.bool_(True)
    for axis, half in zip(shape.axes[:2], shape.size[:2], strict=True):
        inside &= jnp.abs(distance * dot(axis, rays) - dot(axis, shape.centre)) <= half
    return jnp.where(inside, distance, MISS)


def sphere_distance(shape: Shape, rays: Rays) -> Plane:
    """Entry into a sphere of radius size[0]."""
    return _ball_distance(shape.centre, shape.size[0], rays)


def ellipsoid_distance(shape: Shape, rays: Rays) -> Plane:
    """Entry into an ellipsoid with radii `size`: a unit sphere after scaling its own axes."""
    centre = tuple(dot(axis, shape.centre) / half for axis, half in zip(shape.axes, shape.size, strict=True))
    scaled = tuple(dot(axis, rays) / half for axis, half in zip(shape.axes, shape.size, strict=True))
    return _ball_distance(centre, 1.0, scaled)


def box_distance(shape: Shape, rays: Rays) -> Plane:
    """Entry into a box with half edges `size`, by slabs."""
    enter, leave = -MISS, MISS
    for axis, half in zip(shape.axes, shape.size, strict=True):
        low, high = _slab(dot(axis, shape.centre), half, dot(axis, rays))
        enter, leave = jnp.maximum(enter, low), jnp.minimum(leave, high)
    return jnp.where(enter < leave, enter, MISS)


def cylinder_distance(shape: Shape, rays: Rays) -> Plane:
    """Entry into a cylinder of radius size[0] and half length size[1]."""
    hit, enter, leave = _tube(shape, rays)
    axis = shape.axes[2]
    low, high = _slab(dot(axis, shape.centre), shape.size[1], dot(axis, rays))
    enter, leave = jnp.maximum(enter, low), jnp.minimum(leave, high)
    return jnp.where(hit & (enter < leave), enter, MISS)


def capsule_distance(shape: Shape, rays: Rays) -> Plane:
    """Entry into a capsule of radius size[0] and half length size[1].

    A capsule lies inside its endless tube: the ray meets the side, or else the ball where it enters the tube.
    """
    hit, enter, _ = _tube(shape, rays)
    axis, half = shape.axes[2], shape.size[1]
    height = enter * dot(axis, rays) - dot(axis, shape.centre)
    end = jnp.where(height > 0.0, half, -half)
    centre = tuple(c + end * a for c, a in zip(shape.centre, axis, strict=True))
    ball = _ball_distance(centre, shape.size[0], rays)
    return jnp.where(jnp.abs(height) <= half, jnp.where(hit, enter, MISS), ball)


def plane_normal(shape: Shape, point: Rays) -> Rays:
    """The side that the rays' origin sees."""
    side = -jnp.sign(dot(shape.centre, shape.axes[2]))
    zero = jnp.zeros_like(point[0])
    return tuple(zero + side * a for a in shape.axes[2])


def sphere_normal(shape: Shape, point: Rays) -> Rays:
    """Not normalised."""
    return tuple(p - c for p, c in zip(point, shape.centre, strict=True))


def ellipsoid_normal(shape: Shape, point: Rays) -> Rays:
    """Gradient of the implicit function; not normalised."""
    local = _local(shape, point)
    scaled = [p / (half * half) for p, half in zip(local, shape.size, strict=True)]
    x, y, z = shape.axes
    return tuple(dot(scaled, (x[i], y[i], z[i])) for i in range(3))


def box_normal(shape: Shape, point: Rays) -> Rays:
    """Axis of the face that the point is nearest to, relative to the half edges."""
    x, y, z = (p / half for p, half in zip(_local(shape, point), shape.size, strict=True))
    is_x = (jnp.abs(x) >= jnp.abs(y)) & (jnp.abs(x) >= jnp.abs(z))
    is_y = jnp.abs(y) >= jnp.abs(z)
    side = jnp.sign(jnp.where(is_x, x, jnp.where(is_y, y, z)))
    ax, ay, az = shape.axes
    return tuple(side * jnp.where(is_x, ax[i], jnp.where(is_y, ay[i], az[i])) for i in range(3))


def cylinder_normal(shape: Shape, point: Rays) -> Rays:
    """Radial on the side, along the axis on the caps; not normalised."""
    height, axis = _height(shape, point), shape.axes[2]
    on_cap = jnp.abs(height) > shape.size[1] * 0.999
    side = jnp.sign(height)
    return tuple(
        jnp.where(on_cap, side * a, p - c - height * a) for p, c, a in zip(point, shape.centre, axis, strict=True)
    )


def capsule_normal(shape: Shape, point: Rays) -> Rays:
    """From the nearest point of the axis segment; not normalised."""
    height = jnp.clip(_height(shape, point), -shape.size[1], shape.size[1])
    return tuple(p - c - height * a for p, c, a in zip(point, shape.centre, shape.axes[2], strict=True))


DISTANCE: dict[str, Callable[[Shape, Rays], Plane]] = {
    "plane": plane_distance,
    "sphere": sphere_distance,
    "capsule": capsule_distance,
    "cylinder": cylinder_distance,
    "box": box_distance,
    "ellipsoid": ellipsoid_distance,
}
NORMAL: dict[str, Callable[[Shape, Rays], Rays]] = {
    "plane": plane_normal,
    "sphere": sphere_normal,
    "capsule": capsule_normal,
    "cylinder": cylinder_normal,
    "box": box_normal,
    "ellipsoid": ellipsoid_normal,
}


def dot(a, b):
    """Inner product of two vectors given by coordinate."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a, b):
    """Cross product of two vectors given by coordinate."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _ball_distance(centre, radius, rays: Rays) -> Plane:
    square = dot(rays, rays)
    moment = cross(centre, rays)
    room = square * (radius * radius) - dot(moment, moment)
    entry = (dot(centre, rays) - _root(room)) / square
    return jnp.where(room > 0.0, entry, MISS)


def _tube(shape: Shape, rays: Rays) -> tuple[Bool[Array, "..."], Plane, Plane]:
    """Hit mask, entry and exit of the endless tube of radius size[0] around the shape's z axis."""
    ax, ay, _ = shape.axes
    cx, cy = dot(ax, shape.centre), dot(ay, shape.centre)
    dx, dy = dot(ax, rays), dot(ay, rays)
    square = jnp.maximum(dx * dx + dy * dy, 1e-12)
    moment = cx * dy - cy * dx
    room = square * (shape.size[0] * shape.size[0]) - moment * moment
    root, along, inverse = _root(room), cx * dx + cy * dy, 1.0 / square
    return room > 0.0, (along - root) * inverse, (along + root) * inverse


def _slab(centre, half, slope: Plane) -> tuple[Plane, Plane]:
    """Entry into and exit from |x| <= half around `centre`, for rays that advance `slope` per unit distance."""
    inverse = 1.0 / _nonzero(slope)
    middle, width = centre * inverse, half * jnp.abs(inverse)
    return middle - width, middle + width


def _local(shape: Shape, point: Rays) -> Rays:
    offset = tuple(p - c for p, c in zip(point, shape.centre, strict=True))
    return tuple(dot(axis, offset) for axis in shape.axes)


def _height(shape: Shape, point: Rays) -> Plane:
    return dot(shape.axes[2], point) - dot(shape.axes[2], shape.centre)


def _root(x: Plane) -> Plane:
    """Square root where positive, one elsewhere: no infinite slope then turns up in the other branch's gradient."""
    return jnp.sqrt(jnp.where(x > 0.0, x, 1.0))


def _nonzero(x: Plane) -> Plane:
    return jnp.where(jnp.abs(x) < 1e-9, 1e-9, x)
