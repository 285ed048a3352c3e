"""Reading and writing a few rows of an array by their numbers."""

from typing import Any

import numpy as np


def pick(values: Any, index: np.ndarray) -> Any:
    """`values[index]` along the first axis; a run of neighbours is a slice, much cheaper under jit than a gather."""
    if not _is_run(index):
        return values[index]
    start = int(index.flat[0]) if index.size else 0
    return values[start : start + index.size].reshape(index.shape + values.shape[1:])


def place(values: Any, index: np.ndarray, new: Any) -> Any:
    """JAX `values` with `values[index]` replaced by `new`."""
    if not _is_run(index):
        return values.at[index].set(new)
    start = int(index.flat[0]) if index.size else 0
    return values.at[start : start + index.size].set(new)


def _is_run(index: np.ndarray) -> bool:
    return bool(np.all(np.diff(index.ravel()) == 1))
