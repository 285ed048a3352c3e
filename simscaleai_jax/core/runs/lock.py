"""One run at a time in a folder, across processes, machines and object stores.

The holder keeps `.lock` in the folder, with the system's lock on it, which ends with the process however that ends. The
system's lock does not reach other machines on every shared file system, and object stores have none. So the file also
says who holds it and counts up every few seconds: a holder on another machine is alive while the count moves, and a
lock whose count stands still for `LEASE_SECONDS` is stale.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self

from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.core.paths import RemotePath

LOCK = ".lock"
BEAT_SECONDS = 5.0
LEASE_SECONDS = 30.0


class FolderInUseError(ExpectedError):
    """Another run has this folder."""


class FolderLock:
    """Holds a folder from `acquire` to `release`, or inside a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self._descriptor: int | None = None
        self._record: dict[str, Any] = {}
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the folder."""
        return bool(self._record)

    def acquire(self) -> None:
        """Takes the folder; waits only where a holder on another machine may be dead.

        Raises:
          FolderInUseError: a living run holds it; the message says which.
        """
        if self.is_held:
            return
        record = {"host": socket.gethostname(), **machine(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        if isinstance(self.path, RemotePath):
            self._create(record)
        else:
            self._descriptor, has_answer = self._take_system_lock()
            try:
                self._check_holder(has_answer)
            except BaseException:
                os.close(self._descriptor)
                self._descriptor = None
                raise
        self._record = record | {"since": time.time(), "beat": 0}
        _own_tokens.add(record["token"])
        self._write()
        self._stop.clear()
        self._beating = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._beating.start()

    def release(self) -> None:
        """Gives the folder back."""
        if not self.is_held:
            return
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
        _own_tokens.discard(self._record["token"])
        self._record = {}
        with contextlib.suppress(OSError):
            self.path.unlink(
                missing_ok=True
            )  # before the system's lock goes: whoever waits finds that the file is gone
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take_system_lock(self) -> tuple[int, bool]:
        """(descriptor of the file, whether the system knows locks there)."""
        while True:
            has_answer = True
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise self._in_use(read_record(self.path)) from None
            except OSError:
                has_answer = False  # a file system without locks: the count has to do
            if os.fstat(descriptor).st_nlink > 0 and _is_same_file(descriptor, self.path):
                return descriptor, has_answer
            os.close(descriptor)  # its holder has just left and taken the file with it

    def _check_holder(self, has_answer: bool) -> None:
        """Refuses a folder whose holder lives; the system's lock has already answered for this machine."""
        holder = read_record(self.path)
        is_answered = has_answer and holder.get("machine") == machine()["machine"]
        if holder and not is_answered and not is_dead(self.path, holder):
            raise self._in_use(holder)

    def _create(self, record: dict[str, Any]) -> None:
        assert isinstance(self.path, RemotePath)
        for _ in range(2):
            try:
                self.path.create(json.dumps(record | {"beat": 0}).encode())
                return
            except FileExistsError:
                holder = read_record(self.path)
                if not is_dead(self.path, holder):
                    raise self._in_use(holder) from None
                self.path.unlink(missing_ok=True)
        raise self._in_use(read_record(self.path))

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._record["beat"] += 1
            with contextlib.suppress(OSError):  # a file system that is away for a moment
                self._write()

    def _write(self) -> None:
        content = json.dumps(self._record).encode()
        if self._descriptor is None:
            self.path.write_bytes(content)
        else:  # in place: the system's lock belongs to this file, not to its name
            os.pwrite(self._descriptor, content.ljust(400), 0)

    def _in_use(self, holder: dict[str, Any]) -> FolderInUseError:
        who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
        since = ""
        if "since" in holder:
            since = f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(holder['since']))}"
        return FolderInUseError(
            f"{self.folder} belongs to a run that is going on: {who} has it{since}. Wait for it, stop it, or choose "
            "another folder."
        )


def read_record(path: Path) -> dict[str, Any]:
    """What the holder of a lock says about itself; empty where nothing readable is there."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_dead(path: Path, holder: dict[str, Any]) -> bool:
    """Whether the holder of a lock is gone: its process where that can be seen, else its count stands still.

    The count is watched for `LEASE_SECONDS`, so clocks of machines need not agree.
    """
    if machine().items() <= holder.items():
        return not _lives_here(holder)
    until = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < until:
        time.sleep(min(0.5, LEASE_SECONDS / 10))
        if (now := read_record(path)) != holder:
            return not now
    return True


def machine() -> dict[str, str]:
    """Tells running systems apart, and the spaces of process numbers within one (containers)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"machine": boot, "processes": os.readlink("/proc/self/ns/pid")}
    except OSError:
        return {"machine": socket.gethostname(), "processes": ""}


def _lives_here(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock of this machine names is still there."""
    if holder.get("pid") == os.getpid():
        return holder.get("token") in _own_tokens
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        pass
    return True


_own_tokens: set[str] = set()  # of locks that this very process holds: process numbers are given again


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
