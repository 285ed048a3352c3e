"""Pictures of one `mujoco.MjData`: by the ray-caster (no OpenGL), or by mujoco.Renderer behind the same methods."""

import functools
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim.render.camera import Camera, camera_pose, check_fovy, check_resolution
from simscaleai_jax.sim.render.raycast import render
from simscaleai_jax.sim.render.scene import RenderScene, geom_poses, make_scene

NO_OVERRIDES = "renderer='mujoco' draws the model as it is: set {} on the model instead"
SUPERSAMPLE = 2  # rays per pixel and side in pictures for people


class HostRenderer(Protocol):
    """What the host adapter needs of a renderer; all arrays are NumPy's."""

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
        overrides: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns "rgb" and, where asked, "depth" and "segmentation" of a named camera, as `render` has them."""
        ...

    def picture(
        self,
        data: mujoco.MjData,
        camera: str | Camera,
        width: int,
        height: int,
        fovy: float | None = None,
        overrides: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Returns the best-looking uint8 (height, width, 3) picture: smooth edges and shadows."""
        ...

    def close(self) -> None:
        """Frees what the renderer holds."""
        ...


def make_host_renderer(model: mujoco.MjModel, renderer: str = "jax") -> HostRenderer:
    """Builds the ray-caster ("jax") or MuJoCo's own renderer ("mujoco", which needs OpenGL) for one model."""
    kinds = {"jax": RayRenderer, "mujoco": OpenGLRenderer}
    if renderer not in kinds:
        raise unknown_name("renderer", renderer, kinds)
    return kinds[renderer](model)


class RayRenderer:
    """The ray-caster on host data; compiles once per picture size and is shared by all copies of a model."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.scene = make_scene(model)

    def images(
        self, data, camera, width, height, fovy=None, *, depth=False, segmentation=False, overrides=None
    ) -> dict[str, np.ndarray]:
        pose = self._camera(data, camera, fovy)
        check_resolution(width, height)
        wanted = (width, height, depth, segmentation)
        images = _draw(self.scene, *wanted, _body_poses(data), pose, dict(overrides or {}))
        return {name: np.asarray(image) for name, image in images.items()}

    def picture(self, data, camera, width, height, fovy=None, overrides=None) -> np.ndarray:
        pose = camera if isinstance(camera, Camera) else self._camera(data, camera, fovy)
        check_resolution(width, height)
        return np.asarray(_draw_smooth(self.scene, width, height, _body_poses(data), pose, dict(overrides or {})))

    def close(self) -> None:
        """Nothing is held."""

    def _camera(self, data: mujoco.MjData, name: str, fovy: float | None) -> Camera:
        return camera_pose(self.scene, name, *_body_poses(data), fovy=fovy)


class OpenGLRenderer:
    """mujoco.Renderer with a chosen field of view per picture; one OpenGL context per picture size.

    `images` shows what the ray-caster shows; `picture` also shows sites.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._no_sites = mujoco.MjvOption()
        self._no_sites.sitegroup[:] = 0

    def images(
        self, data, camera, width, height, fovy=None, *, depth=False, segmentation=False, overrides=None
    ) -> dict[str, np.ndarray]:
        if overrides:
            raise ValueError(NO_OVERRIDES.format(sorted(overrides)))
        renderer = self._renderer(width, height)
        self._aim(renderer, data, camera, fovy, self._no_sites)
        images = {"rgb": renderer.render()}
        if depth:
            renderer.enable_depth_rendering()
            images["depth"] = renderer.render()
            renderer.disable_depth_rendering()
        if segmentation:
            renderer.enable_segmentation_rendering()
            ids, kinds = np.moveaxis(renderer.render(), -1, 0)
            images["segmentation"] = np.where(kinds == int(mujoco.mjtObj.mjOBJ_GEOM), ids, -1).astype(np.int32)
            renderer.disable_segmentation_rendering()
        return images

    def picture(self, data, camera, width, height, fovy=None, overrides=None) -> np.ndarray:
        if isinstance(camera, Camera):
            raise ValueError("renderer='mujoco' draws named cameras only, got a Camera pose")
        if overrides:
            raise ValueError(NO_OVERRIDES.format(sorted(overrides)))
        renderer = self._renderer(width, height)
        self._aim(renderer, data, camera, fovy, mujoco.MjvOption())
        return renderer.render()

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _aim(self, renderer: mujoco.Renderer, data: mujoco.MjData, camera: str, fovy: float | None, option) -> None:
        names = [self.model.camera(i).name for i in range(self.model.ncam)]
        if camera not in names:
            raise unknown_name("camera", camera, (name for name in names if name))
        index = names.index(camera)
        saved = self.model.cam_fovy[index]
        check_fovy(saved if fovy is None else fovy)
        try:
            self.model.cam_fovy[index] = saved if fovy is None else fovy
            renderer.update_scene(data, camera, option)
        finally:
            self.model.cam_fovy[index] = saved

    def _renderer(self, width: int, height: int) -> mujoco.Renderer:
        check_resolution(width, height)
        if (width, height) not in self._renderers:
            buffer = self.model.vis.global_
            buffer.offwidth, buffer.offheight = max(buffer.offwidth, width), max(buffer.offheight, height)
            try:
                self._renderers[width, height] = mujoco.Renderer(self.model, height, width)
            except Exception as error:
                raise RuntimeError(
                    "renderer='mujoco' found no usable OpenGL. On a machine without a display install software OpenGL "
                    "(scripts/install-software-opengl.sh) and set MUJOCO_GL=egl; renderer='jax' needs none of it."
                ) from error
        return self._renderers[width, height]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _draw(scene: RenderScene, width, height, depth, segmentation, body_poses, camera, overrides):
    poses = geom_poses(scene, *body_poses)
    return render(scene, *poses, camera, width, height, overrides=overrides, depth=depth, segmentation=segmentation)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _draw_smooth(scene: RenderScene, width, height, body_poses, camera, overrides):
    """Averages SUPERSAMPLE x SUPERSAMPLE rays per pixel, with shadows."""
    fine = render(
        scene,
        *geom_poses(scene, *body_poses),
        camera,
        SUPERSAMPLE * width,
        SUPERSAMPLE * height,
        overrides=overrides,
        depth=False,
        segmentation=False,
        shadows=True,
    )["rgb"]
    blocks = fine.reshape(height, SUPERSAMPLE, width, SUPERSAMPLE, 3).astype(jnp.float32)
    return jnp.round(blocks.mean(axis=(1, 3))).astype(jnp.uint8)


def _body_poses(data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    return data.xpos.astype(np.float32), data.xmat.reshape(-1, 3, 3).astype(np.float32)
