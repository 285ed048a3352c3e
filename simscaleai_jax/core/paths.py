"""Where things lie: local paths with "~" expanded and made absolute, and object stores ("gs://", "s3://", "memory://").

Object stores go through fsspec, which takes the driver of each from a package of its own (gcsfs, s3fs).
"""

import fnmatch
import io
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
UNFINISHED = re.compile(r"\..+\.\d+\.tmp")  # the names that `write_whole` gives to what it has not finished


def is_remote(path: str | Path) -> bool:
    """Whether `path` names an object store, not a file of this machine."""
    return isinstance(path, RemotePath) or bool(URL.match(str(path)))


def locate(path: str | Path) -> Path:
    """`path` absolute and with "~" expanded; for an object store a `RemotePath`, which offers what this package uses.

    Raises:
      ImportError: the package that reaches this object store is missing.
      ValueError: no object store of that name is known.
    """
    if isinstance(path, RemotePath):
        return cast(Path, path)
    if is_remote(path):
        return cast(Path, RemotePath.open_store(str(path)))
    return Path(path).expanduser().absolute()


def local(path: str | Path, what: str) -> Path:
    """Like `locate`, for what only a local disk can hold.

    Raises:
      ValueError: `path` names an object store; the message says `what` was to be there.
    """
    if is_remote(path):
        raise ValueError(f"{what} must lie on a local or mounted disk; got {str(path)!r}. Copy it there first.")
    return Path(path).expanduser().absolute()


class RemotePath:
    """A path in an object store with the methods of `pathlib.Path` that this package uses.

    Folders are nothing but prefixes: making one does nothing, and an empty one is not there.
    """

    def __init__(self, store: Any, path: str, prefix: str) -> None:
        self._store, self._path, self._prefix = store, path.rstrip("/"), prefix

    @classmethod
    def open_store(cls, url: str) -> "RemotePath":
        """Connects to the store that `url` names; raises like `locate`."""
        from fsspec.core import url_to_fs

        try:
            store, path = url_to_fs(url)
        except ImportError as error:
            raise ImportError(f"{url} cannot be reached: {error}") from error
        scheme = URL.match(url)
        if scheme is None:
            raise ValueError(f"{url!r} names no object store, as in gs://bucket/folder.")
        return cls(store, path, scheme.group())

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(self._store, posixpath.join(self._path, name), self._prefix)

    def __str__(self) -> str:
        return self._prefix + self._path.lstrip("/")

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __lt__(self, other: "RemotePath") -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """Last part."""
        return posixpath.basename(self._path)

    @property
    def parent(self) -> "RemotePath":
        """The folder that this lies in."""
        return RemotePath(self._store, posixpath.dirname(self._path), self._prefix)

    def with_name(self, name: str) -> "RemotePath":
        """Another one in the same folder."""
        return self.parent / name

    def absolute(self) -> "RemotePath":
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether there is anything."""
        self._store.invalidate_cache()
        return self._store.exists(self._path)

    def is_file(self) -> bool:
        """Whether it is an object."""
        self._store.invalidate_cache()
        return self._store.isfile(self._path)

    def is_dir(self) -> bool:
        """Whether objects lie under it."""
        self._store.invalidate_cache()
        return self._store.isdir(self._path)

    def iterdir(self) -> Iterator["RemotePath"]:
        """What lies in this folder."""
        self._store.invalidate_cache()
        names = self._store.ls(self._path, detail=False) if self._store.isdir(self._path) else []
        return iter([self / posixpath.basename(name.rstrip("/")) for name in names])

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """What lies in this folder under a name that fits."""
        return iter([path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern)])

    def stat(self) -> SimpleNamespace:
        """Its `st_size`."""
        return SimpleNamespace(st_size=self._store.info(self._path)["size"])

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: folders are there when something lies in them."""

    def open(self, mode: str = "r", **options: Any) -> Any:
        """Opens it as a file."""
        if "b" in mode:
            return self._store.open(self._path, mode, **options)
        return io.TextIOWrapper(self._store.open(self._path, mode + "b"), encoding="utf-8", **options)

    def read_bytes(self) -> bytes:
        """The whole content."""
        return self._store.cat_file(self._path)

    def read_text(self) -> str:
        """The whole content as text."""
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Replaces the content; readers see the old one or the new one."""
        self._store.pipe_file(self._path, content)

    def write_text(self, content: str) -> None:
        """Replaces the content."""
        self.write_bytes(content.encode())

    def create(self, content: bytes) -> None:
        """Writes it where there is nothing yet; a FileExistsError where there is."""
        if self.exists():  # not every driver knows the mode
            raise FileExistsError(str(self))
        self._store.pipe_file(self._path, content, mode="create")

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes it."""
        try:
            self._store.rm_file(self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Deletes everything under it."""
        self._store.rm(self._path, recursive=True)


def remove_tree(path: Path) -> None:
    """Deletes a folder and everything in it, as far as it is there and can be deleted."""
    import shutil

    if isinstance(path, RemotePath):
        if path.is_dir():
            path.remove_tree()
    else:
        shutil.rmtree(path, ignore_errors=True)


def write_whole(path: Path, content: str) -> None:
    """Writes a small text file so that readers see the old content or the new one, never a part."""
    import os

    if isinstance(path, RemotePath):
        path.write_text(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def remove_unfinished(folder: Path) -> None:
    """Deletes what `write_whole` left in a folder when it was killed; only for whoever has the folder to itself."""
    for path in folder.glob(".*.tmp"):
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
