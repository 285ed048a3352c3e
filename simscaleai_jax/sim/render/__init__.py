"""Batched ray-casting of MuJoCo scenes in pure JAX: RGB, depth and segmentation under jit and vmap, without OpenGL."""

from simscaleai_jax.sim.render.camera import Camera, camera_pose, look_at, make_camera
from simscaleai_jax.sim.render.raycast import LOOK_KEYS, render
from simscaleai_jax.sim.render.scene import RenderScene, geom_poses, make_scene

__all__ = [
    "LOOK_KEYS",
    "Camera",
    "RenderScene",
    "camera_pose",
    "geom_poses",
    "look_at",
    "make_camera",
    "make_scene",
    "render",
]
