"""Reads demonstration files: ours, robomimic's and the older one-group-per-episode layout, behind one interface.

A file that has its index beside it opens without a look at its episodes. Nothing stays open across a fork or a pickle:
each process opens for itself. Of the files that a merged one links to, a few are open at a time.
"""

import json
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.index import Index, Source, linked_path, open_index, stamp
from simscaleai_jax.core.demonstrations.layout import FORMAT_VERSION, H5
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.observations import image_keys

OLD_EPISODE = re.compile(r"episode_\d+$")
DEMO = re.compile(r"demo_\d+$")
MAX_OPEN = 16  # linked files


class _Row(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any


class DemonstrationFile:
    """A complete demonstration file, opened lazily and read-only; safe to share with worker processes.

    Attributes:
      path: the file.
      layout: "simscaleai", "robomimic" or "episodes" (the older one).
      names: group names of the episodes in order; lengths: (episodes,) int64 steps of each.
      obs_keys: sorted names of observations. image_keys: those of them that are pictures.
      specs: path in an episode ("actions", "obs/ee_pos") -> (row shape, dtype).
      attributes: file-level attributes (env name, seed, ...).
      masks: name -> sorted episode indices (int64).
      index: the file's index where one lies beside it and belongs to it, else None (`indexing.ensure_index` makes it).
      sources: the file and those that it links to, as far as they were opened, as they were when they were.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not HDF5, cut, unfinished, without the groups of any known layout, or links to nowhere; named.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: H5 = None
        self._links: OrderedDict[str, H5] = OrderedDict()
        self._pid = -1
        file = self.file
        self.sources: list[Source] = [stamp(self.path)]
        self.index: Index | None = open_index(self.path)
        if self.index is not None:
            self.layout, self.names, self.lengths = self.index.layout, self.index.names, self.index.lengths
            self.specs, self.masks = self.index.specs, self.index.masks
        else:
            self.layout, self.names = _find_episodes(file, self.path)
            self.lengths = np.array([self._length(name) for name in self.names], np.int64)
            self.specs = self._specs(self.names[0])
            self.masks = self._masks()
        self.attributes = _attributes(self.holder)
        self.obs_keys = sorted(key[4:] for key in self.specs if key.startswith("obs/"))
        self.image_keys = image_keys({key: _Row(*self.specs[f"obs/{key}"]) for key in self.obs_keys})
        if not self.obs_keys:
            raise ValueError(f"{self.path}: {self.names[0]} has no observations (group {self.stored_name('obs/')!r}).")
        if self.layout != "simscaleai" and self.index is None:  # our own writer has checked this before
            for index in range(1, len(self.names)):
                self._check_specs(index)

    def close(self) -> None:
        """Closes what is open; the next access opens it again."""
        if self._pid == os.getpid():
            for file in (*self._links.values(), self._file):
                file.close()
        self._file, self._links = None, OrderedDict()

    @property
    def file(self) -> H5:
        """The open handle of this process."""
        if self._file is None or self._pid != os.getpid():
            self._file, self._links, self._pid = _open(self.path), OrderedDict(), os.getpid()
        return self._file

    @property
    def stored_statistics(self) -> dict[str, Any] | None:
        """Statistics of the whole file as written with it, or None."""
        return _read_tree(self.file["stats"]) if "stats" in self.file else None

    @property
    def holder(self) -> H5:
        """Group of the file-level attributes."""
        return self.file["/" + self._root]

    @property
    def _root(self) -> str:
        return "" if self.layout == "episodes" else "data/"

    def group(self, index: int) -> H5:
        """Group of one episode; that of a linked one is valid until MAX_OPEN other linked files were opened.

        Raises:
          ValueError: it is a link to a file that is not there any more.
        """
        return self._group(self.names[index])[0]

    def located_group(self, index: int) -> tuple[H5, str]:
        """Group of one episode, and the name of the file that holds it as in `sources`; errors as `group`."""
        return self._group(self.names[index])

    def dataset(self, index: int, key: str) -> H5:
        """Data set of one episode, checked against the first episode's shape.

        Raises:
          ValueError: it is missing or has another shape or length.
        """
        group, stored = self.group(index), self.stored_name(key)
        if stored not in group:
            present = sorted(self._specs(self.names[index]))
            raise ValueError(f"{self.path}: {self.names[index]} has no {key!r}.{suggest(key, present)}")
        dataset = group[stored]
        shape = self.specs[key][0] if key in self.specs else dataset.shape[1:]
        if dataset.shape != (self.lengths[index], *shape):
            raise ValueError(
                f"{self.path}: {key!r} of {self.names[index]} has shape {dataset.shape}, "
                f"wanted {(int(self.lengths[index]), *shape)} as in {self.names[0]}."
            )
        return dataset

    def read(self, index: int, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) of one episode's data set, copied."""
        return self.dataset(index, key)[start:stop]

    def language(self, index: int) -> str:
        """Instruction of an episode, "" where there is none."""
        value = self.group(index).attrs.get("language", "")
        return value.decode() if isinstance(value, bytes) else str(value)

    def success(self, index: int) -> bool | None:
        """Whether the episode succeeded, None where the file does not say."""
        value = self.group(index).attrs.get("success")
        return None if value is None else bool(value)

    def stored_name(self, key: str) -> str:
        """Path of a key in this layout."""
        return key.replace("obs/", "observations/", 1) if self.layout == "episodes" and key.startswith("obs/") else key

    def _group(self, name: str) -> tuple[H5, str]:
        """(group, file that holds it, "" for this one); links are followed here, so that few files are open at once."""
        place = (self._root + name).encode()
        holder = h5py.h5g.open(self.file.id, b"/")
        if holder.links.get_info(place).type != h5py.h5l.TYPE_EXTERNAL:  # h5py's own layer costs several times as much
            return h5py.Group(h5py.h5g.open(holder, place)), ""
        link: Any = self.file.get(self._root + name, getlink=True)
        try:
            return self._linked(link.filename)[link.path], link.filename
        except (OSError, KeyError) as error:
            raise ValueError(
                f"{self.path}: {name} is a link to {linked_path(self.path, link.filename)}, which cannot be opened; "
                "shards stay in their place relative to a file that was merged with links."
            ) from error

    def _linked(self, name: str) -> H5:
        """The open file that links call `name`."""
        if name in self._links:
            self._links.move_to_end(name)
            return self._links[name]
        source = stamp(self.path, name)
        if source[0] not in [known for known, _, _ in self.sources]:
            self.sources.append(source)
        self._links[name] = h5py.File(linked_path(self.path, name), "r")
        if len(self._links) > MAX_OPEN:
            self._links.popitem(last=False)[1].close()
        return self._links[name]

    def _length(self, name: str) -> int:
        group = self._group(name)[0]
        if (length := attribute(group, b"num_samples")) is not None:
            return int(length)
        if "actions" not in group:
            raise ValueError(f"{self.path}: {name} has no 'actions'.")
        return len(group["actions"])

    def _specs(self, name: str) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        specs: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

        def visit(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim:
                key = path.replace("observations/", "obs/", 1) if path.startswith("observations/") else path
                specs[key] = (item.shape[1:], item.dtype)

        self._group(name)[0].visititems(visit)
        if "actions" not in specs:
            raise ValueError(f"{self.path}: {name} has no 'actions'.")
        return specs

    def _check_specs(self, index: int) -> None:
        for key in ("actions", *(f"obs/{key}" for key in self.obs_keys)):
            self.dataset(index, key)

    def _masks(self) -> dict[str, np.ndarray]:
        position = {name: index for index, name in enumerate(self.names)}
        masks = {}
        for mask, dataset in self.file.get("mask", {}).items():
            names = [value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]]
            masks[mask] = np.array(sorted(position[name] for name in names if name in position), np.int64)
        return masks

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_links": OrderedDict(), "_pid": -1}


def attribute(group: H5, name: bytes) -> Any:
    """`group.attrs.get(name)` of a number or a string, low-level: it is asked for in every episode."""
    if not h5py.h5a.exists(group.id, name):
        return None
    stored = h5py.h5a.open(group.id, name)
    value = np.empty(stored.shape, stored.dtype)
    stored.read(value)
    return value.item() if value.size == 1 else None


def _open(path: Path) -> H5:
    if not path.exists():
        raise FileNotFoundError(f"Demonstration file {str(path)!r} does not exist.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, wanted an HDF5 file; merge shards with `simscale merge`.")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty (0 bytes).")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise ValueError(f"{path} is cut: {size} bytes are there, the file says it has more ({error}).") from error
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"{path} is not a readable HDF5 file ({error}).") from error


def _find_episodes(file: H5, path: Path) -> tuple[str, list[str]]:
    """Layout and ordered group names; refuses an unfinished file and says which episode is missing."""
    data: H5 = file.get("data")
    if isinstance(data, h5py.Group):
        names = sorted((str(name) for name in data if DEMO.match(str(name))), key=lambda name: int(name[5:]))
        if "format_version" in data.attrs:
            _check_complete(data, names, path)
            return "simscaleai", names
        if names:
            return "robomimic", names
        raise ValueError(f"{path}: group 'data' holds no episodes (demo_0, ...); found {sorted(data)[:5]}.")
    names = sorted(name for name in file if OLD_EPISODE.match(name))
    if not names:
        found = sorted(file)[:5]
        raise ValueError(f"{path} holds no demonstrations: wanted 'data/demo_0' or 'episode_00000', found {found}.")
    wanted = int(file.attrs.get("n_episodes", len(names)))
    missing = [
        f"episode_{i:05d}" for i in range(wanted) if f"episode_{i:05d}" not in file and f"episode_{i}" not in file
    ]
    if missing:
        raise ValueError(
            f"{path} is unfinished: {missing[0]} is missing ({len(names)} of {wanted} episodes are there)."
        )
    return "episodes", sorted(names, key=lambda name: int(name[8:]))


def _check_complete(data: H5, names: list[str], path: Path) -> None:
    version = int(data.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has format version {version}; this release reads up to {FORMAT_VERSION}.")
    first, wanted = int(data.attrs.get("first_episode", 0)), int(data.attrs.get("num_episodes", len(names)))
    missing = [f"demo_{i}" for i in range(first, first + wanted) if f"demo_{i}" not in data]
    if missing or not data.attrs.get("complete", False):
        which = f"{missing[0]} is missing" if missing else "it was never marked complete"
        raise ValueError(f"{path} is unfinished: {which} ({len(names)} of {wanted} episodes are there).")
    if not names:
        raise ValueError(f"{path} holds no episodes.")


def _attributes(holder: H5) -> dict[str, Any]:
    """Attributes as plain Python values; JSON strings are decoded."""
    result = {}
    for name, value in holder.attrs.items():
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, str) and value[:1] in ("{", "["):
            value = json.loads(value)
        result[name] = value.item() if isinstance(value, np.generic) else value
    return result


def _read_tree(group: H5) -> dict[str, Any]:
    return {name: _read_tree(item) if isinstance(item, h5py.Group) else item[()] for name, item in group.items()}
