"""New HDF5 files on a disk that may be full, and its errors in words.

HDF5 does not survive a write that fails: it keeps what the disk did not take, tries again when objects are closed and
at exit, and may crash there. So it writes through a Python file that never refuses: the first error is kept, what comes
after it stays in memory, and the error is raised once HDF5 has closed the file.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py

from simscaleai_jax.core.demonstrations.layout import H5

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[tuple[H5, Callable[[], None]]]:
    """Creates a file and syncs it to the disk; after an error nothing is left at `path`.

    Args:
      options: of `h5py.File`.

    Yields:
      The file, and a function to call between episodes, which raises what the disk has answered meanwhile.

    Raises:
      OSError: the disk is full or the file cannot be written.
    """
    path.unlink(missing_ok=True)
    with _patient_hdf5(path, "wb+", "w", options) as found:
        yield found


@contextlib.contextmanager
def changed_hdf5(path: Path, **options: Any) -> Iterator[H5]:
    """Opens an existing file to add to it, likewise; after an error nothing is left at `path`."""
    with _patient_hdf5(path, "rb+", "r+", options) as (file, _):
        yield file


@contextlib.contextmanager
def _patient_hdf5(
    path: Path, raw_mode: str, mode: str, options: dict[str, Any]
) -> Iterator[tuple[H5, Callable[[], None]]]:
    try:
        with open(path, raw_mode, buffering=0) as raw:
            disk = PatientFile(raw)
            with h5py.File(disk, mode, **options) as file:
                yield file, disk.check
            disk.check()
            os.fsync(raw.fileno())
    except RuntimeError as error:  # h5py's answer when it cannot copy
        path.unlink(missing_ok=True)
        raise OSError(errno.EIO, f"HDF5 could not finish {path.name}: {error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


class PatientFile:
    """What h5py's driver for Python files asks for, over an unbuffered file; from the first error on, over memory."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.error: OSError | None = None
        self.kept: list[tuple[int, bytes]] = []  # (offset, content) that the disk did not take, oldest first
        self.position = 0
        self.size = os.fstat(raw.fileno()).st_size

    def check(self) -> None:
        """Raises the first error."""
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves; `whence` is the start or the end."""
        self.position = offset + (self.size if whence == os.SEEK_END else 0)
        return self.position

    def tell(self) -> int:
        """The position."""
        return self.position

    def write(self, content: Any) -> int:
        """Takes everything, on the disk or in memory."""
        view, done = memoryview(content).cast("B"), 0
        try:
            while self.error is None and done < len(view):
                done += os.pwrite(self.raw.fileno(), view[done:], self.position + done)
        except OSError as error:
            self.error = error
        if self.error is not None:
            self.kept.append((self.position, bytes(view)))
        self.position += len(view)
        self.size = max(self.size, self.position)
        return len(view)

    def read(self, size: int) -> bytes:
        """`size` bytes; zeros where nothing was written."""
        found = bytearray(size)
        start, done = self.position, 0
        while chunk := os.pread(self.raw.fileno(), size - done, start + done):
            found[done : done + len(chunk)] = chunk
            done += len(chunk)
        for offset, content in self.kept:
            low, high = max(start, offset), min(start + size, offset + len(content))
            if low < high:
                found[low - start : high - start] = content[low - offset : high - offset]
        self.position += size
        return bytes(found)

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer`."""
        view = memoryview(buffer).cast("B")
        view[:] = self.read(len(view))
        return len(view)

    def truncate(self, size: int) -> int:
        """Sets the size."""
        self.size = size
        try:
            if self.error is None:
                os.ftruncate(self.raw.fileno(), size)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Nothing waits."""


def check_room(folder: Path, needed: int) -> None:
    """Raises an OSError (ENOSPC) when the disk cannot take `needed` bytes more."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 2**20:.1f} MB wanted, {free / 2**20:.1f} MB free")


def explain(error: OSError, path: Path, kept: str = "") -> OSError:
    """The same error with what it means for the file being written; `kept` says what the next run will find."""
    number = errno.EIO if error.errno is None else error.errno
    reason = os.strerror(number)
    if number in NO_ROOM:
        advice = "Nothing is left under that name; free some space and run the same command again"
        return OSError(number, f"No room to write {path} ({reason}: {error}). {advice}{kept}.")
    if number in FORBIDDEN:
        return PermissionError(number, f"Cannot write {path}: {reason}. Choose a folder that you may write to.")
    return OSError(number, f"Cannot write {path}: {reason} ({error}).")
