"""Whole columns of the episodes that a file is assembled from, for its statistics and its summary.

Opening thousands of short arrays is what assembling would spend its time on, so a part carries its columns joined as
well, and is read once per key. Images are never joined, and shards carry no columns: those are read one by one.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.layout import H5, Episode
from simscaleai_jax.core.observations import is_image_key

COLUMNS = "columns"  # group of a part
SUMMARY = ("num_samples", "success", "attempts", "return")
CACHED_BYTES = 64 * 2**20  # a column up to this size is read once and kept for the second pass of its statistics
IMAGE_ROWS = 64
MAX_OPEN = 128  # parts kept open: opening and closing one for every key costs more than reading it


def write_columns(file: H5, episodes: Sequence[Episode]) -> None:
    """Writes the joined columns and the summary of a part."""
    columns = file.create_group(COLUMNS)
    columns["actions"] = np.concatenate([episode.actions for episode in episodes])
    for key in episodes[0].obs:
        if not is_image_key(key):
            columns[f"obs/{key}"] = np.concatenate([episode.obs[key] for episode in episodes])
    columns["summary/num_samples"] = np.array([len(episode.actions) for episode in episodes], np.int64)
    columns["summary/success"] = np.array([episode.success for episode in episodes])
    columns["summary/attempts"] = np.array([episode.attempts for episode in episodes], np.int64)
    columns["summary/return"] = np.array([_return(episode.rewards) for episode in episodes])


class Columns:
    """Chunks of a key over all episodes, in their order; a small column is kept, because statistics ask for it twice.

    Args:
      sources: files in the order of the episodes. demos: group of every episode. stack: closes what this opens.
    """

    def __init__(self, sources: Sequence[Path], demos: Sequence[H5], stack: ExitStack) -> None:
        self.sources = sources
        kept = sources if len(sources) <= MAX_OPEN else ()
        self.open_files = {source: stack.enter_context(h5py.File(source, "r")) for source in kept}
        self.demos = demos
        with h5py.File(sources[0], "r") as first:
            self.is_joined = COLUMNS in first
        self.key = ""
        self.kept: list[np.ndarray] = []

    def __call__(self, key: str) -> Iterator[np.ndarray]:
        if key == self.key:
            yield from self.kept
            return
        self.key, self.kept = "", []
        size = 0
        for rows in self._read(key):
            size += rows.nbytes
            if size <= CACHED_BYTES:
                self.kept.append(rows)
            yield rows
        if size <= CACHED_BYTES:
            self.key = key

    def summary(self, name: str) -> np.ndarray:
        """One number per episode: num_samples, success, attempts or return."""
        if self.is_joined:
            return np.concatenate(list(self._joined(f"summary/{name}")))
        if name == "return":
            return np.array([_return(_whole(demo, "rewards")) for demo in self.demos])
        return np.array([demo.attrs[name] for demo in self.demos])

    def _read(self, key: str) -> Iterator[np.ndarray]:
        if is_image_key(key.removeprefix("obs/")):
            for demo in self.demos:
                yield from _image_rows(demo[key])
        elif self.is_joined:
            yield from self._joined(key)
        else:
            yield from (_whole(demo, key) for demo in self.demos)

    def _joined(self, key: str) -> Iterator[np.ndarray]:
        for source in self.sources:
            path = f"{COLUMNS}/{key}"
            if source in self.open_files:
                yield _whole(self.open_files[source], path)
                continue
            with h5py.File(source, "r") as file:
                yield _whole(file, path)


def _return(rewards: np.ndarray) -> float:
    return float(rewards.astype(np.float32).sum(dtype=np.float64))


def _whole(demo: H5, key: str) -> np.ndarray:
    """`demo[key][()]` without h5py's Python layer."""
    dataset = h5py.h5d.open(demo.id, key.encode())
    rows = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, rows)
    return rows


def _image_rows(dataset: H5) -> Iterator[np.ndarray]:
    for start in range(0, len(dataset), IMAGE_ROWS):
        yield dataset[start : start + IMAGE_ROWS]
