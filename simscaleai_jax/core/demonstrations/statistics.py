"""Exact statistics of data sets that do not fit into memory.

Mean and standard deviation come from two float64 passes. Quantiles are exact order statistics, not estimates: float32
values are mapped to integers of the same order, a histogram of their upper 16 bits finds the bucket in which a wanted
rank falls, and a second pass counts the lower 16 bits inside that bucket alone. Memory depends on the number of
columns, never on the number of rows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
BLOCK_ROWS = 65_536  # rows joined before they are counted: a histogram costs its 65,536 buckets per block
COLUMN_GROUP = 8  # columns counted per pair of passes; bounds the tables at about 25 MB
BUCKETS = 1 << 16
COUNT = np.uint32  # of rows in a bucket

ChunksFn = Callable[[str], Iterable[np.ndarray]]


def compute_statistics(chunks_fn: ChunksFn, keys: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
    """Streams every key and returns its statistics.

    Args:
      chunks_fn: key -> the key's data in pieces (rows, ...); called anew for each pass, the same pieces each time.
      keys: names to pass to `chunks_fn`.

    Returns:
      Per key: mean, std (population), min, max and the QUANTILES (linear interpolation, as `numpy.quantile`), float64
      with the shape of one row, and count (1,) int64. Pictures (four axes) give one number per channel, (C,), of their
      pixels, those of uint8 scaled to [0, 1].

    Raises:
      ValueError: no rows, or values that are not finite (the key is named).
    """
    return {key: _key_statistics(lambda key=key: chunks_fn(key), key) for key in keys}


def _key_statistics(chunks_fn: Callable[[], Iterable[np.ndarray]], key: str) -> dict[str, np.ndarray]:
    first = next(iter(chunks_fn()), None)
    if first is None:
        raise ValueError(f"No data to compute statistics of {key!r} from.")
    if first.dtype == np.uint8 and first.ndim == 4:
        return _image_statistics(chunks_fn(), first.shape[-1])
    if first.ndim == 4:  # float pictures: every pixel is a row
        channels, count = first.shape[-1], sum(len(chunk) for chunk in chunks_fn())
        pixels = _column_statistics(lambda: (c.reshape(-1, channels) for c in chunks_fn()), slice(0, channels), key)
        return pixels | {"count": np.array([count], np.int64)}
    shape = first.shape[1:]
    width = int(np.prod(shape, dtype=int))
    groups = [
        _column_statistics(chunks_fn, slice(start, min(start + COLUMN_GROUP, width)), key)
        for start in range(0, width, COLUMN_GROUP)
    ]
    joined = {
        name: np.concatenate([group[name] for group in groups]).reshape(shape) for name in groups[0] if name != "count"
    }
    return joined | {"count": groups[0]["count"]}


def _column_statistics(
    chunks_fn: Callable[[], Iterable[np.ndarray]], columns: slice, key: str
) -> dict[str, np.ndarray]:
    """Statistics of a few columns in two passes; every result is (columns,)."""
    width = columns.stop - columns.start
    count, total = 0, np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    upper = np.zeros((width, BUCKETS), COUNT)
    for block in _blocks(chunks_fn(), columns):
        if not np.isfinite(block).all():
            raise ValueError(f"{key!r} holds values that are not finite; statistics of it mean nothing.")
        count += len(block)
        total += block.sum(axis=0, dtype=np.float64)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        codes = _ordered_codes(block) >> 16
        for column in range(width):
            upper[column] += np.bincount(codes[:, column], minlength=BUCKETS).astype(COUNT)
    if not count:
        raise ValueError(f"No rows to compute statistics of {key!r} from.")
    mean = total / count
    targets = [_RankTable(upper[column], _wanted_ranks(count)) for column in range(width)]
    squares = np.zeros(width)
    for block in _blocks(chunks_fn(), columns):
        squares += np.square(block - mean).sum(axis=0)
        codes = _ordered_codes(block)
        for column, table in enumerate(targets):
            table.count(codes[:, column])
    ranked = np.stack([table.values() for table in targets])
    result = {"mean": mean, "std": np.sqrt(squares / count), "min": low, "max": high}
    result |= {name: _interpolate(ranked, count, q) for name, q in QUANTILES.items()}
    return result | {"count": np.array([count], np.int64)}


class _RankTable:
    """Finds the values at given ranks of one column from its upper-bits histogram and a second pass."""

    def __init__(self, upper: np.ndarray, ranks: np.ndarray) -> None:
        cumulative = np.cumsum(upper, dtype=np.int64)
        self.buckets = np.searchsorted(cumulative, ranks, side="right")
        self.offsets = ranks - (cumulative[self.buckets] - upper[self.buckets])
        self.lower = {int(bucket): np.zeros(BUCKETS, COUNT) for bucket in np.unique(self.buckets)}

    def count(self, codes: np.ndarray) -> None:
        """Counts the lower bits of the codes (rows,) that fall into a wanted bucket."""
        prefix = codes >> 16
        for bucket, table in self.lower.items():
            table += np.bincount(codes[prefix == bucket] & 0xFFFF, minlength=BUCKETS).astype(COUNT)

    def values(self) -> np.ndarray:
        """The float32 values at the ranks, as float64."""
        codes = np.empty(len(self.buckets), np.uint32)
        for i, (bucket, offset) in enumerate(zip(self.buckets, self.offsets, strict=True)):
            low_bits = np.searchsorted(np.cumsum(self.lower[int(bucket)], dtype=np.int64), offset, side="right")
            codes[i] = (int(bucket) << 16) | int(low_bits)
        return _from_codes(codes).astype(np.float64)


def _wanted_ranks(count: int) -> np.ndarray:
    """Sorted ranks (R,) between which the quantiles lie."""
    positions = np.array(list(QUANTILES.values())) * (count - 1)
    return np.unique(np.concatenate([np.floor(positions), np.ceil(positions)]).astype(np.int64))


def _interpolate(ranked: np.ndarray, count: int, q: float) -> np.ndarray:
    """Quantile q (columns,) from the values (columns, R) at the wanted ranks."""
    ranks, position = _wanted_ranks(count), q * (count - 1)
    below = ranked[:, np.searchsorted(ranks, int(np.floor(position)))]
    above = ranked[:, np.searchsorted(ranks, int(np.ceil(position)))]
    return below + (above - below) * (position - np.floor(position))


def _ordered_codes(values: np.ndarray) -> np.ndarray:
    """float32 to uint32 such that the order of the numbers is kept."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _from_codes(codes: np.ndarray) -> np.ndarray:
    """Inverse of `_ordered_codes`."""
    bits = np.where(codes >> 31, codes & np.uint32(0x7FFFFFFF), ~codes)
    return bits.astype(np.uint32).view(np.float32)


def _blocks(chunks: Iterable[np.ndarray], columns: slice) -> Iterator[np.ndarray]:
    """Cuts the rows into float32 blocks (BLOCK_ROWS, columns), whatever the pieces: sums do not depend on those."""
    pending: list[np.ndarray] = []
    rows = 0
    for chunk in chunks:
        flat = np.asarray(chunk, np.float32).reshape(len(chunk), -1)[:, columns]
        while rows + len(flat) >= BLOCK_ROWS:
            wanted = BLOCK_ROWS - rows
            yield np.concatenate([*pending, flat[:wanted]])
            pending, rows, flat = [], 0, flat[wanted:]
        pending.append(flat)
        rows += len(flat)
    if rows:
        yield np.concatenate(pending)


def _image_statistics(chunks: Iterable[np.ndarray], channels: int) -> dict[str, np.ndarray]:
    """One histogram of 256 grey levels per channel holds everything there is to know."""
    levels = np.zeros((channels, 256), np.int64)
    for chunk in chunks:
        for channel in range(channels):
            levels[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    count = int(levels[0].sum())
    values = np.arange(256) / 255.0
    mean = levels @ values / count
    spread = np.array([np.sum(row * np.square(values - m)) for row, m in zip(levels, mean, strict=True)])
    ranked = np.stack([values[np.searchsorted(np.cumsum(row), _wanted_ranks(count), side="right")] for row in levels])
    seen = [np.nonzero(row)[0] for row in levels]
    result: dict[str, Any] = {"mean": mean, "std": np.sqrt(spread / count)}
    result |= {"min": np.array([values[s[0]] for s in seen]), "max": np.array([values[s[-1]] for s in seen])}
    result |= {name: _interpolate(ranked, count, q) for name, q in QUANTILES.items()}
    return result | {"count": np.array([count], np.int64)}
