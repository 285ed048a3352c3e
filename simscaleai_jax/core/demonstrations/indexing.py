"""Makes the index of a demonstration file: at the end of writing one, or on first use, with a progress bar.

Under its name an index is whole or absent: it is written beside, under another name that its writer holds locked, and
renamed. A second process waits for the first and then takes what that has made.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from simscaleai_jax.core.demonstrations.index import Index, open_index, places
from simscaleai_jax.core.demonstrations.index_builder import IndexBuilder, ProgressFn
from simscaleai_jax.core.demonstrations.reader import DemonstrationFile

FILE_MODE = 0o666  # less what the user's umask takes away
BAR_EPISODES = 1000  # fewer take no time worth a progress bar


def ensure_index(demos: DemonstrationFile) -> Index:
    """The file's index; made, and written beside it or into the user's cache, where there is none that belongs to it.

    Raises:
      ValueError: an array is missing or has another shape than in the first episode.
      OSError: it can be written in neither place; the message says why.
    """
    if demos.index is None:
        refusals = []
        for place in places(demos.path):
            try:
                demos.index = _write_index(demos, place)
                break
            except OSError as error:
                refusals.append(f"{place} ({error.strerror or error})")
        else:
            raise OSError(f"No room or no permission for the index of {demos.path}: {'; '.join(refusals)}.")
    return demos.index


def _write_index(demos: DemonstrationFile, place: Path) -> Index:
    place.parent.mkdir(parents=True, exist_ok=True)
    with claimed(place.with_name(place.name + ".tmp")) as (temporary, file):
        if (made_meanwhile := open_index(demos.path)) is not None:
            temporary.unlink()
            return made_meanwhile
        builder = IndexBuilder(demos, temporary, file)
        with _progress(demos) as progress_fn:
            builder.fill(progress_fn=progress_fn)
        builder.finish(demos.sources)
        os.fsync(file.fileno())
        os.replace(temporary, place)
    return Index(place)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """An empty file at `path` that nobody else writes to; waits for who does. After an error it is gone.

    What a killed process has left there is used again. On a file system without locks the name is one of our own.

    Yields:
      (its path, the file, unbuffered); rename or unlink it inside.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}")
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE), "r+b", buffering=0)  # noqa: SIM115
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                if path != own:
                    path.unlink(missing_ok=True)
                    path = own
                    continue
            if not _is_same(file, path):  # its holder has renamed it meanwhile
                continue
            file.truncate(0)
            try:
                yield path, file
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _progress(demos: DemonstrationFile) -> Iterator[ProgressFn | None]:
    """A bar on the terminal for files that take long enough; torch's users may lack rich, and then there is none."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield None
        return
    if len(demos.names) < BAR_EPISODES:
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"indexing {demos.path.name}, once", total=len(demos.names))
        yield lambda done, total: progress.update(bar, completed=done) if done % 100 == 0 or done == total else None
