"""One writer per file: who writes it holds the folder of its parts, by a lock that ends with its process."""

import fcntl
import os
from pathlib import Path

from simscaleai_jax.core.errors import ExpectedError

LOCK_FILE = "lock"


def lock_folder(folder: Path, path: Path) -> int:
    """Makes the folder, takes its lock and returns the lock's file descriptor, which is to be closed.

    Raises:
      ExpectedError: another process is writing `path`. OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:  # whoever held it has just finished and removed the folder
        return lock_folder(folder, path)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.fstat(held).st_nlink > 0  # else its holder has just finished and removed the folder
    except BlockingIOError:
        is_ours = False
    except OSError:
        is_ours = True  # a file system without locks
    if not is_ours:
        os.close(held)
        raise ExpectedError(f"{path} is being written by another process. Wait for it, or choose another output path.")
    return held
