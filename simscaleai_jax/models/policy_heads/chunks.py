"""Shapes of action chunks and the key of heads that draw noise."""

from typing import Any

import jax
from jaxtyping import Array, Float

from simscaleai_jax.core.jax_settings import GENERATOR


def chunk_shape(batch: Any, horizon: int, action_dim: int) -> tuple[Any, ...]:
    """(B, A) for a horizon of one, else (B, h, A); B is an integer, or a symbol where a program is exported."""
    return (batch, action_dim) if horizon == 1 else (batch, horizon, action_dim)


def flatten_chunk(actions: Float[Array, "B ..."]) -> Float[Array, "B N"]:
    """(B, A) or (B, h, A) to (B, A) or (B, h*A)."""
    return actions.reshape(actions.shape[0], -1)


def draw_key(key: Array | None) -> Array:
    """`key`, or the documented default key 0."""
    return jax.random.key(0, impl=GENERATOR) if key is None else key
