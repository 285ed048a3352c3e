"""mujoco.Renderer behind the methods of the ray-caster, for people who want MuJoCo's own picture."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import mujoco
import numpy as np

from simscaleai_jax.core.errors import ExpectedError, unknown_name
from simscaleai_jax.sim.render.camera import CAMERA_KEYS, check_fovy, check_resolution


class OpenGLRenderer:
    """One OpenGL context per picture size. `images` shows what the ray-caster shows; `picture` also shows sites."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    def images(
        self, data, camera, width, height, fovy=None, *, depth=False, segmentation=False, overrides=None
    ) -> dict[str, np.ndarray]:
        renderer = self._aimed(data, camera, width, height, fovy, overrides or {}, sites=False)
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
        return self._aimed(data, camera, width, height, fovy, overrides or {}, sites=True).render()

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _aimed(
        self,
        data: mujoco.MjData,
        camera: str,
        width: int,
        height: int,
        fovy: float | None,
        overrides: Mapping,
        sites: bool,
    ) -> mujoco.Renderer:
        """The renderer of that size, looking at the data through the camera."""
        names = [self.model.camera(i).name for i in range(self.model.ncam)]
        if camera not in names:
            raise unknown_name("camera", camera, (name for name in names if name))
        moved = [key for key in CAMERA_KEYS if key in overrides]
        if moved:
            raise ValueError(f"renderer='mujoco' draws the model's cameras where they are, got the overrides {moved}")
        option = mujoco.MjvOption()
        if not sites:
            option.sitegroup[:] = 0
        renderer = self._renderer(width, height)
        with _changed(self.model, data, names.index(camera), fovy, overrides):
            renderer.update_scene(data, camera, option)
        return renderer

    def _renderer(self, width: int, height: int) -> mujoco.Renderer:
        check_resolution(width, height)
        if (width, height) not in self._renderers:
            buffer = self.model.vis.global_
            buffer.offwidth, buffer.offheight = max(buffer.offwidth, width), max(buffer.offheight, height)
            try:
                self._renderers[width, height] = mujoco.Renderer(self.model, height, width)
            except Exception as error:
                raise ExpectedError(
                    "renderer='mujoco' found no usable OpenGL. On a machine without a display install software OpenGL "
                    "(sh scripts/install-system.sh opengl) and set MUJOCO_GL=egl; renderer='jax' needs none of it."
                ) from error
        return self._renderers[width, height]


@contextlib.contextmanager
def _changed(
    model: mujoco.MjModel, data: mujoco.MjData, camera: int, fovy: float | None, overrides: Mapping[str, Any]
) -> Iterator[None]:
    """Puts the view angle and the look overrides into model and data, and restores both afterwards."""
    check_fovy(model.cam_fovy[camera] if fovy is None else fovy)
    lit = np.flatnonzero(model.light_active)
    places = {
        "geom_rgb": (model.geom_rgba, np.s_[:, :3]),
        "geom_size": (model.geom_size, np.s_[:]),
        "light_pos": (data.light_xpos, lit),
        "light_dir": (data.light_xdir, lit),
        "light_diffuse": (model.light_diffuse, lit),
        "ambient": (model.vis.headlight.ambient, np.s_[:]),
    }
    changes = [(*places[key], value) for key, value in overrides.items() if key in places]
    if fovy is not None:
        changes.append((model.cam_fovy, np.s_[camera], fovy))
    saved = [(array, array.copy()) for array, _, _ in changes]
    try:
        for array, where, value in changes:
            array[where] = value
        yield
    finally:
        for array, old in saved:
            array[:] = old
