"""Statistics as LeRobot stores them, exact: of every episode of a block at once, and of numbers that were counted."""

from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations import QUANTILES

LEVELS = np.arange(256) / 255.0  # of a colour channel


def episode_statistics(rows: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of each of E episodes that lie one after the other.

    Args:
      rows: (R, n), or (R,) numbers. lengths: (E,) rows of each episode, at least 1.

    Returns:
      min, max, mean, std (population) and the quantiles (linear interpolation): (E, n) float64; count: (E, 1).

    Raises:
      ValueError: values that are not finite.
    """
    values = rows.reshape(len(rows), -1).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("Values that are not finite have no statistics.")
    starts, counts = np.cumsum(lengths) - lengths, lengths[:, None]
    mean = np.add.reduceat(values, starts, axis=0) / counts
    spread = np.add.reduceat(np.square(values - np.repeat(mean, lengths, axis=0)), starts, axis=0)
    ordered = _sorted_episodes(values, lengths)
    result = {"min": ordered[:, 0], "max": _pick(ordered, lengths - 1)}
    result |= {"mean": mean, "std": np.sqrt(spread / counts)}
    for name, share in QUANTILES.items():
        position = share * (lengths - 1)
        below, above = (_pick(ordered, side(position).astype(int)) for side in (np.floor, np.ceil))
        result[name] = below + (above - below) * (position % 1)[:, None]
    return result | {"count": counts.astype(np.int64)}


def counted_statistics(values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of numbers that occur several times.

    Args:
      values: (V,) ascending. counts: (V,) how often each occurs; not all zero.

    Returns:
      The same names, each (1,) float64; count (1,) is the sum of the counts.
    """
    values, total, ends = values.astype(np.float64), int(counts.sum()), np.cumsum(counts)
    mean = values @ counts / total
    seen = values[counts > 0]
    result = {"min": seen[0], "max": seen[-1], "mean": mean, "std": np.sqrt(np.square(values - mean) @ counts / total)}
    for name, share in QUANTILES.items():
        position = share * (total - 1)
        below, above = (values[np.searchsorted(ends, side(position), side="right")] for side in (np.floor, np.ceil))
        result[name] = below + (above - below) * (position % 1)
    return {name: np.array([value], np.float64) for name, value in result.items()} | {"count": np.array([total])}


def range_statistics(count: int) -> dict[str, np.ndarray]:
    """Statistics of the numbers 0 to count - 1."""
    last = count - 1
    result = {"min": 0.0, "max": last, "mean": last / 2, "std": np.sqrt((count**2 - 1) / 12)}
    result |= {name: share * last for name, share in QUANTILES.items()}
    return {name: np.array([value], np.float64) for name, value in result.items()} | {"count": np.array([count])}


def count_levels(frames: np.ndarray) -> np.ndarray:
    """(C, 256) how often each level occurs in pictures (T, H, W, C) uint8."""
    channels = frames.shape[-1]
    return np.stack([np.bincount(frames[..., i].ravel(), minlength=256) for i in range(channels)])


def picture_statistics(levels: np.ndarray, num_frames: int) -> dict[str, np.ndarray]:
    """Statistics (C, 1, 1) of pictures scaled to [0, 1], from `count_levels`; count is in frames."""
    channels = [counted_statistics(LEVELS, counts) for counts in levels]
    shaped: dict[str, Any] = {
        name: np.stack([channel[name] for channel in channels])[:, :, None] for name in channels[0]
    }
    return shaped | {"count": np.array([num_frames])}


def _sorted_episodes(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(E, T, n): the values of each episode in ascending order, then infinities."""
    padded = np.full((values.shape[1], len(lengths), int(lengths.max())), np.inf)
    padded[:, np.arange(padded.shape[2]) < lengths[:, None]] = values.T
    padded.sort(axis=-1)
    return padded.transpose(1, 2, 0)


def _pick(ordered: np.ndarray, places: np.ndarray) -> np.ndarray:
    return ordered[np.arange(len(places)), places]
