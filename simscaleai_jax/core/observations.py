"""The one rule by which an observation dict becomes a state vector.

Keys that name pictures are never part of the state: those with a word `image`, `rgb`, `depth` or `segmentation`
(`image`, `image_wrist_cam`, robomimic's `agentview_image`), or that start with such a word (`image2`).
`obs["state"]` is the state where it exists; otherwise every other key, concatenated in sorted order.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

COLOUR_WORDS = ("image", "rgb")
PICTURE_WORDS = (*COLOUR_WORDS, "depth", "segmentation")


def is_image_key(name: str) -> bool:
    """Whether an observation key holds a picture."""
    return _has_word(name, PICTURE_WORDS)


def is_colour_key(name: str) -> bool:
    """Whether an observation key holds a colour picture, neither depth nor segmentation."""
    return _has_word(name, COLOUR_WORDS) and not _has_word(name, ("depth", "segmentation"))


def image_keys(names: Iterable[str]) -> list[str]:
    """Keys that hold pictures, sorted."""
    return sorted(name for name in names if is_image_key(name))


def colour_keys(names: Iterable[str]) -> list[str]:
    """Keys that hold colour pictures, sorted."""
    return sorted(name for name in names if is_colour_key(name))


def state_keys(names: Iterable[str]) -> list[str]:
    """Keys whose values make up the state vector, in the order of their concatenation."""
    names = list(names)
    return ["state"] if "state" in names else sorted(name for name in names if not is_image_key(name))


def state_vector(obs: Mapping[str, Any]) -> Any:
    """Concatenates the state keys of `obs` along the last axis: (..., S), float32.

    NumPy observations give a NumPy array, anything else a JAX array, so that host code never waits for a device.

    Raises:
      ValueError: no key of `obs` holds state.
    """
    names = state_keys(obs)
    if not names:
        raise ValueError(f"No state in the observation: its keys are {sorted(obs)}, all of them pictures.")
    values = [obs[name] for name in names]
    if all(isinstance(value, np.ndarray | np.generic | float | int) for value in values):
        arrays = [np.atleast_1d(np.asarray(value, np.float32)) for value in values]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
    import jax.numpy as jnp

    arrays = [jnp.atleast_1d(jnp.asarray(value, jnp.float32)) for value in values]
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=-1)


def state_size(spec: Mapping[str, Any]) -> int:
    """Length S of the state vector of one unbatched observation, from its arrays or shape structs."""
    return int(sum(np.prod(spec[name].shape, dtype=int) for name in state_keys(spec)))


def _has_word(name: str, words: tuple[str, ...]) -> bool:
    return name.startswith(words) or not set(words).isdisjoint(name.split("_"))
