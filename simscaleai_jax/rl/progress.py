"""What training shows while it runs, and the numbers it returns."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simscaleai_jax.core import paths
from simscaleai_jax.core.runs.metrics import MetricsFiles, read_rows
from simscaleai_jax.core.runs.trackers import Sink
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.finite import Watch


class TrainingLog:
    """Collects one row of numbers per update, and draws a progress bar with the time that is left."""

    def __init__(self, config: PPOConfig, done_steps: int, progress: bool, line_seconds: float | None = None) -> None:
        self.history: dict[str, list[float]] = {}
        self._config, self._steps = config, done_steps
        self._since_line = 0
        self._watch = Watch(config)
        self._line_seconds, self._line_clock = line_seconds or math.inf, time.perf_counter()
        console = Console()
        self._console = console if progress else Console(quiet=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
            console=self._console, disable=not (progress and console.is_terminal),
        )  # fmt: skip
        self._task = self._bar.add_task("PPO", total=config.num_updates * config.n_steps, completed=done_steps)
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Says that the program is being compiled, which takes seconds without a warm cache."""
        self._bar.update(self._task, description="PPO: compiling")
        yield
        self._bar.update(self._task, description="PPO")
        self.start_timer()

    def start_timer(self) -> None:
        """Starts timing the updates that the next `record` reports."""
        self._started = time.perf_counter()

    def record(self, metrics: Mapping[str, np.ndarray], agent: Any, callbacks: Sequence[Any]) -> bool:
        """Adds the rows of some updates (name -> one number each); returns False when a callback ends training.

        Raises:
          ValueError: training has diverged; callbacks, those that save among them, do not see that update.
        """
        seconds = max(time.perf_counter() - self._started, 1e-9)
        count = len(next(iter(metrics.values())))
        is_going_on = True
        for i in range(count):
            row = {name: float(values[i]) for name, values in metrics.items()}
            self._steps += self._config.n_steps
            row |= {"steps_per_second": count * self._config.n_steps / seconds, "total_steps": float(self._steps)}
            self._watch.check(row)
            for name, number in row.items():
                self.history.setdefault(name, []).append(number)
            answers = [callback(agent, row) for callback in callbacks]
            is_going_on &= not any(answer is False for answer in answers)
            self._show(row)
        return is_going_on

    def _show(self, row: dict[str, float]) -> None:
        text = f"success {row['success_rate']:.2f}  reward {row['episode_reward']:.1f}"
        self._bar.update(self._task, completed=self._steps, description=f"PPO  {text}")
        self._since_line += 1
        is_due = time.perf_counter() - self._line_clock >= self._line_seconds
        if self._bar.disable and (is_due or self._since_line >= self._config.log_every):
            self._since_line, self._line_clock = 0, time.perf_counter()
            speed = f"{row['steps_per_second']:,.0f} steps/s"
            self._console.print(
                f"{self._steps:>12,} steps  {text}  kl {row['approx_kl']:.4f}  {speed}", highlight=False
            )


class MetricsFile:
    """A callback that appends every update's numbers to metrics.jsonl and metrics.csv, and hands them to trackers."""

    def __init__(self, path: str | Path, done_steps: int = 0, sinks: Sequence[Sink] = ()) -> None:
        """Keeps the rows up to `done_steps`: a run that was killed has written some after its last checkpoint.

        Nothing is touched before the first row comes, so that training that is refused costs an earlier run nothing.
        """
        self.path = paths.locate(path)
        self._files = MetricsFiles(self.path.parent, "total_steps")
        self._done_steps, self._sinks = done_steps, sinks
        self._is_cut = False

    def __call__(self, agent: Any, row: Mapping[str, float]) -> None:
        if not self._is_cut:
            self._files.truncate(self._done_steps)
            self._is_cut = True
        self._files.append(dict(row))
        for sink in self._sinks:
            finite = {name: number for name, number in row.items() if math.isfinite(number)}
            sink.write(int(row["total_steps"]), finite)

    def video(self, step: int, name: str, path: Path) -> None:
        """Hands a video file to the trackers."""
        for sink in self._sinks:
            sink.video(step, name, path)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Hands a table to the trackers."""
        for sink in self._sinks:
            sink.table(step, name, columns, rows)

    def close(self) -> None:
        """Writes what is buffered."""
        self._files.close()
        for sink in self._sinks:
            sink.close()


def read_metrics(path: str | Path) -> dict[str, list[float]]:
    """Reads a file of `MetricsFile`: name -> one number per update, NaN for null and where a row lacks the name."""
    rows = read_rows(path)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, math.nan) for row in rows] for name in names}
