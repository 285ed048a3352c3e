"""A run's folder of checkpoints: written in the background, the newest N and the best kept, complete ones found again.

folder/step_000000100/   one checkpoint per saved step (see `checkpoint`)
folder/series.json       {"latest": name, "best": name or null, "metric": value or null}
"""

import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import jax

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.checkpoint import SERIES, Manifest
from simscaleai_jax.core.flat_tree import host_arrays


class CheckpointSeries:
    """Saves checkpoints of one run without making the run wait for the disk."""

    def __init__(self, folder: str | Path, keep: int = 3, higher_is_better: bool = True) -> None:
        """Opens (or creates) a run's folder and deletes what an interrupted write left there.

        Args:
          folder: the run's folder.
          keep: newest checkpoints to keep, at least 1; the best one is kept besides.
          higher_is_better: sense of the metric given to `save`.
        Raises:
          ValueError: `keep` below 1, or `folder` is a file or itself a checkpoint.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1; got {keep}.")
        self.folder = Path(folder).absolute()
        if self.folder.is_file() or (self.folder / checkpoint.MANIFEST).exists():
            raise ValueError(f"{self.folder} is a file or a single checkpoint; a series needs a folder of its own.")
        self._keep, self._sign = keep, 1.0 if higher_is_better else -1.0
        self._writes = jax.process_index() == 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None
        if self._writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".step_*.tmp"):
                shutil.rmtree(leftover, ignore_errors=True)

    def save(self, step: int, tree: Any, manifest: Manifest, metric: float | None = None) -> Path:
        """Copies `tree` to the host and writes it in the background; waits only for the write before it.

        Returns:
          The path where the checkpoint will be; it is complete after `wait()`.
        Raises:
          OSError, ValueError: what the write before it met, or a manifest that cannot be written.
        """
        arrays, record = host_arrays(tree), checkpoint.manifest_record(manifest)
        self.wait()
        path = self.folder / f"step_{step:09d}"
        if self._writes:
            self._pending = self._worker.submit(self._write, path, arrays, record, metric)
        return path

    def wait(self) -> None:
        """Blocks until everything saved so far is on disk; raises what writing it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits for the last write and stops the background thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def steps(self) -> list[Path]:
        """Complete checkpoints, oldest first; cut or foreign directories are left out."""
        return [path for path in sorted(self.folder.glob("step_*")) if _is_complete(path)]

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        complete = self.steps()
        return complete[-1] if complete else None

    def best(self) -> Path | None:
        """The complete checkpoint with the best metric, or None when no metric was given."""
        name = self._index().get("best")
        return self.folder / name if name and _is_complete(self.folder / name) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, path: Path, arrays: dict, record: dict[str, Any], metric: float | None) -> None:
        checkpoint.write_arrays(path, arrays, record)
        index = self._index()
        best, score = index.get("best"), index.get("metric")
        if metric is not None and (score is None or self._sign * metric >= self._sign * score or best is None):
            best, score = path.name, float(metric)
        content = json.dumps({"latest": path.name, "best": best, "metric": score})
        temporary = self.folder / f".{SERIES}.tmp"
        temporary.write_text(content)
        os.replace(temporary, self.folder / SERIES)
        self._prune(best)

    def _prune(self, best: str | None) -> None:
        for old in self.steps()[: -self._keep]:
            if old.name != best:
                shutil.rmtree(old, ignore_errors=True)

    def _index(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / SERIES).read_text())
        except (OSError, json.JSONDecodeError):
            return {}


def _is_complete(path: Path) -> bool:
    try:
        checkpoint.read_manifest(path)
    except (OSError, ValueError):
        return False
    return True
