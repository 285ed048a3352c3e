"""Pictures of one `mujoco.MjData`: by the ray-caster (no OpenGL), or by mujoco.Renderer behind the same methods."""

import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import mujoco
import numpy as np

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim.render.camera import CAMERA_KEYS, Camera, check_fovy, check_resolution, find_camera, move_camera
from simscaleai_jax.sim.render.materials import read_colours
from simscaleai_jax.sim.render.raycast import LOOK_KEYS, render, render_smooth
from simscaleai_jax.sim.render.scene import RenderScene, make_scene


@runtime_checkable
class HostRenderer(Protocol):
    """What the host adapter needs of a renderer; all arrays are NumPy's.

    `fovy` in degrees wins over the model's. Of `overrides` the keys in LOOK_KEYS and CAMERA_KEYS count.
    """

    def images(
        self,
        data: mujoco.MjData,
        camera: str,
        width: int,
        height: int,
        fovy: float | None = None,
        *,
        depth: bool = False,
        segmentation: bool = False,
        overrides: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns "rgb" and, where asked, "depth" and "segmentation" of a named camera, as `render` has them."""
        ...

    def picture(
        self,
        data: mujoco.MjData,
        camera: str,
        width: int,
        height: int,
        fovy: float | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """Returns a picture for people, uint8 (height, width, 3): smooth edges and shadows."""
        ...

    def close(self) -> None:
        """Frees what the renderer holds."""
        ...


def make_host_renderer(model: mujoco.MjModel, renderer: str = "jax") -> HostRenderer:
    """Builds the ray-caster ("jax") or MuJoCo's own renderer ("mujoco", which needs OpenGL) for one model."""
    if renderer == "jax":
        return RayRenderer(model)
    if renderer == "mujoco":
        from simscaleai_jax.sim.render.opengl import OpenGLRenderer

        return OpenGLRenderer(model)
    raise unknown_name("renderer", renderer, ("jax", "mujoco"))


class RayRenderer:
    """The ray-caster on host data.

    Poses, sizes, colours, lights and cameras are read from model and data at every call, so that changes of the model
    show; only which geoms, lights and textures there are is fixed. A picture size compiles once for all copies of a
    model.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self.scene = make_scene(model)
        self._lights = np.flatnonzero(model.light_active)
        self._is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
        self._colours: tuple[bytes, np.ndarray] = (b"", self.scene.rgb)

    def images(
        self, data, camera, width, height, fovy=None, *, depth=False, segmentation=False, overrides=None
    ) -> dict[str, np.ndarray]:
        check_resolution(width, height)
        inputs = self._inputs(data, camera, fovy, overrides or {})
        images = _draw(self.scene, width, height, depth, segmentation, *inputs)
        return {name: np.asarray(image) for name, image in images.items()}

    def picture(self, data, camera, width, height, fovy=None, overrides=None) -> np.ndarray:
        check_resolution(width, height)
        return np.asarray(_draw_smooth(self.scene, width, height, *self._inputs(data, camera, fovy, overrides or {})))

    def close(self) -> None:
        """Nothing is held."""

    def _inputs(self, data: mujoco.MjData, camera: str, fovy: float | None, overrides: Mapping[str, Any]):
        """Geom poses, camera and look of this moment."""
        model, lights = self.model, self._lights
        index = find_camera(self.scene, camera)
        angle = float(model.cam_fovy[index]) if fovy is None else fovy
        check_fovy(angle)
        pose = Camera(
            _float32(data.cam_xpos[index]), _float32(data.cam_xmat[index].reshape(3, 3)), np.asarray(angle, np.float32)
        )
        look = {
            "geom_rgb": self._geom_rgb(),
            "geom_size": np.where(self._is_mesh[:, None], self.scene.size, _float32(model.geom_size)),
            "light_pos": _float32(data.light_xpos[lights]),
            "light_dir": _float32(data.light_xdir[lights]),
            "light_diffuse": _float32(model.light_diffuse[lights]),
        }
        look.update({key: value for key, value in overrides.items() if key in (*LOOK_KEYS, *CAMERA_KEYS)})
        return _float32(data.geom_xpos), _float32(data.geom_xmat).reshape(-1, 3, 3), pose, look

    def _geom_rgb(self) -> np.ndarray:
        """Colours of the model as it is now; worked out again only when they change."""
        content = self.model.geom_rgba.tobytes() + self.model.mat_rgba.tobytes()
        if content != self._colours[0]:
            self._colours = content, read_colours(self.model)[:, :3]
        return self._colours[1]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _draw(scene: RenderScene, width, height, depth, segmentation, geom_pos, geom_mat, camera, look):
    camera, look = _aimed(camera, look)
    return render(
        scene, geom_pos, geom_mat, camera, width, height, overrides=look, depth=depth, segmentation=segmentation
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _draw_smooth(scene: RenderScene, width, height, geom_pos, geom_mat, camera, look):
    camera, look = _aimed(camera, look)
    return render_smooth(scene, geom_pos, geom_mat, camera, width, height, overrides=look)


def _aimed(camera: Camera, look: Mapping[str, Any]) -> tuple[Camera, dict[str, Any]]:
    return move_camera(camera, look), {key: value for key, value in look.items() if key in LOOK_KEYS}


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
