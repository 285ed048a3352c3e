"""Builds a file and its index from groups that lie in other files: a shard from parts, a data set from shards."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.index import beside, stamp
from simscaleai_jax.core.demonstrations.index_builder import IndexBuilder
from simscaleai_jax.core.demonstrations.layout import FORMAT_VERSION, H5, demo_name, write_masks, write_statistics
from simscaleai_jax.core.demonstrations.reader import DemonstrationFile
from simscaleai_jax.core.demonstrations.statistics import compute_statistics
from simscaleai_jax.datagen.files.columns import COLUMNS, read_pieces
from simscaleai_jax.datagen.files.disk import changed_hdf5, new_hdf5

IMAGE_ROWS = 64


def assemble(
    path: Path,
    sources: Sequence[Path],
    numbers: Sequence[int],
    attributes: Mapping[str, Any],
    masks: Mapping[str, np.ndarray],
    link: bool = False,
) -> None:
    """Writes a whole file at `path` and its index beside it, synced to the disk; `publish` gives them their names.

    One source is open at a time.

    Args:
      sources: files that hold `demo_{i}` groups, at their root (parts) or under `data` (shards), in order.
      numbers: episodes that must be there, in order.
      attributes: of group `data`.
      masks: name -> episode numbers, cut to `numbers`; "success" is added.
      link: store links to the sources instead of copies; they must stay where they are, relative to `path`.

    Raises:
      ValueError: an episode is missing, or values are not finite.
      OSError: the disk is full or the file cannot be written; nothing is left at `path`.
    """
    try:
        _write_episodes(path, sources, numbers, attributes, masks, link)
        _write_index(path, sources)
    except BaseException:
        path.unlink(missing_ok=True)
        beside(path).unlink(missing_ok=True)
        raise


def publish(path: Path, final: Path) -> None:
    """Gives an assembled file, then its index, their final names; killed in between, the next reader makes the index.

    Raises:
      OSError: as the system says.
    """
    os.replace(path, final)
    os.replace(beside(path), beside(final))


def _write_episodes(
    path: Path,
    sources: Sequence[Path],
    numbers: Sequence[int],
    attributes: Mapping[str, Any],
    masks: Mapping[str, np.ndarray],
    link: bool,
) -> None:
    """The file but for its statistics and its summary."""
    wanted, succeeded = set(numbers), {}
    with new_hdf5(path, libver="latest") as (file, check):
        data = file.create_group("data", track_order=True)
        for source in sources:
            succeeded |= _add_demos(source, data, os.path.realpath(path.parent) if link else None, wanted, check)
        missing = [number for number in numbers if number not in succeeded]
        if missing:
            raise ValueError(f"{demo_name(missing[0])} is missing ({len(missing)} of {len(numbers)}).")
        cut = {name: sorted(wanted.intersection(chosen.tolist())) for name, chosen in masks.items()}
        cut["success"] = [number for number in numbers if succeeded[number]]
        write_masks(file, {name: [demo_name(number) for number in chosen] for name, chosen in cut.items()})
        data.attrs.update(attributes)
        data.attrs["format_version"] = FORMAT_VERSION
        data.attrs["successes"] = len(cut["success"])
        data.attrs["first_episode"] = numbers[0]
        data.attrs["num_episodes"] = len(numbers)
        data.attrs["complete"] = True


def _write_index(path: Path, sources: Sequence[Path]) -> None:
    """The index, and into the file what only a look at all episodes tells."""
    with open(beside(path), "wb+", buffering=0) as raw:
        demos = DemonstrationFile(path)
        builder = IndexBuilder(demos, beside(path), raw)
        builder.fill(read_pieces(sources))
        statistics = dict(builder.statistics[""])
        wrong = [key for key, value in statistics.items() if value is None]
        if wrong:
            raise ValueError(f"{wrong[0]!r} holds values that are not finite; statistics of it mean nothing.")
        statistics |= compute_statistics(lambda key: _image_rows(demos, key), builder.pictures)
        demos.close()
        with changed_hdf5(path, libver="latest") as file:
            write_statistics(file, statistics)
            attributes = file["data"].attrs
            attributes["total"] = int(demos.lengths.sum())
            attributes["mean_return"] = float(builder.returns.mean())
            attributes["attempts"] = int(builder.attempts.sum())
        builder.finish([stamp(path), *demos.sources[1:]])
        os.fsync(raw.fileno())


def _add_demos(
    source: Path, data: H5, link_folder: str | None, wanted: set[int], check: Callable[[], None]
) -> dict[int, bool]:
    """Copies demos as they are stored, or links to them from `link_folder`; returns their numbers and successes.

    A link's path is from where the folder really lies: there HDF5 begins, however the folder is called.
    """
    succeeded = {}
    with h5py.File(source, "r") as file:
        for number, demo in _demos(file, wanted):
            if link_folder is None:
                data.file.copy(demo, data, demo_name(number))
                check()
            else:
                target = os.path.relpath(os.path.realpath(source), link_folder)
                data[demo_name(number)] = h5py.ExternalLink(target, demo.name)
            succeeded[number] = bool(demo.attrs["success"])
    return succeeded


def _image_rows(demos: DemonstrationFile, key: str) -> Iterator[np.ndarray]:
    for episode, length in enumerate(demos.lengths.tolist()):
        dataset = demos.dataset(episode, key)
        for start in range(0, length, IMAGE_ROWS):
            yield dataset[start : start + IMAGE_ROWS]


def _demos(file: H5, wanted: set[int]) -> Iterator[tuple[int, H5]]:
    holder = file.get("data", file)
    for number in sorted(int(name.removeprefix("demo_")) for name in holder if name != COLUMNS):
        if number in wanted:
            yield number, holder[demo_name(number)]
