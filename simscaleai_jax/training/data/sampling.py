"""Epoch-wise shuffling without a stored permutation.

Sample number i of a run is found by arithmetic alone: epoch i // n, and within it a keyed bijection of 0..n-1. So a
loader's whole state is one integer, any batch can be computed at any time, on the host or inside jit, and resuming is
exact by construction. The bijection is a four-round Feistel network over the next even power of two; indices that fall
outside are sent through again until they land inside (cycle walking), which keeps it a bijection.

The same code runs on NumPy and on JAX arrays: pass the module as `xp`.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from simscaleai_jax.core.streams import Stream, host_words

ROUNDS = 4
MAX_SAMPLES = 1 << 30


def shuffled_index(position: Any, num_samples: int, epoch: Any, seed: int, xp: ModuleType = np) -> Any:
    """Maps positions 0..n-1 of an epoch one-to-one onto samples 0..n-1.

    Args:
      position: integer array, each in [0, num_samples).
      num_samples: n, static.
      epoch: integer array that broadcasts with `position`.
      seed: static.
      xp: numpy or jax.numpy.

    Returns:
      uint32 array of sample indices.
    """
    check_size(num_samples)
    half_bits = max((num_samples - 1).bit_length() + 1, 2) // 2
    words = host_words(seed, Stream.SAMPLE_ORDER, count=ROUNDS)
    keys = [_mix(xp.asarray(epoch).astype(xp.uint32) ^ xp.uint32(word), xp) for word in words]
    value = _feistel(xp.asarray(position).astype(xp.uint32), half_bits, keys, xp)
    if xp is np:
        while (outside := value >= num_samples).any():
            value = np.where(outside, _feistel(value, half_bits, keys, np), value)
        return value
    import jax

    def walk(current: Any) -> Any:
        return xp.where(current >= num_samples, _feistel(current, half_bits, keys, xp), current)

    return jax.lax.while_loop(lambda current: (current >= num_samples).any(), walk, value)


def count_batches(num_samples: int, batch_size: int, drop_last: bool) -> int:
    """Batches of an epoch."""
    return num_samples // batch_size if drop_last else -(-num_samples // batch_size)


def flag_filling(
    batch: dict[str, Any], step: Any, batch_size: int, num_samples: int, xp: ModuleType = np, part: slice = slice(None)
) -> dict[str, Any]:
    """The batch with the samples that only fill an epoch's last one marked as padding, in "is_pad" (B, ...).

    Args:
      batch: batch number `step`, or the rows `part` of it.
    """
    inside = step % count_batches(num_samples, batch_size, drop_last=False)
    fills = (inside * batch_size + xp.arange(batch_size))[part] >= num_samples
    is_pad = batch.get("is_pad")
    return {**batch, "is_pad": fills if is_pad is None else is_pad | fills[:, None]}


def batch_indices(
    step: Any,
    batch_size: int,
    num_samples: int,
    seed: int,
    shuffle: bool,
    xp: ModuleType = np,
    drop_last: bool = True,
) -> Any:
    """Sample indices (batch_size,) of batch number `step`.

    Args:
      step: integer scalar, how many batches came before.
      drop_last: leave out the rest of an epoch that fills no batch; else the last sample fills it.
    """
    per_epoch = count_batches(num_samples, batch_size, drop_last)
    epoch, inside = step // per_epoch, step % per_epoch
    position = inside * batch_size + xp.arange(batch_size, dtype=xp.int32)
    if not drop_last:
        position = xp.minimum(position, num_samples - 1)
    return shuffled_index(position, num_samples, epoch, seed, xp) if shuffle else position.astype(xp.uint32)


class BatchIndices:
    """Sample indices of any batch on the host, worked out for many batches at a time: one alone costs as much as 64.

    Arguments as `batch_indices`. Called with a step; the same numbers as `batch_indices` gives. Threads may share it.
    """

    BATCHES = 64

    def __init__(self, batch_size: int, num_samples: int, seed: int, shuffle: bool, drop_last: bool = True) -> None:
        self.batch_size, self.num_samples, self.seed, self.shuffle = batch_size, num_samples, seed, shuffle
        self.drop_last = drop_last
        self._known: tuple[int, np.ndarray] = (-1, np.zeros((0, batch_size), np.uint32))

    def __call__(self, step: int) -> np.ndarray:
        """(batch_size,) uint32 indices of batch number `step`."""
        block, inside = divmod(step, self.BATCHES)
        known, indices = self._known
        if known != block:
            indices = self._compute(block)
            self._known = block, indices
        return indices[inside]

    def _compute(self, block: int) -> np.ndarray:
        steps = block * self.BATCHES + np.arange(self.BATCHES, dtype=np.int64)[:, None]
        per_epoch = count_batches(self.num_samples, self.batch_size, self.drop_last)
        position = steps % per_epoch * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        if not self.drop_last:
            position = np.minimum(position, self.num_samples - 1)
        if not self.shuffle:
            return position.astype(np.uint32)
        return shuffled_index(position, self.num_samples, steps // per_epoch, self.seed)


def check_size(num_samples: int) -> None:
    """Raises a ValueError for an empty data set or one whose index does not fit."""
    if not 1 <= num_samples <= MAX_SAMPLES:
        raise ValueError(f"A data set must hold 1 to {MAX_SAMPLES} samples, got {num_samples}.")


def _feistel(value: Any, half_bits: int, keys: Sequence[Any], xp: ModuleType) -> Any:
    mask, shift = xp.uint32((1 << half_bits) - 1), xp.uint32(half_bits)
    left, right = value >> shift, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key, xp) & mask)
    return (left << shift) | right


def _mix(value: Any, xp: ModuleType) -> Any:
    """A 32-bit finalizer (two multiply-xorshift rounds)."""
    with np.errstate(over="ignore"):  # it wraps around on purpose; NumPy warns of that on scalars
        value = (value ^ (value >> xp.uint32(16))) * xp.uint32(0x7FEB352D)
        value = (value ^ (value >> xp.uint32(15))) * xp.uint32(0x846CA68B)
        return value ^ (value >> xp.uint32(16))
