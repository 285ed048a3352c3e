"""Single frames of a demonstration file by their place in it, without HDF5: a read, and zlib where it is compressed.

Reading needs no lock and zlib runs without Python's, so several threads decode at once.
"""

import os
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations.index import Index, linked_path
from simscaleai_jax.core.demonstrations.layout import H5

MAX_OPEN = 32  # files of a linked data set
Places = tuple[np.ndarray, np.ndarray]  # offsets (T,) int64, sizes (T,) uint32 (0: stored as it is)


def locate_frames(dataset: H5) -> Places | None:
    """Where the frames of one episode's data set lie in its file; None where that takes HDF5's own machinery.

    That is the case for chunks of several frames, filters other than gzip, and another byte order than this machine's.
    """
    length, row = len(dataset), dataset.shape[1:]
    size = int(np.prod(row, dtype=int)) * dataset.dtype.itemsize
    if not dataset.dtype.isnative or not size or dataset.file.userblock_size:
        return None
    if (offset := dataset.id.get_offset()) is not None:
        return offset + size * np.arange(length, dtype=np.int64), np.zeros(length, np.uint32)
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if dataset.chunks != (1, *row) or filters not in ([], [h5py.h5z.FILTER_DEFLATE]):
        return None
    offsets, sizes = np.zeros(length, np.int64), np.zeros(length, np.uint32)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0]] = chunk.byte_offset
        is_raw = chunk.filter_mask or not filters  # HDF5 leaves out a filter that would not make a chunk smaller
        sizes[chunk.chunk_offset[0]] = 0 if is_raw else chunk.size

    dataset.id.chunk_iter(note)
    return (offsets, sizes) if offsets.all() else None  # a chunk that was never written has no place


class FrameReader:
    """Reads located frames; safe to share between threads, and to pickle.

    Args:
      path: the demonstration file. index: its index.
    """

    def __init__(self, path: Path, index: Index) -> None:
        self.path, self.index = path, index
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()
        self._pid = -1

    def read(self, key: str, rows: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Frames of the table's rows.

        Args:
          key: "obs/<key>". rows: (M,) rows. episodes: (M,) the episode that each is of.

        Returns:
          (M, ...) as stored.

        Raises:
          ValueError: the file ends before a frame does.
        """
        shape, dtype = self.index.specs[key]
        frames = np.empty((len(rows), *shape), dtype)
        flat = frames.reshape(len(rows), -1)
        offsets, sizes = (part[rows].tolist() for part in self.index.frames[key])
        sources = self.index.files[episodes].tolist()
        whole = flat.shape[1] * dtype.itemsize
        for i, (offset, size, source) in enumerate(zip(offsets, sizes, sources, strict=True)):
            content = os.pread(self._file(source).fileno(), size or whole, offset)
            if size:
                content = zlib.decompress(content, bufsize=whole)
            if len(content) != whole:
                raise ValueError(f"{self.path}: a frame of {key!r} has {len(content)} bytes, wanted {whole}.")
            flat[i] = np.frombuffer(content, dtype)
        return frames

    def _file(self, source: int) -> BinaryIO:
        """An open source; the caller's reference keeps it open when another takes its place here."""
        if self._pid != os.getpid():
            self._open, self._pid = OrderedDict(), os.getpid()
        file = self._open.get(source)
        if file is None:
            name = self.index.sources[source][0]
            file = open(linked_path(self.path, name) if name else self.path, "rb", buffering=0)  # noqa: SIM115
            self._open[source] = file
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict(), "_pid": -1}
