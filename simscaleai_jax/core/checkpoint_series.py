"""A run's folder of checkpoints: written in the background, the newest N and the best kept, complete ones found again.

folder/step_000000100/   one checkpoint per saved step (see `checkpoint`)
folder/series.json       {"latest": name, "best": name or null, "metric": value or null}
"""

import json
import math
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
        """Opens (or creates) a run's folder and tidies up after an interrupted write.

        What such a write left is deleted, unless it is the only whole copy of its step: that gets its name back.

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
            self._tidy()

    def save(self, step: int, tree: Any, manifest: Manifest, metric: float | None = None) -> Path:
        """Copies `tree` to the host and writes it in the background; waits only for the write before it.

        A `metric` that is not finite counts as none.

        Returns:
          The path where the checkpoint will be; it is complete after `wait()`.
        Raises:
          OSError, ValueError: what the write before it met, a manifest that cannot be written, or weights that are not
            finite.
        """
        arrays, record = host_arrays(tree), checkpoint.manifest_record(manifest)
        checkpoint.check_finite(arrays)
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

    def _write(self, path: Path, arrays: dict, record: dict[str, Any], metric: float | None) -> None:
        checkpoint.write_arrays(path, arrays, record)
        best, score = self._best_so_far()
        if metric is not None and math.isfinite(metric) and (score is None or self._sign * (metric - score) >= 0):
            best, score = path.name, float(metric)
        content = json.dumps({"latest": path.name, "best": best, "metric": score})
        temporary = self.folder / f".{SERIES}.tmp"
        temporary.write_text(content)
        os.replace(temporary, self.folder / SERIES)
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
                shutil.rmtree(old, ignore_errors=True)

    def _tidy(self) -> None:
        leftovers = sorted(self.folder.glob(".step_*.tmp"), key=lambda path: path.stat().st_mtime, reverse=True)
        for leftover in leftovers:
            path = self.folder / leftover.name.split(".")[1]
            if not path.exists() and checkpoint.is_complete(leftover):
                leftover.rename(path)
            else:
                shutil.rmtree(leftover, ignore_errors=True)
