"""Cameras of an environment: which there are, what they see in a batch, and what they see of MuJoCo's own data."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Array

from simscaleai_jax.sim.config import CameraConfig
from simscaleai_jax.sim.render import (
    LOOK_KEYS,
    camera_pose,
    find_camera,
    geom_poses,
    make_host_renderer,
    make_scene,
    move_camera,
    render,
    render_smooth,
)
from simscaleai_jax.sim.robot import check_cameras

PORTRAIT_SIZE = (480, 360)  # pixels of the pictures that people look at


def portrait_camera(model: mujoco.MjModel) -> str:
    """The camera that people want to see through: `front_cam` where there is one, else the first.

    Raises:
      ValueError: the scene has no camera.
    """
    names = [model.camera(i).name for i in range(model.ncam)]
    if not names:
        raise ValueError("the scene has no camera to draw from; give it one, <camera name='front_cam' .../>")
    return "front_cam" if "front_cam" in names else names[0]


def image_key(index: int, camera: CameraConfig) -> str:
    """Observation key of the n-th camera: `image` for the first, `image_<name>` for the others."""
    return "image" if index == 0 else f"image_{camera.name}"


def make_camera_fn(model: mujoco.MjModel, cameras: Sequence[CameraConfig]) -> "CameraFn":
    """The cameras of a functional environment; ValueError for a scene or camera that cannot be drawn."""
    return CameraFn(model, cameras)


class CameraFn:
    """The cameras of a functional environment: a pure `(data, overrides) -> {"image": uint8 (H, W, 3), ...}`.

    `data` carries body poses `xpos` (N, 3) m and `xmat`; appearance and camera pose are read from `overrides` where
    randomized. Pickled, it is built anew from its model.
    """

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[CameraConfig]) -> None:
        """A scene or camera that cannot be drawn is a ValueError now, before anything is compiled."""
        check_cameras(model, cameras)
        self._model, self._cameras = model, [dataclasses.replace(camera) for camera in cameras]
        self._scene = make_scene(model)
        still = np.zeros((model.nbody, 3), np.float32), np.zeros((model.nbody, 3, 3), np.float32)
        for camera in cameras:
            camera_pose(self._scene, camera.name, *still)

    def __reduce__(self) -> tuple[Any, ...]:
        return CameraFn, (self._model, self._cameras)

    def __call__(self, data: Any, overrides: Mapping[str, Array]) -> dict[str, Array]:
        scene, bodies = self._scene, (data.xpos, data.xmat.reshape(-1, 3, 3))
        geoms = geom_poses(scene, *bodies, overrides.get("geom_pos"))
        seen = {key: overrides[key] for key in LOOK_KEYS if key in overrides}
        images = {}
        for index, camera in enumerate(self._cameras):
            pose = move_camera(camera_pose(scene, camera.name, *bodies, camera.fov), overrides)
            picture = render(
                scene, *geoms, pose, camera.width, camera.height, overrides=seen, depth=False, segmentation=False
            )
            images[image_key(index, camera)] = picture["rgb"]
        return images


def make_portrait_fn(
    model: mujoco.MjModel, camera_name: str, width: int = PORTRAIT_SIZE[0], height: int = PORTRAIT_SIZE[1]
) -> Callable[[Any, Mapping[str, Array]], Array]:
    """A pure `(data, overrides) -> uint8 (height, width, 3)`: frames for people, with shadows and smooth edges."""
    scene = make_scene(model)
    find_camera(scene, camera_name)

    def portrait_fn(data: Any, overrides: Mapping[str, Array]) -> Array:
        bodies = data.xpos, data.xmat.reshape(-1, 3, 3)
        pose = move_camera(camera_pose(scene, camera_name, *bodies), overrides)
        seen = {key: overrides[key] for key in LOOK_KEYS if key in overrides}
        geoms = geom_poses(scene, *bodies, overrides.get("geom_pos"))
        return render_smooth(scene, *geoms, pose, width, height, overrides=seen)

    return portrait_fn


class HostCameras:
    """Pictures of a MuJoCo model and its data, by the ray-caster or by MuJoCo's own renderer (which needs OpenGL)."""

    def __init__(self, model: mujoco.MjModel, renderer: str) -> None:
        self._renderer = make_host_renderer(model, renderer)

    def picture(
        self, data: mujoco.MjData, camera: CameraConfig, overrides: Mapping[str, Any], depth: bool, segmentation: bool
    ) -> dict[str, np.ndarray]:
        """Render `rgb` uint8 (H, W, 3) and, when asked, `depth` float32 (H, W) m and `segmentation` int32 (H, W)."""
        return self._renderer.images(
            data,
            camera.name,
            camera.width,
            camera.height,
            camera.fov,
            depth=depth,
            segmentation=segmentation,
            overrides=overrides,
        )

    def portrait(self, data: mujoco.MjData, camera_name: str, overrides: Mapping[str, Any]) -> np.ndarray:
        """A frame for people, uint8 (360, 480, 3), with smooth edges and shadows, at the model's field of view."""
        return self._renderer.picture(data, camera_name, *PORTRAIT_SIZE, overrides=overrides)

    def close(self) -> None:
        """Free MuJoCo's renderers."""
        self._renderer.close()
