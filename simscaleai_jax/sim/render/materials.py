"""Colours, checker patterns, lights and sky of a MuJoCo model, as far as the ray-caster draws them.

A point light shines in all directions (no cone, no attenuation). A light mounted on a body stays where it is at qpos0.
Textures: a built-in checker on a plane is drawn; any other texture counts with its mean colour.
"""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], np.float32)  # MuJoCo's; a geom that has it takes its material's colour
DEFAULT_SKY = ((0.72, 0.80, 0.90), (0.93, 0.95, 0.97), (0.55, 0.57, 0.60))  # zenith, horizon, ground


@dataclasses.dataclass(frozen=True)
class Checker:
    """A plane's checker pattern in the plane's frame."""

    cell: tuple[float, float]  # m, edge lengths of one cell
    even: tuple[float, ...]  # RGB
    odd: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Lights:
    """L active lights and the camera's headlight; colours in [0, 1]."""

    is_directional: tuple[bool, ...]
    casts_shadow: tuple[bool, ...]
    pos: np.ndarray  # [L, 3] m, world
    dir: np.ndarray  # [L, 3] unit, the way the light travels
    diffuse: np.ndarray  # [L, 3]
    headlight: np.ndarray  # [3] diffuse colour of the light that travels with the camera
    ambient: np.ndarray  # [3] headlight's and lights' ambient together


@dataclasses.dataclass(frozen=True)
class Sky:
    """Background colours by elevation, each [3]."""

    zenith: np.ndarray
    horizon: np.ndarray
    ground: np.ndarray


def read_colours(model: mujoco.MjModel) -> np.ndarray:
    """[G, 4] RGBA: the geom's own colour, else its material's, times the mean of the material's texture."""
    rgba = np.array(model.geom_rgba, np.float32)
    for g in range(model.ngeom):
        material = model.geom_matid[g]
        if material >= 0 and np.array_equal(rgba[g], DEFAULT_RGBA):
            rgba[g] = model.mat_rgba[material]
        texture = _texture_of(model, g)
        if texture >= 0:
            rgba[g, :3] *= _texture_image(model, texture).mean(axis=(0, 1))
    return rgba


def read_checkers(model: mujoco.MjModel, geoms: Sequence[int], rgba: np.ndarray) -> dict[int, Checker]:
    """Checker patterns of the planes among `geoms`, by geom id."""
    checkers = {}
    for g in geoms:
        texture = _texture_of(model, g)
        if model.geom_type[g] != mujoco.mjtGeom.mjGEOM_PLANE or texture < 0:
            continue
        image = _texture_image(model, texture)
        height, width = image.shape[0] // 4, image.shape[1] // 4
        quarters = [image[a * height, b * width] for a, b in ((1, 1), (1, 3), (3, 1), (3, 3))]
        if not (np.array_equal(quarters[0], quarters[3]) and np.array_equal(quarters[1], quarters[2])):
            continue
        tint = rgba[g, :3] / np.maximum(image.mean(axis=(0, 1)), 1e-6)
        even, odd = (tuple(float(c) for c in tint * colour) for colour in (quarters[0], quarters[1]))
        checkers[g] = Checker(_cell(model, g), even, odd)
    return checkers


def read_lights(model: mujoco.MjModel, data: mujoco.MjData) -> Lights:
    """Active lights; `data` is at qpos0 with mj_camlight done."""
    active = [i for i in range(model.nlight) if model.light_active[i]]
    head = model.vis.headlight
    on = 1.0 if head.active else 0.0
    return Lights(
        is_directional=tuple(bool(model.light_type[i] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL) for i in active),
        casts_shadow=tuple(bool(model.light_castshadow[i]) for i in active),
        pos=np.array(data.light_xpos[active], np.float32).reshape(-1, 3),
        dir=np.array(data.light_xdir[active], np.float32).reshape(-1, 3),
        diffuse=np.array(model.light_diffuse[active], np.float32).reshape(-1, 3),
        headlight=np.array(on * head.diffuse, np.float32),
        ambient=np.array(on * head.ambient + model.light_ambient[active].sum(axis=0), np.float32),
    )


def read_sky(model: mujoco.MjModel) -> Sky:
    """Colours of the model's skybox (top face, horizon, bottom face), or a soft daylight sky when it has none."""
    for texture in range(model.ntex):
        if model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            image = _texture_image(model, texture)
            width = image.shape[1]
            if image.shape[0] == 6 * width:  # faces: right, left, up, down, front, back
                middle = 4 * width + width // 2
                bands = image[2 * width : 3 * width], image[middle : middle + 1], image[3 * width : 4 * width]
                return Sky(*(band.mean(axis=(0, 1)) for band in bands))
            mean = image.mean(axis=(0, 1))
            return Sky(mean, mean, mean)
    return Sky(*(np.array(colour, np.float32) for colour in DEFAULT_SKY))


def _cell(model: mujoco.MjModel, plane: int) -> tuple[float, float]:
    """Edge lengths of a checker cell: `texrepeat` textures of 2 x 2 cells span two metres, or else a finite plane."""
    material = model.geom_matid[plane]
    repeat = np.maximum(model.mat_texrepeat[material], 1e-6)
    half = model.geom_size[plane, :2]
    is_uniform = bool(model.mat_texuniform[material])
    spans = [1.0 if is_uniform or edge <= 0 else edge for edge in half]
    return float(spans[0] / repeat[0]), float(spans[1] / repeat[1])


def _texture_of(model: mujoco.MjModel, geom: int) -> int:
    """Id of the colour texture of a geom's material, -1 without one."""
    material = model.geom_matid[geom]
    if material < 0:
        return -1
    roles = mujoco.mjtTextureRole
    ids = model.mat_texid[material]
    texture = ids[roles.mjTEXROLE_RGB] if ids[roles.mjTEXROLE_RGB] >= 0 else ids[roles.mjTEXROLE_RGBA]
    return int(texture)


def _texture_image(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """[height, width, 3] in [0, 1]; a single channel is repeated."""
    height, width, channels = (int(a[texture]) for a in (model.tex_height, model.tex_width, model.tex_nchannel))
    start = model.tex_adr[texture]
    image = np.array(model.tex_data[start : start + height * width * channels], np.float32)
    image = image.reshape(height, width, channels)[..., :3] / 255.0
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
