"""Experiment trackers that a run's numbers, videos and tables go to: Weights & Biases, TensorBoard, trackio.

Each is an optional package, imported where it is asked for. A run that is continued goes on in the same place.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from simscaleai_jax.core.errors import unknown_name

Tracker = Literal["wandb", "tensorboard", "trackio"]


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Where a run's numbers go besides its metrics.jsonl and metrics.csv.

    Attributes:
      trackers: any of "wandb", "tensorboard" (files in the run's folder) and "trackio" (on this machine, no account).
      project: the runs of wandb and trackio that belong together.
      name: what wandb and trackio call this run; default: the folder's name.
      offline: keep wandb's files in the run's folder and send nothing; `wandb sync` sends them later.
      seconds: also log when so many seconds have passed since the latest row.
      videos: episodes to film, into the run's folder and for the trackers: of every closed-loop evaluation of a model,
        at the end of a run of PPO.
    """

    trackers: tuple[Tracker, ...] = ()
    project: str = "simscaleai"
    name: str | None = None
    offline: bool = False
    seconds: float | None = None
    videos: int = 0

    def __post_init__(self) -> None:
        for tracker in self.trackers:
            if tracker not in TRACKERS:
                raise unknown_name("tracker", tracker, TRACKERS)
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"log.seconds must be positive; got {self.seconds}.")
        if self.videos < 0:
            raise ValueError(f"log.videos must not be negative; got {self.videos}.")


@dataclasses.dataclass(frozen=True)
class About:
    """What a tracker is told about a run.

    Attributes:
      folder: the run's folder.
      run_id: the same whenever the run is continued.
      config: the whole configuration, JSON values.
      first_step: where it starts or goes on; what a tracker has from later steps is dropped where it can.
    """

    folder: Path
    run_id: str
    config: Mapping[str, Any]
    first_step: int = 0


class Sink(Protocol):
    """What is asked of a tracker."""

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Adds a row of numbers."""
        ...

    def video(self, step: int, name: str, path: Path) -> None:
        """Adds a video file."""
        ...

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds a table."""
        ...

    def close(self) -> None:
        """Sends or writes what is buffered."""
        ...


class WandbSink:
    """A run on Weights & Biases."""

    def __init__(self, config: LogConfig, about: About) -> None:
        wandb = _imported("wandb", "wandb")
        options = {"mode": "offline", "dir": str(about.folder)} if config.offline else {}
        self._wandb = wandb
        self._run = wandb.init(
            project=config.project, name=config.name or about.folder.name, config=dict(about.config), id=about.run_id,
            resume="allow", **options,
        )  # fmt: skip

    def write(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)

    def video(self, step: int, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Video(str(path))}, step=step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._run.log({name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step=step)

    def close(self) -> None:
        self._run.finish()


class TensorBoardSink:
    """TensorBoard event files in the run's folder."""

    def __init__(self, config: LogConfig, about: About) -> None:
        writer = _imported("tensorboardX", "tensorboard").SummaryWriter
        suffix = f".{about.first_step}"  # a file's name says the second that it began in, and nothing else
        folder = str(about.folder / "tensorboard")
        self._writer = writer(folder, purge_step=about.first_step or None, filename_suffix=suffix)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def video(self, step: int, name: str, path: Path) -> None:
        import imageio.v3 as iio

        frames = iio.imread(path)[:, ::2, ::2]  # TensorBoard keeps them as GIFs
        gif = iio.imwrite("<bytes>", frames, extension=".gif", loop=0, duration=100)
        proto = _imported("tensorboardX.proto.summary_pb2", "tensorboard")
        image = proto.Summary.Image(height=frames.shape[1], width=frames.shape[2], colorspace=3,
                                    encoded_image_string=gif)  # fmt: skip
        summary = proto.Summary(value=[proto.Summary.Value(tag=name, image=image)])
        self._writer.file_writer.add_summary(summary, step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._writer.add_text(name, "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), step)

    def close(self) -> None:
        self._writer.close()


class TrackioSink:
    """A run in trackio's database on this machine; `trackio show` draws it."""

    def __init__(self, config: LogConfig, about: About) -> None:
        self._trackio = _imported("trackio", "trackio")
        self._run = self._trackio.init(
            project=config.project, name=config.name or f"{about.folder.name}-{about.run_id}",
            config=json.loads(json.dumps(about.config)), resume="allow",
        )  # fmt: skip

    def write(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)

    def video(self, step: int, name: str, path: Path) -> None:
        self._run.log({name: self._trackio.Video(str(path))}, step=step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self._trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: table}, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Any] = {"wandb": WandbSink, "tensorboard": TensorBoardSink, "trackio": TrackioSink}


def check_trackers(config: LogConfig) -> None:
    """Raises an ImportError that names the pip extra where a tracker's package is missing."""
    for tracker in config.trackers:
        _imported("tensorboardX" if tracker == "tensorboard" else tracker, tracker)


def open_trackers(config: LogConfig, about: About) -> list[Sink]:
    """The trackers that are asked for; raises like `check_trackers`."""
    return [TRACKERS[tracker](config, about) for tracker in config.trackers]


def _imported(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"The tracker {extra!r} needs {module.partition('.')[0]}: pip install 'simscaleai-jax[{extra}]'."
        ) from error
