"""The one rule by which an observation dict becomes a state vector.

Pictures are never part of the state. Their keys have a word `image`, `rgb`, `depth` or `segmentation` (`image`,
`image_wrist_cam`, robomimic's `agentview_image`) or start with such a word (`image2`), and their values have more axes
than a vector: where shapes are known, a `depth_error` of one number is state. Leading axes (time, batch) are those of
the observation's other keys. Nor is the instruction, `language`: token ids are read by models of language alone.
`obs["state"]` is the state where it exists; otherwise every other key, concatenated in sorted order.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

COLOUR_WORDS = ("image", "rgb")
OWN_STATES = ("joint", "ee", "gripper", "touch", "robot")  # first words of what a robot's own sensors tell
LANGUAGE = "language"  # the key of an instruction's token ids
PICTURE_WORDS = (*COLOUR_WORDS, "depth", "segmentation")


def is_image_key(name: str) -> bool:
    """Whether an observation key is a picture's by name, where nothing is known of its shape."""
    return _has_word(name, PICTURE_WORDS)


def is_colour_key(name: str) -> bool:
    """Whether an observation key holds a colour picture, neither depth nor segmentation."""
    return _has_word(name, COLOUR_WORDS) and not _has_word(name, ("depth", "segmentation"))


def is_own_state(name: str) -> bool:
    """Whether a state is what a real robot's own sensors tell: nothing of objects, targets or the way to them."""
    words = name.split("_")
    return words[0].rstrip("0123456789") in OWN_STATES and "to" not in words


def image_keys(observations: Iterable[str]) -> list[str]:
    """Keys that hold pictures, sorted; `observations` maps them to arrays or their specs, or is names alone."""
    return pictures_among(_ranks(observations))


def colour_keys(observations: Iterable[str]) -> list[str]:
    """Keys that hold colour pictures, sorted."""
    return [name for name in image_keys(observations) if is_colour_key(name)]


def state_keys(observations: Iterable[str], keys: Iterable[str] = ()) -> list[str]:
    """Keys whose values make up the state vector, in the order of their concatenation; of `keys` alone where some are
    given.
    """
    observations = observations if isinstance(observations, Mapping) else list(observations)
    pictures = image_keys(observations)
    names = sorted(name for name in (keys or observations) if name not in pictures and name != LANGUAGE)
    return ["state"] if "state" in names else names


def pictures_among(ranks: Mapping[str, int | None]) -> list[str]:
    """Keys of one observation that hold pictures, sorted, from the number of axes of each (None: not known).

    A vector has as many axes as the keys whose names are no picture's, or where all are, two less than the picture with
    the most.
    """
    known = {name: rank for name, rank in ranks.items() if rank is not None}
    plain = [rank for name, rank in known.items() if not is_image_key(name)]
    vector = max(1, min(plain) if plain else max(known.values(), default=0) - 2)
    return sorted(name for name in ranks if is_image_key(name) and known.get(name, vector + 1) > vector)


def _ranks(observations: Iterable[str]) -> dict[str, int | None]:
    if not isinstance(observations, Mapping):
        return dict.fromkeys(observations)
    shapes = {name: getattr(value, "shape", None) for name, value in observations.items()}
    return {name: None if shape is None else len(shape) for name, shape in shapes.items()}


def state_vector(obs: Mapping[str, Any], keys: Iterable[str] = ()) -> Any:
    """Concatenates the state keys of `obs`, or those of `keys`, along the last axis: (..., S), float32.

    NumPy observations give a NumPy array, anything else a JAX array, so that host code never waits for a device.

    Raises:
      ValueError: no key of `obs` holds state.
    """
    names = state_keys(obs, keys)
    if not names:
        raise ValueError(f"No state in the observation: its keys are {sorted(obs)}, all of them pictures.")
    values = [obs[name] for name in names]
    if all(isinstance(value, np.ndarray | np.generic | float | int) for value in values):
        arrays = [np.atleast_1d(np.asarray(value, np.float32)) for value in values]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
    import jax.numpy as jnp

    arrays = [jnp.atleast_1d(jnp.asarray(value, jnp.float32)) for value in values]
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=-1)


def state_size(spec: Mapping[str, Any], keys: Iterable[str] = ()) -> int:
    """Length S of the state vector of one unbatched observation, from its arrays or shape structs."""
    return int(sum(np.prod(spec[name].shape, dtype=int) for name in state_keys(spec, keys)))


def _has_word(name: str, words: tuple[str, ...]) -> bool:
    return name.startswith(words) or not set(words).isdisjoint(name.split("_"))
