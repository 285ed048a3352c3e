"""Builds a complete file from groups that lie in other files: a shard from its parts, a data set from its shards."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.layout import FORMAT_VERSION, H5, demo_name, write_masks, write_statistics
from simscaleai_jax.core.demonstrations.statistics import compute_statistics
from simscaleai_jax.datagen.files.columns import COLUMNS, Columns
from simscaleai_jax.datagen.files.disk import new_hdf5


def assemble(
    path: Path,
    sources: Sequence[Path],
    numbers: Sequence[int],
    attributes: Mapping[str, Any],
    masks: Mapping[str, np.ndarray],
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
    with new_hdf5(path, libver="latest") as (file, check), contextlib.ExitStack() as stack:
        data = file.create_group("data", track_order=True)
        found: dict[int, H5] = {}
        for source in sources:
            if link:
                found |= _link_demos(source, data, path.parent, set(numbers), stack)
            else:
                found |= _copy_demos(source, data, set(numbers), check)
        missing = [number for number in numbers if number not in found]
        if missing:
            raise ValueError(f"{demo_name(missing[0])} is missing ({len(missing)} of {len(numbers)}).")
        demos = [found[number] for number in numbers]
        _write_rest(file, demos, Columns(sources, demos, stack), numbers, attributes, masks)


def _write_rest(
    file: H5,
    demos: Sequence[H5],
    columns: Columns,
    numbers: Sequence[int],
    attributes: Mapping[str, Any],
    masks: Mapping[str, np.ndarray],
) -> None:
    """Masks, statistics and attributes, from the episodes."""
    data = file["data"]
    successes = [number for number, success in zip(numbers, columns.summary("success"), strict=True) if success]
    wanted = set(numbers)
    cut = {name: [demo_name(n) for n in sorted(wanted.intersection(chosen.tolist()))] for name, chosen in masks.items()}
    write_masks(file, cut | {"success": [demo_name(n) for n in successes]})
    write_statistics(file, compute_statistics(columns, ["actions", *(f"obs/{key}" for key in demos[0]["obs"])]))
    data.attrs.update(attributes)
    data.attrs["total"] = int(columns.summary("num_samples").sum())
    data.attrs["format_version"] = FORMAT_VERSION
    data.attrs["mean_return"] = float(columns.summary("return").mean())
    data.attrs["successes"] = len(successes)
    data.attrs["attempts"] = int(columns.summary("attempts").sum())
    data.attrs["first_episode"] = numbers[0]
    data.attrs["num_episodes"] = len(numbers)
    data.attrs["complete"] = True


def _copy_demos(source: Path, data: H5, wanted: set[int], check: Callable[[], None]) -> dict[int, H5]:
    """Copies demos as they are stored; returns the copies."""
    copies = {}
    with h5py.File(source, "r") as file:
        for number, demo in _demos(file, wanted):
            data.file.copy(demo, data, demo_name(number))
            copies[number] = data[demo_name(number)]
            check()
    return copies


def _link_demos(source: Path, data: H5, folder: Path, wanted: set[int], stack: contextlib.ExitStack) -> dict[int, H5]:
    """Links demos by a path relative to the new file's folder; returns the originals.

    HDF5 would open a link for writing here, because its own file is being written.
    """
    file = stack.enter_context(h5py.File(source, "r"))
    target = os.path.relpath(source, folder)
    originals = dict(_demos(file, wanted))
    for number, demo in originals.items():
        data[demo_name(number)] = h5py.ExternalLink(target, demo.name)
    return originals


def _demos(file: H5, wanted: set[int]) -> Iterator[tuple[int, H5]]:
    holder = file.get("data", file)
    for number in sorted(int(name.removeprefix("demo_")) for name in holder if name != COLUMNS):
        if number in wanted:
            yield number, holder[demo_name(number)]
