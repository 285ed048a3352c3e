"""Batched ray-casting of MuJoCo scenes in pure JAX: RGB, depth and segmentation under jit and vmap, without OpenGL."""

from simscaleai_jax.sim.render.camera import (
    CAMERA_KEYS,
    Camera,
    camera_pose,
    find_camera,
    look_at,
    make_camera,
    move_camera,
)
from simscaleai_jax.sim.render.host import HostRenderer, make_host_renderer
from simscaleai_jax.sim.render.raycast import LOOK_KEYS, render, render_smooth
from simscaleai_jax.sim.render.scene import RenderScene, geom_poses, make_scene

__all__ = [
    "CAMERA_KEYS",
    "LOOK_KEYS",
    "Camera",
    "HostRenderer",
    "RenderScene",
    "camera_pose",
    "find_camera",
    "geom_poses",
    "look_at",
    "make_camera",
    "make_host_renderer",
    "make_scene",
    "move_camera",
    "render",
    "render_smooth",
]
