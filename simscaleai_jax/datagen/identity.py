"""What the data depend on beyond the settings that somebody typed: names stay while what they stand for changes."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core import checkpoint

DIGITS = 16  # of a digest, hexadecimal


def physics_settings(env: Any) -> dict[str, str]:
    """The simulation that `env` runs on ("auto" resolved) and a digest of its compiled scene, meshes and all.

    Both are "" for an environment of somebody else's that does not show its physics.
    """
    physics = getattr(env, "physics", None)
    model = getattr(physics, "host_model", None)
    return {"impl": getattr(physics, "impl", ""), "scene_digest": "" if model is None else model_digest(model)}


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
