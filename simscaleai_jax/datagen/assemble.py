"""Builds a complete demonstration file from groups that lie in other files: a shard from its parts, a data set from shards."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.layout import FORMAT_VERSION, demo_name, write_masks, write_statistics
from simscaleai_jax.core.demonstrations.statistics import compute_statistics
from simscaleai_jax.core.observations import is_image_key

CACHED_BYTES = 64 * 2**20  # a column up to this size is read once and kept for the second pass of its statistics
IMAGE_ROWS = 64


def assemble(
    path: Path,
    sources: Sequence[Path],
    numbers: Sequence[int],
    attributes: Mapping[str, Any],
    masks: Mapping[str, Iterable[int]],
    link: bool = False,
) -> None:
    """Writes a whole file at `path` and syncs it to the disk; the caller renames it.

    Args:
      sources: files that hold `demo_{i}` groups, at their root (parts) or under `data` (shards).
      numbers: episodes that must be there, in order.
      attributes: of group `data`.
      masks: name -> episode numbers, cut to `numbers`; "success" is added.
      link: store links to the sources instead of copies; they must stay where they are, relative to `path`.

    Raises:
      ValueError: an episode is missing.
      OSError: the disk is full or the file cannot be written; nothing is left at `path`.
    """
    path.unlink(missing_ok=True)
    try:
        _write(path, sources, numbers, attributes, masks, link)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    except RuntimeError as error:  # h5py's answer when it cannot flush while closing
        path.unlink(missing_ok=True)
        raise OSError(errno.EIO, f"HDF5 could not finish {path}: {error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write(
    path: Path,
    sources: Sequence[Path],
    numbers: Sequence[int],
    attributes: Mapping[str, Any],
    masks: Mapping[str, Iterable[int]],
    link: bool,
) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_group("data", track_order=True)
        for source in sources:
            _take_demos(source, data, set(numbers), link)
        missing = [number for number in numbers if demo_name(number) not in data]
        if missing:
            raise ValueError(f"{demo_name(missing[0])} is missing ({len(missing)} of {len(numbers)}).")
        demos = [data[demo_name(number)] for number in numbers]
        successes = [number for number, demo in zip(numbers, demos, strict=True) if demo.attrs["success"]]
        wanted = set(numbers)
        cut = {name: [demo_name(n) for n in sorted(set(chosen) & wanted)] for name, chosen in masks.items()}
        write_masks(file, cut | {"success": [demo_name(n) for n in successes]})
        keys = ["actions", *(f"obs/{key}" for key in demos[0]["obs"])]
        columns = _ColumnReader(data, numbers)
        write_statistics(file, compute_statistics(columns, keys))
        for name, value in attributes.items():
            data.attrs[name] = value
        data.attrs["total"] = sum(int(demo.attrs["num_samples"]) for demo in demos)
        data.attrs["format_version"] = FORMAT_VERSION
        data.attrs["mean_return"] = float(np.mean([rewards.sum(dtype=np.float64) for rewards in columns("rewards")]))
        data.attrs["successes"] = len(successes)
        data.attrs["attempts"] = sum(int(demo.attrs["attempts"]) for demo in demos)
        data.attrs["first_episode"] = numbers[0]
        data.attrs["num_episodes"] = len(numbers)
        data.attrs["complete"] = True


def _take_demos(source: Path, data: h5py.Group, wanted: set[int], link: bool) -> None:
    with h5py.File(source, "r") as file:
        holder = file["data"] if "data" in file else file
        for name in sorted(holder, key=lambda demo: int(demo.removeprefix("demo_"))):
            if int(name.removeprefix("demo_")) not in wanted:
                continue
            if link:
                target = os.path.relpath(source, Path(data.file.filename).parent)
                data[name] = h5py.ExternalLink(target, f"{holder.name.rstrip('/')}/{name}")
            else:
                holder.copy(holder[name], data, name)


class _ColumnReader:
    """Chunks of a key over all episodes; a small column is kept, because statistics ask for it twice.

    Uses h5py's low-level interface: opening and reading thousands of short arrays costs a fifth of what it costs through
    `group[name][:]`.
    """

    def __init__(self, data: h5py.Group, numbers: Sequence[int]) -> None:
        self.data = data
        self.numbers = numbers
        self.key = ""
        self.kept: list[np.ndarray] = []

    def __call__(self, key: str) -> Iterator[np.ndarray]:
        if key == self.key:
            yield from self.kept
            return
        self.key, self.kept = "", []
        size = 0
        for number in self.numbers:
            path = f"{demo_name(number)}/{key}"
            for rows in self._image_rows(path) if is_image_key(key.removeprefix("obs/")) else [self._whole(path)]:
                size += rows.nbytes
                if size <= CACHED_BYTES:
                    self.kept.append(rows)
                yield rows
        if size <= CACHED_BYTES:
            self.key = key

    def _whole(self, path: str) -> np.ndarray:
        dataset = h5py.h5d.open(self.data.id, path.encode())
        rows = np.empty(dataset.shape, dataset.dtype)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, rows)
        return rows

    def _image_rows(self, path: str) -> Iterator[np.ndarray]:
        dataset = self.data[path]
        for start in range(0, len(dataset), IMAGE_ROWS):
            yield dataset[start : start + IMAGE_ROWS]
