"""What a training run shows and where its numbers go: the terminal, the run's files, and the trackers asked for.

Process 0 alone writes. A row is {"step": ..., name: number}; rows of training and of evaluation share the files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simscaleai_jax.core import paths
from simscaleai_jax.core.runs.metrics import JSONL, MetricsFiles, Row, read_rows
from simscaleai_jax.core.runs.trackers import About, Sink, open_trackers
from simscaleai_jax.training.config import TrainConfig

__all__ = ["JSONL", "RunLog", "read_rows"]


class RunLog:
    """Writes rows; a context manager around the training loop."""

    def __init__(self, config: TrainConfig, is_main: bool, progress: bool = True) -> None:
        self.config, self.is_main = config, is_main
        self.console = Console(quiet=not (is_main and progress), highlight=False)
        self._files = MetricsFiles(config.checkpoint_dir) if is_main else None
        self._sinks: list[Sink] = []
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self.console, disable=not (is_main and progress and self.console.is_terminal),
        )  # fmt: skip
        self._task = self._bar.add_task(config.model_name, total=config.max_steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._files is not None:
            self._files.close()
        for sink in self._sinks:
            sink.close()

    def start(self, step: int, run_id: str = "", settings: Mapping[str, Any] | None = None) -> None:
        """Drops rows after `step`, which a stopped run may have left, and starts the bar and the trackers there."""
        if self._files is not None:
            self._files.truncate(step)
            about = About(paths.locate(self.config.checkpoint_dir), run_id, settings or {}, step)
            self._sinks = open_trackers(self.config.tracking, about)
        self._bar.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """A line for people."""
        self.console.print(text, markup=False)

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        """Adds one row and shows it."""
        row: Row = {"step": step, **{name: float(value) for name, value in numbers.items()}}
        if self._files is not None:
            self._files.append(row)
        for sink in self._sinks:
            sink.write(step, {name: value for name, value in row.items() if name != "step"})
        self._show(step, row)

    def video(self, step: int, name: str, path: str | Path) -> None:
        """Hands a video file to the trackers."""
        for sink in self._sinks:
            sink.video(step, name, Path(path))

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Hands a table to the trackers."""
        for sink in self._sinks:
            sink.table(step, name, columns, rows)

    def _show(self, step: int, row: Row) -> None:
        names = ("loss", "eval/loss", "eval/success_rate")
        text = "  ".join(f"{name} {row[name]:.5g}" for name in names if name in row)
        if not text:
            text = "  ".join(f"{name} {value:.5g}" for name, value in row.items() if name != "step")
        speed = f"  {row['steps_per_second']:,.1f} steps/s" if "steps_per_second" in row else ""
        self._bar.update(self._task, completed=step, description=text + speed)
        if self._bar.disable:
            self.say(f"step {step:>9,}/{self.config.max_steps:,}  {text}{speed}{self._left(step, row)}")

    def _left(self, step: int, row: Row) -> str:
        if not row.get("steps_per_second"):
            return ""
        seconds = int((self.config.max_steps - step) / row["steps_per_second"])
        return f"  {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"
