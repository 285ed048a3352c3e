"""Compiled MJCF models: loading one, its home pose, its table, its cameras."""

from collections.abc import Sequence
from pathlib import Path

import mujoco

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.sim.config import CameraConfig


def load_model(path: str, dt: float) -> mujoco.MjModel:
    """Compile an MJCF file with physics step `dt` seconds.

    Raises:
      FileNotFoundError, OSError, ValueError: no such file, one that cannot be read, a folder or no MJCF; each names it.
    """
    if Path(path).is_dir():
        files = sorted(file.name for file in Path(path).glob("*.xml"))
        raise ValueError(f"wanted an MJCF file, got the folder {str(path)!r}; it holds {', '.join(files) or 'no .xml'}")
    try:
        with open(path, "rb"):
            pass
        spec = mujoco.MjSpec.from_file(str(path))
        spec.option.timestep = dt
        return spec.compile()
    except FileNotFoundError:
        raise FileNotFoundError(f"no MJCF file at {path!r}") from None
    except OSError as error:
        raise OSError(f"cannot read the MJCF file {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not a valid MJCF model: {error}") from error


def check_cameras(model: mujoco.MjModel, cameras: Sequence[CameraConfig]) -> None:
    """ValueError for a camera that the model does not have (the message lists those it has) and for one named twice."""
    names = [model.camera(i).name for i in range(model.ncam)]
    wanted = [camera.name for camera in cameras]
    for name in wanted:
        if name not in names:
            raise unknown_name("camera", name, names)
        if wanted.count(name) > 1:
            raise ValueError(f"camera {name!r} is configured twice; its pictures could not be told apart")


def home_data(model: mujoco.MjModel) -> mujoco.MjData:
    """The model at its keyframe `home`, or as it is written where there is none."""
    data = mujoco.MjData(model)
    home = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_KEY, "home")
    if home >= 0:
        mujoco.mj_resetDataKeyframe(model, data, home)
    mujoco.mj_forward(model, data)
    return data


def table_surface(model: mujoco.MjModel, table: int) -> float:
    """Height of the table's highest box face above its body, 0 without boxes."""
    boxes = [
        g
        for g in range(model.ngeom)
        if table >= 0 and model.geom_bodyid[g] == table and model.geom_type[g] == mujoco.mjtGeom.mjGEOM_BOX
    ]
    return max((float(model.geom_pos[g, 2] + model.geom_size[g, 2]) for g in boxes), default=0.0)
