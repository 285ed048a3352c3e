"""The arrays of a checkpoint on disk: every process writes the parts of them that it holds, and reads those it needs.

    tree/part-00000.bin     raw numbers of the pieces that process 0 wrote, one after the other

A piece is one device's share of one array; of a copy on several devices the first one writes. The manifest says where
each piece lies, and has a CRC32 for every `BLOCK_BYTES` of a file, so that a reader checks exactly what it reads.
"""

import dataclasses
import os
import weakref
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.paths import RemotePath

BLOCK_BYTES = 1 << 22
MAX_CHUNK_BYTES = 1 << 26  # of a piece that is read to take something out of it

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A share of an array in this process's memory: numbers `start` to `stop` (exclusive) along each axis."""

    name: str
    start: tuple[int, ...]
    stop: tuple[int, ...]
    data: np.ndarray


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Everything of a tree that this process has to write, copied: the tree may change or be donated meanwhile.

    Attributes:
      arrays: flat name -> {"shape", "dtype"} of every array, whoever holds it.
      pieces: this process's share.
    """

    arrays: dict[str, dict[str, Any]]
    pieces: list[Piece]

    @property
    def nbytes(self) -> int:
        """Bytes that this process holds and writes."""
        return sum(piece.data.nbytes for piece in self.pieces)


def write_part(path: Path, pieces: Iterable[Piece]) -> dict[str, Any]:
    """Writes pieces into one file; returns {"pieces", "size", "crc32"} for the manifest."""
    listed: list[dict[str, Any]] = []
    with path.open("wb") as file:
        blocks = _Blocks(file)
        for piece in pieces:
            entry = {"array": piece.name, "start": list(piece.start), "stop": list(piece.stop), "offset": blocks.size}
            listed.append(entry)
            blocks.write(memoryview(np.ascontiguousarray(piece.data).reshape(-1).view(np.uint8)))
        blocks.finish()
        file.flush()
        if not isinstance(path, RemotePath):
            os.fsync(file.fileno())
    return {"pieces": listed, "size": blocks.size, "crc32": blocks.checksums}


class _Blocks:
    """Writes bytes on and keeps the checksum of every block."""

    def __init__(self, file: Any) -> None:
        self.size, self.checksums = 0, []
        self._file, self._crc = file, 0

    def write(self, view: memoryview) -> None:
        while len(view):
            room = BLOCK_BYTES - self.size % BLOCK_BYTES
            now, view = view[:room], view[room:]
            self._file.write(now)
            self._crc = zlib.crc32(now, self._crc)
            self.size += len(now)
            if self.size % BLOCK_BYTES == 0:
                self._close_block()

    def finish(self) -> None:
        if self.size % BLOCK_BYTES:
            self._close_block()

    def _close_block(self) -> None:
        self.checksums.append(self._crc)
        self._crc = 0


class CheckedFile:
    """A file of pieces, open for reading: what is deleted meanwhile can still be read. Checks every block it reads."""

    def __init__(self, path: Path, checksums: Sequence[int], where: str) -> None:
        self._path, self._checksums, self._where = path, checksums, where
        self._file: Any = None if not isinstance(path, RemotePath) else path.open("rb")
        self._descriptor = -1
        if self._file is None:
            self._descriptor = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
        self._latest: tuple[int, bytes] = (-1, b"")  # small arrays share a block

    def read_into(self, out: memoryview, offset: int) -> None:
        """Fills `out` with the bytes from `offset` on.

        Raises:
          ValueError: a block does not match its checksum.
        """
        done = 0
        while done < len(out):
            number, skip = divmod(offset + done, BLOCK_BYTES)
            block = self._block(number)
            now = memoryview(block)[skip : skip + len(out) - done]
            out[done : done + len(now)] = now
            done += len(now)

    def _block(self, number: int) -> bytes:
        if self._latest[0] == number:
            return self._latest[1]
        block = self._read(number * BLOCK_BYTES, BLOCK_BYTES)
        if number >= len(self._checksums) or zlib.crc32(block) != self._checksums[number]:
            raise ValueError(
                f"Checkpoint {self._where} is damaged: the contents of {self._path.name} do not match their checksum "
                f"(bytes {number * BLOCK_BYTES:,} to {number * BLOCK_BYTES + len(block):,})."
            )
        self._latest = (number, block)
        return block

    def _read(self, offset: int, count: int) -> bytes:
        if self._file is not None:
            self._file.seek(offset)
            return self._file.read(count)
        return os.pread(self._descriptor, count, offset)


class StoredArray:
    """An array on disk, read by parts.

    Attributes:
      shape, dtype: of the whole array.
    """

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        self.shape, self.dtype = tuple(shape), as_dtype(dtype)
        self._pieces: list[tuple[CheckedFile, int, tuple[int, ...], tuple[int, ...]]] = []

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def add(self, file: CheckedFile, entry: Mapping[str, Any]) -> None:
        """Says where one piece of it lies."""
        self._pieces.append((file, entry["offset"], tuple(entry["start"]), tuple(entry["stop"])))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self.read(tuple(slice(None) for _ in self.shape))
        return whole if dtype is None else whole.astype(dtype)

    def read(self, index: Index) -> np.ndarray:
        """The numbers of `index`, one slice per axis with step 1; only the pieces that hold some of them are read.

        Raises:
          ValueError: they are damaged.
        """
        bounds = [part.indices(size)[:2] for part, size in zip(index, self.shape, strict=True)]
        low, high = tuple(bound[0] for bound in bounds), tuple(bound[1] for bound in bounds)
        out = np.empty([last - first for first, last in bounds], self.dtype)
        for file, offset, start, stop in self._pieces:
            inner_low, inner_high = tuple(map(max, low, start)), tuple(map(min, high, stop))
            if all(first < last for first, last in zip(inner_low, inner_high, strict=True)):
                self._copy(out, low, file, offset, (start, stop), (inner_low, inner_high))
        return out

    def _copy(
        self, out: np.ndarray, origin: tuple[int, ...], file: CheckedFile, offset: int, piece: tuple, wanted: tuple
    ) -> None:
        """Copies the part `wanted` of one piece to its place in `out`, whose first number is number `origin`."""
        (start, stop), (low, high) = piece, wanted
        shape = [last - first for first, last in zip(start, stop, strict=True)]
        if (low, high) == (start, stop) and list(out.shape) == shape:
            file.read_into(memoryview(out.reshape(-1).view(np.uint8)), offset)
            return
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        step = max(1, MAX_CHUNK_BYTES // row_bytes)
        for first in range(low[0], high[0], step):
            last = min(first + step, high[0])
            rows = np.empty([last - first, *shape[1:]], self.dtype)
            file.read_into(memoryview(rows.reshape(-1).view(np.uint8)), offset + (first - start[0]) * row_bytes)
            inside = [slice(a - s, b - s) for a, b, s in zip(low[1:], high[1:], start[1:], strict=True)]
            target = [slice(a - o, b - o) for a, b, o in zip(low[1:], high[1:], origin[1:], strict=True)]
            out[(slice(first - origin[0], last - origin[0]), *target)] = rows[(slice(None), *inside)]


def open_arrays(path: Path, record: Mapping[str, Any]) -> dict[str, StoredArray]:
    """The arrays of a checkpoint by their flat names, none of them read yet.

    Args:
      path: the checkpoint.
      record: what its manifest file holds.
    """
    arrays = {name: StoredArray(spec["shape"], spec["dtype"]) for name, spec in record["arrays"].items()}
    for name, part in record["parts"].items():
        file = CheckedFile(path / name, part["crc32"], str(path))
        for entry in part["pieces"]:
            arrays[entry["array"]].add(file, entry)
    return arrays


def as_dtype(name: str) -> np.dtype:
    """The dtype of that name, those beyond NumPy's own (bfloat16, float8_e4m3fn) included."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
