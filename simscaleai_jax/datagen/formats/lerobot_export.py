"""Writes a LeRobot v3.0 data set (parquet, JSON and mp4) from a demonstration file of any layout that we read.

Episodes are worked on in blocks of bounded size. Each is one row group, many are in one file, of data as of videos.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from simscaleai_jax.core.demonstrations import DemonstrationFile, compute_statistics
from simscaleai_jax.datagen.formats import lerobot_parquet, lerobot_video
from simscaleai_jax.datagen.formats.lerobot_card import card
from simscaleai_jax.datagen.formats.lerobot_features import ENV_FILE, FLAGS, Features, LeRobotView
from simscaleai_jax.datagen.formats.lerobot_parquet import (
    RollingWriter,
    episode_table,
    frame_schema,
    frame_table,
    matrix,
    png,
    require_extra,
)
from simscaleai_jax.datagen.formats.lerobot_statistics import (
    count_levels,
    counted_statistics,
    episode_statistics,
    picture_statistics,
    range_statistics,
)
from simscaleai_jax.datagen.formats.lerobot_video import VIDEO_PATH, VideoWriter

CODEBASE_VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
BLOCK_ROWS = 16_384  # frames worked on at a time
BLOCK_BYTES = 64 * 2**20  # of pictures, likewise
PNG = "png"


def export_lerobot(
    source: str | Path,
    output: str | Path,
    fps: int | None = None,
    robot_type: str | None = None,
    progress: bool = False,
    *,
    images: str = PNG,
) -> Path:
    """Exports states and pictures.

    Args:
      source: a demonstration file. output: a folder that does not exist yet; it appears complete or not at all.
      fps: frames per second, by default what the file says.
      robot_type: by default what the file says.
      progress: show a bar on the terminal.
      images: "png" stores pictures as they are, "h264" and "av1" as videos, which are smaller and lose a little.

    Raises:
      ImportError: pyarrow or pandas is missing. OSError: a file cannot be written.
      ValueError: the folder exists, the control rate is unknown or under 1, values are not finite, pictures that are
        not uint8 (H, W, 3), or videos with an odd side.
    """
    require_extra()
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists; delete it first or choose another name.")
    view = LeRobotView(DemonstrationFile(source), fps)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        temporary = Path(folder) / output.name
        export = _Export(view, temporary, images)
        with Progress(console=Console(stderr=True), disable=not progress) as bar:
            task = bar.add_task("episodes", total=len(view.demos.names))
            for done in export.write():
                bar.update(task, completed=done)
        export.write_meta(robot_type or view.robot_type)
        os.replace(temporary, output)
    return output


class _Export:
    """One export on its way: `write` the episodes, then `write_meta`."""

    def __init__(self, view: LeRobotView, folder: Path, images: str) -> None:
        self.view, self.folder = view, folder
        self.features: Features = view.features
        self.pictures = {feature: key for key, feature in view.cameras.items()}
        self.levels = {feature: np.zeros((3, 256), np.int64) for feature in self.pictures}
        shapes = {feature: self.features[feature]["shape"] for feature in self.pictures}
        self.videos: dict[str, VideoWriter] = {}
        if images != PNG:
            self.videos = {f: VideoWriter(folder, f, shapes[f], view.fps, images) for f in self.pictures}
        for feature, video in self.videos.items():
            self.features[feature] |= {"dtype": "video", "info": video.info()}
        self.schema = frame_schema(self.features)
        row_bytes = sum(int(np.prod(shape)) for shape in shapes.values())
        self.block_rows = min(BLOCK_ROWS, BLOCK_BYTES // row_bytes) if row_bytes else BLOCK_ROWS

    def write(self) -> Iterator[int]:
        """Writes data, videos and meta/episodes; yields how many episodes are done."""
        try:
            with (
                RollingWriter(self.folder, DATA_PATH) as data,
                RollingWriter(self.folder, EPISODES_PATH) as episodes,
            ):
                for first, last in self.view.blocks(self.block_rows):
                    self._write_block(first, last, data, episodes)
                    yield last
            for video in self.videos.values():
                video.close()
        finally:
            for video in self.videos.values():
                video.abandon()

    def _write_block(self, first: int, last: int, data: RollingWriter, episodes: RollingWriter) -> None:
        lengths = self.view.demos.lengths[first:last]
        columns: dict[str, Any] = self.view.frames(first, last)
        statistics = {feature: _of_episodes(feature, values, lengths) for feature, values in columns.items()}
        where: dict[str, Any] = {}
        for feature in self.pictures:
            columns[feature], statistics[feature], places = self._add_pictures(feature, first, last)
            where |= places
        where |= self._write_frames(columns, lengths, data)
        where |= {f"stats/{f}/{name}": value for f, values in statistics.items() for name, value in values.items()}
        where |= self._facts(first, last)
        chunk, file = episodes.reserve(episode_table(where).nbytes)
        here = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        episodes.write(episode_table(where | {name: np.full(last - first, value) for name, value in here.items()}))

    def _write_frames(self, columns: dict[str, Any], lengths: np.ndarray, data: RollingWriter) -> dict[str, np.ndarray]:
        """Writes the frames of a block, a row group for each episode; returns where they are."""
        table = frame_table(columns, self.schema)
        places = []
        for stop, length in zip(np.cumsum(lengths).tolist(), lengths.tolist(), strict=True):
            piece = table.slice(stop - length, length)
            places.append(data.reserve(piece.nbytes))
            data.write(piece)
        chunks, files = np.array(places).T
        return {"data/chunk_index": chunks, "data/file_index": files}

    def _add_pictures(self, feature: str, first: int, last: int) -> tuple[list[bytes], dict[str, Any], dict[str, Any]]:
        """Stores the pictures of a block: (PNG files, if they are not videos; statistics; columns of videos)."""
        pngs: list[bytes] = []
        statistics, places = [], []
        for episode in range(first, last):
            frames = self.view.demos.read(episode, f"obs/{self.pictures[feature]}")
            levels = count_levels(frames)
            self.levels[feature] += levels
            statistics.append(picture_statistics(levels, len(frames)))
            if feature in self.videos:
                places.append(self.videos[feature].add(frames))
            else:
                pngs += [png(frame) for frame in frames]
        return pngs, _stacked(statistics), _stacked(places)

    def _facts(self, first: int, last: int) -> dict[str, Any]:
        view = self.view
        return {
            "episode_index": np.arange(first, last),
            "tasks": [view.tasks[number] for number in view.task_index[first:last]],
            "length": view.demos.lengths[first:last],
            "dataset_from_index": view.starts[first:last],
            "dataset_to_index": view.starts[first + 1 : last + 1],
        }

    def write_meta(self, robot_type: str) -> None:
        """Writes the other files of `meta` and the card."""
        import pandas as pd

        view, meta = self.view, self.folder / "meta"
        info = {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": robot_type,
            "total_episodes": len(view.demos.names),
            "total_frames": int(view.starts[-1]),
            "total_tasks": len(view.tasks),
            "chunks_size": lerobot_parquet.CHUNKS_SIZE,
            "data_files_size_in_mb": lerobot_parquet.FILE_MB,
            "video_files_size_in_mb": lerobot_video.FILE_MB,
            "fps": view.fps,
            "splits": {"train": f"0:{len(view.demos.names)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.videos else None,
            "features": self.features,
        }
        tasks = pd.DataFrame({"task_index": range(len(view.tasks))}, index=pd.Index(view.tasks, name="task"))
        tasks.to_parquet(meta / "tasks.parquet")
        record = view.record()
        (meta / "info.json").write_text(json.dumps(info, indent=4))
        (self.folder / ENV_FILE).write_text(json.dumps(record, indent=4))
        (self.folder / "README.md").write_text(card(info, record, view.tasks))
        statistics = {feature: self._feature_statistics(feature) for feature in self.features}
        listed = {f: {name: value.tolist() for name, value in values.items()} for f, values in statistics.items()}
        (meta / "stats.json").write_text(json.dumps(listed, indent=4))

    def _feature_statistics(self, feature: str) -> dict[str, np.ndarray]:
        """Statistics over all frames."""
        view, lengths = self.view, self.view.demos.lengths
        if feature in self.levels:
            return picture_statistics(self.levels[feature], int(lengths.sum()))
        if feature == "index":
            return range_statistics(int(lengths.sum()))
        if feature in FLAGS:
            chosen = len(lengths) if feature == "next.done" else int(np.sum(view.index.success == 1))
            return counted_statistics(np.array([0.0, 1.0]), np.array([lengths.sum() - chosen, chosen]))
        if feature in ("frame_index", "timestamp"):
            at = np.arange(lengths.max())
            counts = len(lengths) - np.searchsorted(np.sort(lengths), at, side="right")
            return counted_statistics(at if feature == "frame_index" else (at / view.fps).astype(np.float32), counts)
        if feature in ("episode_index", "task_index"):
            numbers = np.arange(len(lengths)) if feature == "episode_index" else view.task_index
            return counted_statistics(np.arange(numbers.max() + 1), np.bincount(numbers, lengths).astype(np.int64))
        keys = [f"obs/{key}" for key in view.vectors[feature]] if feature in view.vectors else ["actions"]
        known = [view.index.statistics[""].get(key) for key in keys]
        if feature == "next.reward" or None in known:
            return compute_statistics(self._written, [feature])[feature]
        names = [name for name in known[0] or {} if name != "count"]
        joined = {name: np.concatenate([np.ravel(part[name]) for part in known if part]) for name in names}
        return joined | {"count": np.array([lengths.sum()])}

    def _written(self, feature: str) -> Iterator[np.ndarray]:
        """A feature of all frames, (R, n), read from the files that were just written."""
        import pyarrow.parquet as pq

        for path in sorted((self.folder / "data").glob("*/*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(BLOCK_ROWS, columns=[feature]):
                yield matrix(batch.column(0))


def _of_episodes(feature: str, values: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    try:
        return episode_statistics(values, lengths)
    except ValueError as error:
        raise ValueError(f"{feature}: {error}") from None


def _stacked(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of a table as its columns; of no rows' columns none."""
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}
