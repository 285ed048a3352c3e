"""The index of a demonstration file: its states as one table and the places of its frames, so that batches cost reads.

A file holds thousands of short arrays, and opening them is what random access would spend its time on. The index lies
beside the file (`demos.h5.index`, see `array_file`), made at the end of data generation and of merging, or on first
use (`indexing`). It holds nothing that the file does not say; who loses it waits for a new one.

    table (N, W) f4            a row per step: the actions, then every observation that is no picture
    lengths, files (E,) i4     of every episode: steps, and which of meta["sources"] holds it
    names (E,) S, success (E,) i1 (-1: not said), attempts (E,) i4, returns (E,) f8 (sums of rewards)
    languages (E,) i4          into meta["languages"]
    masks/<name> i8            episodes
    frames/<key>/offsets (N,) i8, frames/<key>/sizes (N,) u4      where a frame lies in its file; size 0: not compressed
    meta                       layout, specs, columns of the table, statistics of the file ("") and of each mask,
                               sources: [path relative to the file, bytes, mtime in ns] of the file and what it links to

An index whose sources have another size or time than it says is stale, and is made anew.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations.array_file import map_array, read_footer

SUFFIX = ".index"
INDEX_VERSION = 1
Source = tuple[str, int, int]  # path relative to the demonstration file's folder ("" for the file itself), bytes, ns


class Index:
    """A whole index, mapped into memory; pickles as its path.

    Attributes:
      layout, names, lengths (E,) int64, specs, masks: as `DemonstrationFile` has them.
      starts: (E,) int64, first row of each episode. table: (N, W) float32.
      columns: "actions" or "obs/<key>" -> (first, last + 1) column, row shape.
      files: (E,) which of `sources` holds an episode. success: (E,) 1, 0, or -1 where the file does not say.
      attempts, returns: (E,). languages: instruction of each episode, as numbers into `instructions`.
      frames: "obs/<key>" -> (offsets, sizes) of every frame. unlocated: pictures that only HDF5 can read.
      statistics: mask ("" for the whole file) -> key -> statistics, see `compute_statistics`; None where values are
        not finite.

    Raises:
      FileNotFoundError: no such file. ValueError: cut, something else, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        footer = read_footer(path)
        meta, entries = footer["meta"], footer["arrays"]
        if meta.get("index_version") != INDEX_VERSION:
            raise ValueError(f"{path} is an index of version {meta.get('index_version')}, wanted {INDEX_VERSION}.")
        arrays = {name: map_array(path, entry) for name, entry in entries.items()}
        self.layout: str = meta["layout"]
        self.sources: list[Source] = [(name, size, time) for name, size, time in meta["sources"]]
        self.names: list[str] = [name.decode() for name in arrays["names"].tolist()]
        self.lengths = arrays["lengths"].astype(np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.specs = {key: (tuple(shape), np.dtype(dtype)) for key, (shape, dtype) in meta["specs"].items()}
        self.columns = {key: (slice(a, b), tuple(shape)) for key, (a, b, shape) in meta["columns"].items()}
        self.masks = {name[6:]: np.array(chosen) for name, chosen in arrays.items() if name.startswith("masks/")}
        self.table = arrays["table"]
        self.files, self.success, self.languages = (arrays[name] for name in ("files", "success", "languages"))
        self.attempts, self.returns = arrays["attempts"], arrays["returns"]
        self.instructions = np.array(meta["languages"], object)
        located = [name[7:-8] for name in arrays if name.startswith("frames/") and name.endswith("/offsets")]
        self.frames = {key: (arrays[f"frames/{key}/offsets"], arrays[f"frames/{key}/sizes"]) for key in located}
        self.unlocated: list[str] = meta["unlocated"]
        self.statistics: dict[str, dict[str, Any]] = {
            mask: {key: _as_arrays(value) for key, value in keys.items()} for mask, keys in meta["statistics"].items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.path,)

    def row_runs(self, episodes: np.ndarray) -> list[tuple[int, int]]:
        """Rows (first, last + 1) of episodes (sorted), neighbours joined."""
        cuts = np.flatnonzero(np.diff(episodes) != 1) + 1
        first, last = episodes[np.r_[0, cuts]], episodes[np.r_[cuts - 1, len(episodes) - 1]]
        return list(zip(self.starts[first].tolist(), (self.starts[last] + self.lengths[last]).tolist(), strict=True))

    def rows(self, key: str, first: int, last: int) -> np.ndarray:
        """Rows [first, last) of one key's columns: a view (rows, ...)."""
        columns, shape = self.columns[key]
        return self.table[first:last, columns].reshape(last - first, *shape)


def places(path: Path) -> list[Path]:
    """Where the index of a file may lie: beside it, or in the user's cache where that folder cannot be written."""
    digest = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [beside(path), root / "simscaleai_jax" / "indexes" / f"{path.name}-{digest}{SUFFIX}"]


def beside(path: Path) -> Path:
    """Name of the index in the file's own folder."""
    return path.with_name(path.name + SUFFIX)


def open_index(path: Path) -> Index | None:
    """The index of a demonstration file, None where there is none that is whole and belongs to the file as it is."""
    for place in places(path):
        try:
            index = Index(place)
            if all(stamp(path, name) == (name, size, time) for name, size, time in index.sources):
                return index
        except (OSError, ValueError, KeyError):
            continue  # none there, cut, of another version, or a linked file is gone
    return None


def stamp(path: Path, name: str = "") -> Source:
    """How the file (or one that it links to) is told from what it was before.

    Raises:
      OSError: it is not there.
    """
    found = os.stat(linked_path(path, name) if name else path)
    return name, found.st_size, found.st_mtime_ns


def linked_path(path: Path, name: str) -> Path:
    """The file that a link in `path` means.

    HDF5 goes from the folder in which the file really lies; a name that was made for the folder as it was called, a
    symbolic link, is understood as well.
    """
    real = Path(os.path.realpath(path)).parent / name
    if real.exists():
        return real
    called = Path(os.path.normpath(path.absolute().parent / name))
    return called if called.exists() else real


def _as_arrays(statistics: dict[str, Any] | None) -> dict[str, np.ndarray] | None:
    if statistics is None:
        return None
    return {name: np.array(value, np.int64 if name == "count" else float) for name, value in statistics.items()}
