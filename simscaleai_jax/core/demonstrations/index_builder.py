"""Writes an index: from the episodes of a file, or from their numbers where somebody has them joined already."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.array_file import ArrayWriter, map_array
from simscaleai_jax.core.demonstrations.frames import Places, locate_frames
from simscaleai_jax.core.demonstrations.index import INDEX_VERSION, Source
from simscaleai_jax.core.demonstrations.reader import DemonstrationFile, attribute
from simscaleai_jax.core.demonstrations.statistics import compute_statistics
from simscaleai_jax.core.observations import is_image_key

MAX_ROW = 4096  # numbers of an observation that still goes into the table
BLOCK_ROWS = 65_536  # of the table, in memory at once

ProgressFn = Callable[[int, int], None]  # (episodes done, episodes in all)


@dataclasses.dataclass
class Piece:
    """Episodes whose arrays are joined already; following pieces hold the following episodes.

    Attributes:
      columns: "actions", "obs/<key>" -> (rows, ...), all that are no pictures.
      success, attempts, returns: (E,). languages: instruction of each episode.
    """

    columns: Mapping[str, np.ndarray]
    success: np.ndarray
    attempts: np.ndarray
    returns: np.ndarray
    languages: list[str]


class IndexBuilder:
    """Writes an index into an open file: `fill` reads the episodes once, `finish` makes it readable.

    Attributes:
      statistics: mask ("" for the whole file) -> key -> statistics (None where values are not finite), after `fill`.
      success, attempts, returns: (E,), after `fill`.
    """

    def __init__(self, demos: DemonstrationFile, path: Path, file: BinaryIO) -> None:
        self.demos, self.path = demos, path
        self.writer = ArrayWriter(file)
        specs = {key: spec for key, spec in demos.specs.items() if key == "actions" or key.startswith("obs/")}
        self.pictures = [key for key, (shape, dtype) in specs.items() if _stays_in_place(key, shape, dtype)]
        self.columns: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        width = 0
        for key in ["actions", *sorted(set(specs) - set(self.pictures) - {"actions"})]:
            shape = specs[key][0]
            self.columns[key] = (width, width := width + int(np.prod(shape, dtype=int)), shape)
        self.width = width
        self.unlocated: set[str] = set()
        self.statistics: dict[str, dict[str, Any]] = {}
        count = len(demos.names)
        self.success, self.attempts, self.returns = np.zeros(count, "i1"), np.ones(count, "i4"), np.zeros(count)
        self._files, self._languages = np.zeros(count, "i4"), np.zeros(count, "i4")
        self._instructions: dict[str, int] = {}
        self._places: dict[str, list[Places]] = {key: [] for key in self.pictures}

    def fill(self, pieces: Iterable[Piece] | None = None, progress_fn: ProgressFn | None = None) -> None:
        """Reads all episodes, in bounded memory but for the places of frames (12 bytes each).

        Args:
          pieces: the episodes' numbers, where somebody has them joined; then only frames are looked up in the file.

        Raises:
          ValueError: an array is missing or has another shape than in the first episode.
          OSError: the disk is full.
        """
        blocks = self._episodes() if pieces is None else self._joined(pieces)
        for done, rows in blocks:
            self.writer.append("table", rows)
            if progress_fn is not None:
                progress_fn(done, len(self.demos.names))
        found, wanted = self.writer.entries["table"]["length"], int(self.demos.lengths.sum())
        if found != wanted:
            raise ValueError(f"{self.demos.path} has {wanted} steps, and its joined columns have {found} rows.")
        self.writer.append("lengths", self.demos.lengths.astype(np.int32))
        self.writer.append("names", np.array([name.encode() for name in self.demos.names]))
        facts = {"files": self._files, "success": self.success, "languages": self._languages}
        for name, values in (facts | {"attempts": self.attempts, "returns": self.returns}).items():
            self.writer.append(name, values)
        for name, chosen in self.demos.masks.items():
            self.writer.append(f"masks/{name}", chosen)
        for key in set(self.pictures) - self.unlocated:
            for i, name in enumerate(("offsets", "sizes")):
                self.writer.append(f"frames/{key}/{name}", np.concatenate([p[i] for p in self._places[key]]))
        self._compute_statistics()

    def finish(self, sources: list[Source]) -> None:
        """Completes the index of a file whose `sources` are as given."""
        demos = self.demos
        as_lists = {
            mask: {k: v and {n: np.asarray(x).tolist() for n, x in v.items()} for k, v in keys.items()}
            for mask, keys in self.statistics.items()
        }
        self.writer.finish(
            {
                "index_version": INDEX_VERSION,
                "layout": demos.layout,
                "specs": {key: [list(shape), dtype.str] for key, (shape, dtype) in demos.specs.items()},
                "columns": {key: [a, b, list(shape)] for key, (a, b, shape) in self.columns.items()},
                "unlocated": sorted(self.unlocated),
                "languages": list(self._instructions),
                "statistics": as_lists,
                "sources": sources,
            }
        )

    def _joined(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, np.ndarray]]:
        """(episodes done, rows of the table) from pieces."""
        done = 0
        for piece in pieces:
            chosen = slice(done, done + len(piece.success))
            self.success[chosen], self.attempts[chosen] = piece.success, piece.attempts
            self.returns[chosen] = piece.returns
            self._languages[chosen] = [self._instruction(text) for text in piece.languages]
            done = chosen.stop
            for first in range(0, len(piece.columns["actions"]), BLOCK_ROWS):
                parts = {key: piece.columns[key][first : first + BLOCK_ROWS] for key in self.columns}
                rows = np.empty((len(parts["actions"]), self.width), np.float32)
                for key, (start, stop, _) in self.columns.items():
                    rows[:, start:stop] = parts[key].reshape(len(rows), -1)
                yield done, rows
        if self.pictures or len(self.demos.sources) > 1:
            for episode in range(len(self.demos.names)):
                self._locate(episode)

    def _episodes(self) -> Iterator[tuple[int, np.ndarray]]:
        """(episodes done, rows of the table) from the file, episode by episode."""
        for episode, length in enumerate(self.demos.lengths.tolist()):
            group = self._locate(episode)
            text, success = attribute(group, b"language") or "", attribute(group, b"success")
            self._languages[episode] = self._instruction(text.decode() if isinstance(text, bytes) else str(text))
            self.success[episode] = -1 if success is None else bool(success)
            self.attempts[episode] = attribute(group, b"attempts") or 1
            if "rewards" in self.demos.specs and self.demos.specs["rewards"][0] == ():
                rewards = self._column(group.id, episode, "rewards", (length,))
                self.returns[episode] = rewards.sum(dtype=np.float64)
            rows = np.empty((length, self.width), np.float32)
            observations = self._folder(group, "obs/")
            for key, (start, stop, shape) in self.columns.items():
                folder = observations if key.startswith("obs/") else group.id
                rows[:, start:stop] = self._column(folder, episode, key, (length, *shape))
            yield episode + 1, rows

    def _locate(self, episode: int) -> Any:
        """Notes which file holds an episode, and where its frames lie; returns its group."""
        group, source = self.demos.located_group(episode)
        self._files[episode] = [name for name, _, _ in self.demos.sources].index(source)
        for key in self.pictures:
            located = locate_frames(self.demos.dataset(episode, key)) if key not in self.unlocated else None
            if located is None:
                self.unlocated.add(key)
            else:
                self._places[key].append(located)
        return group

    def _instruction(self, text: str) -> int:
        return self._instructions.setdefault(text, len(self._instructions))

    def _folder(self, group: Any, name: str) -> Any:
        """The opened subgroup of an episode; None where there is none."""
        try:
            return h5py.h5g.open(group.id, self.demos.stored_name(name).rstrip("/").encode())
        except KeyError:
            return None

    def _column(self, folder: Any, episode: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """One array of an episode as (T, columns) float32, without h5py's Python layer, which costs more than HDF5."""
        try:
            dataset = h5py.h5d.open(folder, key.removeprefix("obs/").encode())
        except (KeyError, TypeError):
            dataset = self.demos.dataset(episode, key).id  # says what is missing
        if dataset.shape != shape:
            self.demos.dataset(episode, key)  # says what is wrong
        if self.demos.specs[key][1].kind == "b":  # an enumeration to HDF5, which does not convert it
            return self.demos.read(episode, key).astype(np.float32).reshape(shape[0], -1)
        values = np.empty(shape, np.float32)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values.reshape(shape[0], -1)

    def _compute_statistics(self) -> None:
        """Of the table's keys, over the file and over each mask."""
        self.writer.file.flush()
        table = map_array(self.path, self.writer.entries["table"])
        starts = np.concatenate([[0], np.cumsum(self.demos.lengths)])
        everything = range(len(self.demos.names))
        for mask, chosen in {"": np.array(everything), **self.demos.masks}.items():
            if mask and len(chosen) == len(everything):
                self.statistics[mask] = self.statistics[""]
                continue
            if not len(chosen):
                continue
            cuts = np.flatnonzero(np.diff(chosen) != 1) + 1
            firsts, lasts = chosen[np.r_[0, cuts]], chosen[np.r_[cuts - 1, len(chosen) - 1]]
            runs = list(zip(starts[firsts].tolist(), starts[lasts + 1].tolist(), strict=True))
            self.statistics[mask] = {key: self._key_statistics(table, key, runs) for key in self.columns}

    def _key_statistics(self, table: np.ndarray, key: str, runs: list[tuple[int, int]]) -> dict[str, Any] | None:
        start, stop, shape = self.columns[key]

        def chunks(_: str) -> Iterator[np.ndarray]:
            for first, last in runs:
                for row in range(first, last, BLOCK_ROWS):
                    rows = table[row : min(row + BLOCK_ROWS, last), start:stop]
                    yield rows.reshape(len(rows), *shape)

        try:
            return compute_statistics(chunks, [key])[key]
        except ValueError:  # values that are not finite; who asks for their statistics is told then
            return None


def _stays_in_place(key: str, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an observation is no part of the table: pictures, whatever is as large, and what is no number."""
    is_large = int(np.prod(shape, dtype=int)) > MAX_ROW
    is_picture = len(shape) == 3 or (len(shape) == 2 and is_image_key(key.removeprefix("obs/")))
    return key != "actions" and (is_picture or is_large or dtype.kind not in "biuf")
