"""A run's folder of checkpoints: written in the background, the newest N and the best kept, complete ones found again.

folder/step_000000100/   one checkpoint per saved step (see `checkpoint`)
folder/series.json       {"latest": name, "best": name or null, "metric": value or null}

Readers change nothing. Whoever writes holds the folder's lock: while it writes, or from `hold` to `close`.
"""

import contextlib
import json
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import jax

from simscaleai_jax.core import checkpoint, flat_tree, paths
from simscaleai_jax.core.checkpoint import SERIES, Manifest
from simscaleai_jax.core.checkpoint_files import Snapshot
from simscaleai_jax.core.runs.lock import FolderLock


class CheckpointSeries:
    """Saves checkpoints of one run without making the run wait for the disk."""

    def __init__(self, folder: str | Path, keep: int = 3, higher_is_better: bool = True) -> None:
        """Opens a run's folder; nothing is written before the first `save` or `hold`.

        Args:
          folder: the run's folder.
          keep: newest checkpoints to keep, at least 1; the best one is kept besides.
          higher_is_better: sense of the metric given to `save`.
        Raises:
          ValueError: `keep` below 1, or `folder` is a file or itself a checkpoint.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1; got {keep}.")
        self.folder = paths.locate(folder)
        if self.folder.is_file() or (self.folder / checkpoint.MANIFEST).exists():
            raise ValueError(f"{self.folder} is a file or a single checkpoint; a series needs a folder of its own.")
        self._keep, self._sign = keep, 1.0 if higher_is_better else -1.0
        self._is_main = jax.process_index() == 0
        self._lock = FolderLock(self.folder)
        self._is_held = False
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future | None = None
        self._token, self._saves = "", 0
        self._is_abandoned = threading.Event()

    def hold(self) -> None:
        """Takes the folder until `close`, and tidies up after an interrupted write; called by every process.

        What such a write left is deleted, unless it is the only whole copy of its step: that gets its name back.

        Raises:
          FolderInUseError: another run has it.
        """
        if self._is_main:
            self._take()
        self._is_held = True

    def save(self, step: int, tree: Any, manifest: Manifest, metric: float | None = None) -> Path:
        """Copies this process's share of `tree` and writes it in the background; waits only for the write before it.

        A `metric` that is not finite counts as none.

        Returns:
          The path where the checkpoint will be; it is complete after `wait()` in process 0.
        Raises:
          OSError, ValueError: what the write before it met, a manifest that cannot be written, or weights that are not
            finite.
          FolderInUseError: another run has the folder.
        """
        record = checkpoint.manifest_record(manifest)
        self.wait()
        snapshot = flat_tree.snapshot(tree)
        if self._is_main:  # the others tell it from their write: it would wait for their parts
            checkpoint.check_finite(snapshot)
            self._take()
        self._token = self._token or checkpoint.make_token()
        self._saves += 1
        path = self.folder / f"step_{step:09d}"
        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        token = f"{self._token}{self._saves:x}"
        self._pending = self._worker.submit(self._write, path, snapshot, record, metric, token)
        return path

    def wait(self) -> None:
        """Blocks until everything saved so far is on disk; raises what writing it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits for the last write, stops the background thread and gives the folder back."""
        try:
            self.wait()
        finally:
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.shutdown()
            self._lock.release()
            self._is_held = False

    def abandon(self) -> None:
        """Like `close`, where another process is dead: the write that waits for its part ends without a checkpoint."""
        self._is_abandoned.set()
        with contextlib.suppress(OSError):
            self.close()

    def steps(self) -> list[Path]:
        """Complete checkpoints, oldest first; cut or foreign directories are left out."""
        return checkpoint.complete_steps(self.folder)

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        complete = self.steps()
        return complete[-1] if complete else None

    def best(self) -> Path | None:
        """The complete checkpoint with the best metric, or None when no metric was given."""
        name = checkpoint.read_index(self.folder).get("best")
        return self.folder / name if name and checkpoint.is_complete(self.folder / name) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> None:
        if not self._lock.is_held:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._tidy()

    def _write(self, path: Path, snapshot: Snapshot, record: dict[str, Any], metric: float | None, token: str) -> None:
        try:
            checkpoint.write(path, snapshot, record, token, self._is_abandoned)
            if self._is_main:
                self._remember(path, metric)
        finally:
            if not self._is_held:
                self._lock.release()

    def _remember(self, path: Path, metric: float | None) -> None:
        """Writes series.json and deletes what is no longer kept."""
        best, score = self._best_so_far()
        if metric is not None and math.isfinite(metric) and (score is None or self._sign * (metric - score) >= 0):
            best, score = path.name, float(metric)
        content = json.dumps({"latest": path.name, "best": best, "metric": score})
        paths.write_whole(self.folder / SERIES, content)
        self._prune({best, path.name})

    def _best_so_far(self) -> tuple[str | None, float | None]:
        """Name and metric of the best checkpoint; (None, None) where there is none or it is gone."""
        index = checkpoint.read_index(self.folder)
        best, score = index.get("best"), index.get("metric")
        if not best or score is None or not math.isfinite(score) or not (self.folder / best).is_dir():
            return None, None
        return best, score

    def _prune(self, kept: set[str | None]) -> None:
        """Deletes all but the newest checkpoints and those named; the one just written may be an older step."""
        for old in self.steps()[: -self._keep]:
            if old.name not in kept:
                paths.remove_tree(old)

    def _tidy(self) -> None:
        if paths.is_remote(self.folder):
            return  # what has no manifest there is written over by the next save of its step
        paths.remove_unfinished(self.folder)
        leftovers = sorted(self.folder.glob(".step_*.tmp"), key=lambda path: path.stat().st_mtime, reverse=True)
        for leftover in leftovers:
            path = self.folder / leftover.name.split(".")[1]
            if not path.exists() and checkpoint.is_complete(leftover):
                leftover.rename(path)
            else:
                paths.remove_tree(leftover)
