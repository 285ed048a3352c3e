"""What the data depend on beyond the settings that somebody typed: names stay while what they stand for changes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core import checkpoint

OWN_ARM = "panda"  # of our scenes
DIGITS = 16  # of a digest, hexadecimal


def physics_settings(env: Any) -> dict[str, str]:
    """The simulation that `env` runs on ("auto" resolved) and a digest of its compiled scene, meshes and all.

    Both are "" for an environment of somebody else's that does not show its physics.
    """
    physics = getattr(env, "physics", None)
    model = getattr(physics, "host_model", None)
    return {"impl": getattr(physics, "impl", ""), "scene_digest": "" if model is None else model_digest(model)}


def robot_attributes(env: Any) -> dict[str, str]:
    """What a file says of the robot in `env`: its type and the names of its joints (JSON); {} where it shows none."""
    robot = getattr(getattr(env, "task", None), "robot", None)
    if robot is None:
        return {}
    chosen, scene = getattr(env.config, "robot", ""), getattr(env.config, "xml_path", "")
    joints = [robot.model.joint(number).name or f"joint{number}" for number in robot.joints]
    kind = chosen or (Path(scene).stem if scene else OWN_ARM)
    return {"robot_type": kind, "joint_names": json.dumps(joints)}


def check_env_name(env: Any, env_name: str) -> None:
    """Raises a ValueError where `env` is somebody's own environment under the name of a task that it does not play.

    Its files would say that they come from that task, and be evaluated, and merged, as such.
    """
    from simscaleai_jax.sim.registry import tasks

    entry = tasks().get(env_name)
    if entry is None or (isinstance(entry.make_task, type) and isinstance(getattr(env, "task", None), entry.make_task)):
        return
    if not isinstance(entry.make_task, type) and hasattr(env, "task"):
        return  # a function makes the task, and does not say of which type
    raise ValueError(
        f"env is a {type(env).__name__} that does not play the task {env_name!r}, which the files would name as their "
        "environment; give its own name as env_name."
    )


def model_digest(model: Any) -> str:
    """Digest of an MjModel; the same wherever the same scene is compiled by the same MuJoCo."""
    import mujoco

    content = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return _digest(content.tobytes())


def checkpoint_digest(path: str | Path) -> str:
    """Digest of a checkpoint's manifest, which holds the checksums of all of its files.

    Raises:
      FileNotFoundError, ValueError: as `checkpoint.read_manifest`.
    """
    return _digest((checkpoint.resolve(path) / checkpoint.MANIFEST).read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
