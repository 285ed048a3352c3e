"""Selecting between pytrees, PRNG keys included."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def select(mask: Bool[Array, "..."], new: Any, old: Any) -> Any:
    """Leafwise `new` where `mask`, else `old`; the mask's axes are the leaves' leading axes."""
    return jax.tree.map(lambda a, b: _select_leaf(mask, a, b), new, old)


def _select_leaf(mask: Bool[Array, "..."], new: Array, old: Array) -> Array:
    if jax.dtypes.issubdtype(new.dtype, jax.dtypes.prng_key):
        data = _select_leaf(mask, jax.random.key_data(new), jax.random.key_data(old))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(new))
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)
