"""Cameras of an environment: which there are, what they see in a batch, and what they see of MuJoCo's own data."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim.config import CameraConfig
from simscaleai_jax.sim.render import LOOK_KEYS, RenderScene, camera_pose, geom_poses, make_scene, render


def image_key(index: int, camera: CameraConfig) -> str:
    """Observation key of the n-th camera: `image` for the first, `image_<name>` for the others."""
    return "image" if index == 0 else f"image_{camera.name}"


def check_cameras(model: mujoco.MjModel, cameras: Sequence[CameraConfig]) -> None:
    """ValueError for a camera that the model does not have (the message lists those it has)."""
    names = [model.camera(i).name for i in range(model.ncam)]
    for camera in cameras:
        if camera.name not in names:
            raise unknown_name("camera", camera.name, names)


def make_camera_fn(
    model: mujoco.MjModel, cameras: Sequence[CameraConfig]
) -> Callable[[Any, dict[str, Array]], dict[str, Array]]:
    """A pure `(data, overrides) -> {"image": uint8 (H, W, 3), ...}` for the functional environment."""
    check_cameras(model, cameras)
    scene = make_scene(model)

    def camera_fn(data: Any, overrides: dict[str, Array]) -> dict[str, Array]:
        pictures = {}
        for index, camera in enumerate(cameras):
            picture = look(scene, camera, data.xpos, data.xmat, overrides, depth=False, segmentation=False)
            pictures[image_key(index, camera)] = picture["rgb"]
        return pictures

    return camera_fn


def look(
    scene: RenderScene, camera: CameraConfig, body_pos: Any, body_mat: Any, overrides: dict[str, Array], **pictures: bool
) -> dict[str, Array]:
    """Render one configured camera; randomized appearance and camera pose are read from `overrides`."""
    body_mat = jnp.asarray(body_mat).reshape(-1, 3, 3)
    pose = camera_pose(scene, camera.name, body_pos, body_mat, camera.fov)
    if "camera_offset" in overrides:
        pose = pose.replace(pos=pose.pos + overrides["camera_offset"])
    geoms = geom_poses(scene, body_pos, body_mat)
    seen = {name: overrides[name] for name in LOOK_KEYS if name in overrides}
    return render(scene, *geoms, pose, camera.width, camera.height, overrides=seen, **pictures)


class HostCameras:
    """Pictures of a MuJoCo model and its data, by the ray-caster or by MuJoCo's own renderer (which needs OpenGL)."""

    def __init__(self, model: mujoco.MjModel, renderer: str) -> None:
        self._model = model
        self._renderer = renderer
        self._scene = make_scene(model) if renderer == "jax" else None
        self._compiled: dict[tuple, Any] = {}

    def picture(
        self, data: mujoco.MjData, camera: CameraConfig, overrides: dict[str, Array], depth: bool, segmentation: bool
    ) -> dict[str, np.ndarray]:
        """Render `rgb` uint8 (H, W, 3) and, when asked, `depth` float32 (H, W) m and `segmentation` int32 (H, W)."""
        if self._renderer == "mujoco":
            return self._mujoco_picture(data, camera, depth, segmentation)
        key = (camera.name, camera.width, camera.height, camera.fov, depth, segmentation)
        if key not in self._compiled:
            scene = self._scene
            self._compiled[key] = jax.jit(
                lambda pos, mat, look_of: look(scene, camera, pos, mat, look_of, depth=depth, segmentation=segmentation)
            )
        pos, mat = np.asarray(data.xpos, np.float32), np.asarray(data.xmat, np.float32)
        return {name: np.asarray(value) for name, value in self._compiled[key](pos, mat, overrides).items()}

    def _mujoco_picture(
        self, data: mujoco.MjData, camera: CameraConfig, depth: bool, segmentation: bool
    ) -> dict[str, np.ndarray]:
        size = (camera.height, camera.width)
        if size not in self._compiled:
            self._compiled[size] = mujoco.Renderer(self._model, *size)
        renderer = self._compiled[size]
        index = self._model.camera(camera.name).id
        self._model.cam_fovy[index] = camera.fov
        renderer.update_scene(data, camera=index)
        pictures = {"rgb": renderer.render().copy()}
        if depth:
            renderer.enable_depth_rendering()
            pictures["depth"] = renderer.render().copy()
            renderer.disable_depth_rendering()
        if segmentation:
            renderer.enable_segmentation_rendering()
            ids, kinds = np.moveaxis(renderer.render(), -1, 0)
            pictures["segmentation"] = np.where(kinds == mujoco.mjtObj.mjOBJ_GEOM, ids, -1).astype(np.int32)
            renderer.disable_segmentation_rendering()
        return pictures

    def close(self) -> None:
        """Free MuJoCo's renderers."""
        for renderer in self._compiled.values():
            if isinstance(renderer, mujoco.Renderer):
                renderer.close()
        self._compiled.clear()
