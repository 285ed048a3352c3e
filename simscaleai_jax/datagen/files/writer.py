"""Writes one shard so that it is complete or absent, whatever happens.

Finished episodes are gathered into parts of a few dozen, in order. A part is built in memory, written under a
temporary name and renamed, so that a killed run loses at most the part it was working on. When all parts of a shard
are there they are copied (as they are stored, nothing is recompressed) into one file beside them, which is renamed to
its final name last. A rerun with the same settings finds the parts and makes only what is missing. One writer at a time
holds the folder of the parts, by a lock that ends with its process.
"""

import json
import os
import shutil
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.layout import Episode, demo_name, write_episode
from simscaleai_jax.datagen.files.assemble import assemble, publish
from simscaleai_jax.datagen.files.columns import write_columns
from simscaleai_jax.datagen.files.disk import check_room, explain
from simscaleai_jax.datagen.files.locks import lock_folder
from simscaleai_jax.datagen.files.shards import Shard, check_same_settings, write_atomically

PART_EPISODES = 64
SETTINGS_FILE = "settings.json"
KEPT = ": finished parts are kept"


class ShardWriter:
    """Collects the episodes of one shard in any order and writes them; to be closed, or used in a `with` statement.

    Args:
      shard: which episodes, and the final name.
      settings: description of the run, compared with what an earlier run has left behind.
      attributes: what goes into the attributes of group `data`, next to the settings.
      masks: name -> episode numbers of the whole run (train, valid); `success` is added from the episodes.
      part_episodes: episodes per part; images want fewer.

    Raises:
      ValueError: parts of a run with other settings are in the way.
      ExpectedError: another process is writing this file.
      OSError: the folder cannot be written, with the reason in words.
    """

    def __init__(
        self,
        shard: Shard,
        settings: Mapping[str, Any],
        attributes: Mapping[str, Any],
        masks: Mapping[str, np.ndarray],
        part_episodes: int = PART_EPISODES,
    ) -> None:
        self.shard = shard
        self.settings = dict(settings)
        self.attributes = dict(attributes)
        self.masks = masks
        self.part_episodes = part_episodes
        self.waiting: dict[int, Episode] = {}
        self.folder = shard.parts_folder
        try:
            self.close = weakref.finalize(self, os.close, lock_folder(self.folder, shard.path))
        except OSError as error:
            raise explain(error, self.shard.path, KEPT) from error
        try:
            self._prepare_folder()
        except OSError as error:
            self.close()
            raise explain(error, self.shard.path, KEPT) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def missing(self) -> list[int]:
        """Numbers of the episodes that no finished part holds, in order."""
        return [
            n for part in range(self.num_parts) if not self._part_path(part).exists() for n in self._part_range(part)
        ]

    @property
    def num_parts(self) -> int:
        """Parts of the shard."""
        return -(-self.shard.count // self.part_episodes)

    def add(self, number: int, episode: Episode) -> None:
        """Takes a finished episode; writes its part when that is full.

        Raises:
          ValueError: a number of another shard, one that was added before, or a malformed episode.
          OSError: it cannot be written; no half file is left.
        """
        part = (number - self.shard.first) // self.part_episodes
        if not 0 <= number - self.shard.first < self.shard.count:
            raise ValueError(f"Episode {number} is not in {self.shard}.")
        if number in self.waiting or self._part_path(part).exists():
            raise ValueError(f"Episode {number} was added twice.")
        self.waiting[number] = episode
        numbers = self._part_range(part)
        if all(n in self.waiting for n in numbers):
            content = _part_content({n: self.waiting.pop(n) for n in numbers})
            try:
                write_atomically(self._part_path(part), content)
            except OSError as error:
                raise explain(error, self.shard.path, KEPT) from error

    def finish(self) -> Path:
        """Joins the parts into the final file, removes them and closes the writer.

        Raises:
          ValueError: episodes are missing.
          OSError: it cannot be written; nothing is left under the final name, and the parts stay.
        """
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{self.shard.path} cannot be finished: {demo_name(missing[0])} is missing ({len(missing)} in all)."
            )
        sources = [self._part_path(part) for part in range(self.num_parts)]
        try:
            check_room(self.folder, sum(source.stat().st_size for source in sources))
            assembled = self.folder / "assembled.h5"
            numbers = range(self.shard.first, self.shard.first + self.shard.count)
            assemble(assembled, sources, list(numbers), self._file_attributes(), self.masks)
            publish(assembled, self.shard.path)
        except OSError as error:
            raise explain(error, self.shard.path, KEPT) from error
        remove_parts(self.shard)
        self.close()
        return self.shard.path

    def _file_attributes(self) -> dict[str, Any]:
        own = {"settings": json.dumps(self.settings, sort_keys=True)}
        if self.shard.total > 1:
            own["shard"] = f"{self.shard.index}/{self.shard.total}"
        return self.attributes | own

    def _prepare_folder(self) -> None:
        settings_path = self.folder / SETTINGS_FILE
        described = self.settings | {
            "part_episodes": self.part_episodes,
            "first": self.shard.first,
            "count": self.shard.count,
        }
        if settings_path.exists():
            stored = json.loads(settings_path.read_text())
            advice = f"Repeat it with those settings, or delete {self.folder}."
            check_same_settings(f"The unfinished run in {self.folder}", stored, described, advice)
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink()
        for part in self.folder.glob("part-*.h5"):
            if not _can_open(part):
                warnings.warn(f"{part} is damaged: its episodes are made again.", UserWarning, stacklevel=3)
                part.unlink()
        write_atomically(settings_path, json.dumps(described, sort_keys=True).encode())

    def _part_path(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.h5"

    def _part_range(self, part: int) -> range:
        start = self.shard.first + part * self.part_episodes
        return range(start, min(start + self.part_episodes, self.shard.first + self.shard.count))


def remove_parts(shard: Shard) -> None:
    """Removes the parts of a shard that is finished; those of a run that was killed just then are still there."""
    shutil.rmtree(shard.parts_folder, ignore_errors=True)


def _can_open(part: Path) -> bool:
    """Whether a part is whole; HDF5 notices what was cut.

    Raises:
      OSError: the system, and not HDF5, refuses to open it.
    """
    try:
        h5py.File(part, "r").close()
    except OSError as error:
        if error.errno is not None:
            raise
        return False
    return True


def _part_content(episodes: Mapping[int, Episode]) -> bytes:
    """An HDF5 file in memory with one group per episode, and everything that assembling needs joined in `columns`."""
    with h5py.File("part", "w", driver="core", backing_store=False, libver="latest") as file:
        for number, episode in episodes.items():
            write_episode(file.create_group(demo_name(number)), episode)
        write_columns(file, list(episodes.values()))
        file.flush()
        return file.id.get_file_image()
