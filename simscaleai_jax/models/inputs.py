"""What models accept as observations, instructions and targets, checked and brought into one form in one place.

  image     uint8 (B, H, W, C), 0..255, as cameras and data sets give it; or float (B, C, H, W), already in [0, 1],
            the documented torch layout. Inside the models images are float (B, H, W, C) in [0, 1].
  state     observations["state"] (B, S), or every other non-image key concatenated in sorted order.
  language  list of B strings, one string for all, or token ids (B, L) int.

Windows of T steps, (B, T, ...), are cut to their first step by models that predict an action chunk.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.observations import state_keys, state_vector
from simscaleai_jax.core.text import check_instructions


def model_image(
    observations: Mapping[str, Any], channels: int, size: int, key: str = "image", frame: int = 0
) -> Float[Array, "B H W C"]:
    """The picture `key` as float32 (B, size, size, channels) in [0, 1]; a window gives its frame number `frame`.

    Raises:
      ValueError: the key is missing, or its dtype, layout or size is not one of the accepted ones.
    """
    image = picture(observations, key)
    return scale_image(image[:, frame] if image.ndim == 5 else image, channels, size, key)


def picture(observations: Mapping[str, Any], key: str) -> Array:
    """observations[key]; a ValueError names what there is."""
    if key not in observations:
        hint = suggest(key, observations)
        raise ValueError(f"The model needs observations[{key!r}], but the keys are {sorted(observations)}.{hint}")
    return jnp.asarray(observations[key])


def scale_image(image: Any, channels: int, size: int, key: str = "image") -> Float[Array, "B H W C"]:
    """uint8 (B, H, W, C) or float (B, C, H, W) to float32 (B, H, W, C) in [0, 1]."""
    image = jnp.asarray(image)
    is_bytes = image.dtype == jnp.uint8
    wanted = (size, size, channels) if is_bytes else (channels, size, size)
    if image.ndim != 4 or image.shape[1:] != wanted or not (is_bytes or jnp.issubdtype(image.dtype, jnp.floating)):
        raise ValueError(
            f"{key!r} has shape {image.shape} and dtype {image.dtype}; wanted uint8 (B, {size}, {size}, {channels}) "
            f"or float in [0, 1] (B, {channels}, {size}, {size})."
        )
    if is_bytes:
        return image.astype(jnp.float32) / 255.0
    return jnp.transpose(image.astype(jnp.float32), (0, 2, 3, 1))


def window_state(observations: Mapping[str, Any], size: int, steps: int) -> Float[Array, "B k S"]:
    """The latest `steps` state vectors, (B, steps, size); with one step (B, size) will do, too.

    Raises:
      ValueError: another number of steps; see also `model_state`.
    """
    state = model_state(observations, size)
    state = state[:, None] if state.ndim == 2 else state
    if state.shape[1] != steps:
        raise ValueError(
            f"The state has {state.shape[1]} steps; the model reads the latest {steps} (obs_horizon), (B, {steps}, S)."
        )
    return state


def window_pictures(
    observations: Mapping[str, Any], key: str, channels: int, size: int, steps: int
) -> Float[Array, "B k H W C"]:
    """The latest `steps` pictures `key`, (B, steps, size, size, channels) in [0, 1].

    Raises:
      ValueError: another number of steps; see also `model_image`.
    """
    frames = picture(observations, key)
    frames = frames[:, None] if frames.ndim == 4 else frames
    if frames.ndim != 5 or frames.shape[1] != steps:
        raise ValueError(f"{key!r} has shape {frames.shape}; the model reads the latest {steps} (obs_horizon).")
    scaled = scale_image(frames.reshape(-1, *frames.shape[2:]), channels, size, key)
    return scaled.reshape(-1, steps, *scaled.shape[1:])


def model_state(observations: Mapping[str, Any], size: int) -> Float[Array, "*B S"]:
    """The state vector (..., size) of an observation dict.

    Raises:
      ValueError: no key holds state, or the keys add up to another size.
    """
    if not state_keys(observations):
        raise ValueError(
            f"The model needs observations['state'] or other state keys, but the keys are {sorted(observations)}."
        )
    state = jnp.asarray(state_vector(observations))
    if state.shape[-1] != size:
        names = ", ".join(state_keys(observations))
        raise ValueError(f"The state has {state.shape[-1]} numbers (from {names}); the model has state_dim={size}.")
    return state


def prepare_language(
    batch: Mapping[str, Any], tokenize: Any, batch_size: int, max_len: int | None = None
) -> dict[str, Any]:
    """Replaces the strings under "language" by token ids (B, L) int32; for the host, before jit.

    Raises:
      ValueError: the number of strings differs from the batch size; or one that is longer than `max_len`, or has
        characters without an id.
    """
    out = dict(batch)
    language = out.get("language")
    if language is None:
        out.pop("language", None)
        return out
    if isinstance(language, str):
        language = [language] * batch_size
    if is_text(language):
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in language]
        if max_len is not None:
            check_instructions(set(texts), max_len)
        if len(texts) != batch_size:
            raise ValueError(f"'language' has {len(texts)} instructions for a batch of {batch_size}.")
        out["language"] = np.asarray(tokenize(texts), np.int32)
    return out


def is_text(language: Any) -> bool:
    """Whether `language` still holds strings instead of token ids."""
    if isinstance(language, np.ndarray):
        return language.dtype.kind in "OSU"
    return isinstance(language, str | bytes) or (
        isinstance(language, Sequence) and len(language) > 0 and isinstance(language[0], str | bytes)
    )


def leading_size(observations: Mapping[str, Any]) -> int:
    """Batch size B of an observation dict."""
    return int(np.shape(next(iter(observations.values())))[0])
