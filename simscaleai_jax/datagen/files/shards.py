"""What a run makes, and which file holds which episode.

A run is described by its settings, a flat JSON-able dict, which are stored in every file: a rerun, a resume and a merge
compare them, so that episodes of different runs never end up in one file by accident. An episode is a function of the
settings and its number alone, whence a data set does not depend on the number of shards.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shard:
    """A contiguous range of episodes that goes into one file.

    Attributes:
      path: final name of the file.
      first, count: episodes first .. first+count-1.
      index, total: shard number and how many there are.
    """

    path: Path
    first: int
    count: int
    index: int = 0
    total: int = 1

    @property
    def parts_folder(self) -> Path:
        """Where finished parts wait until the shard is whole."""
        return self.path.with_name(self.path.name + ".parts")


def plan_shards(output_path: str | Path, num_episodes: int, num_shards: int = 1) -> list[Shard]:
    """Splits a run evenly; one shard keeps the output name, several are called name-00000-of-00004.h5.

    Raises:
      ValueError: no episodes, or more shards than episodes.
    """
    if num_episodes < 1:
        raise ValueError(f"n_episodes must be at least 1, got {num_episodes}.")
    if not 1 <= num_shards <= num_episodes:
        raise ValueError(f"shards must lie between 1 and n_episodes={num_episodes}, got {num_shards}.")
    path = Path(output_path)
    if num_shards == 1:
        return [Shard(path, 0, num_episodes)]
    bounds = [index * num_episodes // num_shards for index in range(num_shards + 1)]
    names = [f"{path.stem}-{index:05d}-of-{num_shards:05d}{path.suffix}" for index in range(num_shards)]
    return [
        Shard(path.with_name(name), bounds[index], bounds[index + 1] - bounds[index], index, num_shards)
        for index, name in enumerate(names)
    ]


def check_same_settings(where: str, stored: Mapping[str, Any], wanted: Mapping[str, Any], advice: str) -> None:
    """Raises a ValueError that lists every setting in which two runs differ."""
    stored, wanted = json.loads(json.dumps(stored)), json.loads(json.dumps(wanted))
    names = sorted({*stored, *wanted})
    different = [f"{n} {stored.get(n)!r} (now {wanted.get(n)!r})" for n in names if stored.get(n) != wanted.get(n)]
    if different:
        raise ValueError(f"{where} was made with other settings: {', '.join(different)}. {advice}")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it: at any moment the final name is absent or whole.

    Raises:
      OSError: as the system says; the temporary file is gone then.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def missing_numbers(numbers: Iterable[int], first: int, count: int) -> list[int]:
    """Numbers of first .. first+count-1 that are not among `numbers`."""
    present = set(numbers)
    return [number for number in range(first, first + count) if number not in present]
