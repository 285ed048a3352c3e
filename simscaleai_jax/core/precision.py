"""Matrix products in whole float32."""

import functools
from collections.abc import Callable

import jax


def full_precision(function: Callable) -> Callable:
    """Decorator: matrix products in whole float32, where a GPU or TPU would take fewer bits.

    It holds whatever `jax_default_matmul_precision` says, and for the gradients of what it wraps, too.
    """

    @functools.wraps(function)
    def precise(*args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise
