"""Where a run's numbers go: the terminal, metrics.jsonl and metrics.csv, and on request TensorBoard and wandb.

Process 0 alone writes. A row is {"step": ..., name: number}; rows of training and of evaluation share the files.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simscaleai_jax.core.config import to_dict
from simscaleai_jax.training.config import TrainConfig

JSONL, CSV = "metrics.jsonl", "metrics.csv"
Row = dict[str, float]


class RunLog:
    """Writes rows; a context manager around the training loop."""

    def __init__(self, config: TrainConfig, is_main: bool, progress: bool = True) -> None:
        self.config, self.is_main = config, is_main
        self.console = Console(quiet=not (is_main and progress), highlight=False)
        self._files = MetricsFiles(Path(config.checkpoint_dir)) if is_main else None
        self._sinks: list[Any] = []
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self.console, disable=not (is_main and progress and self.console.is_terminal),
        )  # fmt: skip
        self._task = self._bar.add_task(config.model_name, total=config.max_steps)

    def __enter__(self) -> Self:
        if self.is_main:
            self._sinks = _extra_sinks(self.config)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        for sink in self._sinks:
            sink.close()

    def start(self, step: int) -> None:
        """Drops rows after `step`, which a run that was stopped may have left, and starts the bar there."""
        if self._files is not None:
            self._files.truncate(step)
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
            sink.write(step, row)
        self._show(step, row)

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


class MetricsFiles:
    """metrics.jsonl, and the same rows as metrics.csv, whose columns grow when a new number appears."""

    def __init__(self, folder: Path) -> None:
        self.jsonl, self.csv = folder / JSONL, folder / CSV
        self._columns: list[str] = []

    def truncate(self, step: int) -> None:
        """Keeps rows up to `step`."""
        rows = [row for row in read_rows(self.jsonl) if row["step"] <= step]
        self.jsonl.parent.mkdir(parents=True, exist_ok=True)
        self.jsonl.write_text("".join(_json_line(row) for row in rows))
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._rewrite_csv(rows)

    def append(self, row: Row) -> None:
        """Adds a row to both files."""
        with self.jsonl.open("a") as file:
            file.write(_json_line(row))
        if new := [name for name in row if name not in self._columns]:
            self._columns += new
            self._rewrite_csv(read_rows(self.jsonl))
            return
        with self.csv.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def _rewrite_csv(self, rows: list[Row]) -> None:
        with self.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a metrics.jsonl, NaN for null; a last line that was cut is left out."""
    rows, path = [], Path(path)
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append({name: math.nan if value is None else value for name, value in json.loads(line).items()})
        except json.JSONDecodeError:
            break
    return rows


def _json_line(row: Row) -> str:
    return json.dumps({name: value if math.isfinite(value) else None for name, value in row.items()}) + "\n"


class TensorBoardSink:
    """TensorBoard event files in the run's folder."""

    def __init__(self, config: TrainConfig) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "use_tensorboard needs tensorboardX: pip install 'simscaleai-jax[tensorboard]'."
            ) from error
        self._writer = SummaryWriter(str(Path(config.checkpoint_dir) / "tensorboard"))

    def write(self, step: int, row: Row) -> None:
        """Adds a row's numbers as scalars."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is buffered."""
        self._writer.close()


class WandbSink:
    """A run on Weights & Biases."""

    def __init__(self, config: TrainConfig) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("use_wandb needs wandb: pip install 'simscaleai-jax[wandb]'.") from error
        self._run = wandb.init(project=config.wandb_project, name=config.wandb_run_name, config=to_dict(config))

    def write(self, step: int, row: Row) -> None:
        """Adds a row."""
        self._run.log({name: value for name, value in row.items() if name != "step"}, step=step)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


def _extra_sinks(config: TrainConfig) -> list[Any]:
    wanted = [(config.use_tensorboard, TensorBoardSink), (config.use_wandb, WandbSink)]
    return [make(config) for is_wanted, make in wanted if is_wanted]
