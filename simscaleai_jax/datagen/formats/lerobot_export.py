"""Writes a LeRobot v3.0 data set (parquet and JSON) from a demonstration file of any layout that we read."""

import importlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from simscaleai_jax.core.demonstrations import DemonstrationFile, compute_statistics
from simscaleai_jax.datagen.formats.lerobot_features import (
    ENV_FILE,
    Features,
    LeRobotView,
    env_entry,
    episode_statistics,
)

CODEBASE_VERSION = "v3.0"
CHUNKS_SIZE = 1000  # files per chunk folder
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
MISSING_EXTRA = "LeRobot data sets need pyarrow and pandas: pip install 'simscaleai-jax[lerobot]'"


def export_lerobot(
    source: str | Path,
    output: str | Path,
    fps: int | None = None,
    robot_type: str | None = None,
    progress: bool = False,
) -> Path:
    """Exports states and images (PNG in the parquet files) with one row group per episode.

    Args:
      source: a demonstration file. output: a folder that does not exist yet; it appears complete or not at all.
      fps: frames per second, by default what the file says.
      robot_type: by default what the file says, else "panda".
      progress: show a bar on the terminal.

    Raises:
      ImportError: pyarrow or pandas is missing. ValueError: the folder exists, the control rate is unknown or under 1.
    """
    require_extra()
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists; delete it first or choose another name.")
    view = LeRobotView(DemonstrationFile(source), fps)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        temporary = Path(folder) / output.name
        episodes = _write_data(view, temporary)
        total = len(view.demos.names)
        rows = list(track(episodes, "episodes", total, disable=not progress, console=Console(stderr=True)))
        _write_meta(view, temporary, rows, robot_type or view.robot_type)
        os.replace(temporary, output)
    return output


def require_extra() -> None:
    """Raises an ImportError that names the extra to install where pyarrow or pandas is missing."""
    try:
        for name in ("pandas", "pyarrow"):
            importlib.import_module(name)
    except ImportError as error:
        raise ImportError(MISSING_EXTRA) from error


def arrow_schema(features: Features) -> Any:
    """Columns of the data files."""
    import pyarrow as pa

    def column(feature: dict[str, Any]) -> Any:
        if feature["dtype"] == "image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        value = pa.bool_() if feature["dtype"] == "bool" else pa.type_for_alias(feature["dtype"])
        return value if feature["shape"] == [1] else pa.list_(value, feature["shape"][0])

    return pa.schema([(name, column(feature)) for name, feature in features.items()])


def _write_data(view: LeRobotView, folder: Path) -> Iterator[dict[str, Any]]:
    """Writes the frames; yields each episode's row of meta/episodes."""
    import pyarrow.parquet as pq

    schema = arrow_schema(view.features)
    writer, file_number, written = None, -1, 0
    try:
        for episode, length in enumerate(view.demos.lengths.tolist()):
            columns = {name: view.column(episode, name) for name in view.features}
            table = _table(columns, schema)
            if writer is None or written + table.nbytes > DATA_FILE_MB * 2**20:
                if writer is not None:
                    writer.close()
                file_number, written = file_number + 1, 0
                writer = pq.ParquetWriter(_data_file(folder, file_number), schema, compression="snappy")
            writer.write_table(table, row_group_size=max(length, 1))
            written += table.nbytes
            yield _episode_row(view, episode, length, file_number, columns)
    finally:
        if writer is not None:
            writer.close()


def _table(columns: dict[str, np.ndarray], schema: Any) -> Any:
    import pyarrow as pa

    arrays = []
    for field in schema:
        column = columns[field.name]
        if column.ndim == 4:
            arrays.append(pa.array([{"bytes": _png(frame), "path": None} for frame in column], field.type))
        elif column.ndim == 2 and column.shape[1] > 1:
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1]))
        else:
            arrays.append(pa.array(column.ravel(), field.type))  # a vector of one component is stored as a number
    return pa.Table.from_arrays(arrays, schema=schema)


def _episode_row(
    view: LeRobotView, episode: int, length: int, file_number: int, columns: dict[str, np.ndarray]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode_index": episode,
        "tasks": [view.tasks[view.task_index[episode]]],
        "length": length,
        "data/chunk_index": file_number // CHUNKS_SIZE,
        "data/file_index": file_number % CHUNKS_SIZE,
        "dataset_from_index": int(view.starts[episode]),
        "dataset_to_index": int(view.starts[episode + 1]),
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for feature, column in columns.items():
        for name, value in episode_statistics(column).items():
            row[f"stats/{feature}/{name}"] = value.tolist()
    return row


def _write_meta(view: LeRobotView, folder: Path, rows: list[dict[str, Any]], robot_type: str) -> None:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = int(view.starts[-1])
    info = {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": robot_type,
        "total_episodes": len(rows),
        "total_frames": total,
        "total_tasks": len(view.tasks),
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": view.fps,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": view.features,
    }
    episodes = folder / EPISODES_PATH
    episodes.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), episodes)
    tasks = pd.DataFrame({"task_index": range(len(view.tasks))}, index=pd.Index(view.tasks, name="task"))
    tasks.to_parquet(folder / "meta" / "tasks.parquet")
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    (folder / ENV_FILE).write_text(json.dumps(env_entry(view.demos), indent=4))
    (folder / "README.md").write_text(_card(info, env_entry(view.demos), view.tasks))
    statistics = {name: _feature_statistics(view, name, total) for name in view.features}
    (folder / "meta" / "stats.json").write_text(json.dumps(statistics, indent=4))


def _card(info: dict[str, Any], env: dict[str, Any], tasks: list[str]) -> str:
    """The data set's card: front matter for the hub, and what is in it."""
    features = [f"| `{name}` | {entry['dtype']} | {entry['shape']} |" for name, entry in info["features"].items()]
    lines = [
        "---",
        "tags: [LeRobot]",
        "task_categories: [robotics]",
        "configs:",
        "- config_name: default",
        "  data_files: data/*/*.parquet",
        "---",
        "",
        f"Demonstrations of {env['env_name'] or 'an unnamed environment'} in simulation, robot {info['robot_type']}: "
        f"{info['total_episodes']} episodes, {info['total_frames']} frames at {info['fps']} per second, LeRobot "
        f"{info['codebase_version']}.",
        "",
        f"Tasks: {'; '.join(tasks[:20])}{' ...' if len(tasks) > 20 else ''}",
        "",
        "| feature | dtype | shape |",
        "|---|---|---|",
        *features,
        "",
        f"Settings of the environment: `{json.dumps(env['env_kwargs'])}`",
        "",
    ]
    return "\n".join(lines)


def _feature_statistics(view: LeRobotView, feature: str, total: int) -> dict[str, Any]:
    """Statistics over all frames, streamed."""
    if (
        view.features[feature]["dtype"] == "int64"
    ):  # exact beyond float32's 24 bits; eight bytes per frame are affordable
        result = episode_statistics(np.concatenate(list(view.stream(feature))))
    else:
        result = compute_statistics(view.stream, [feature])[feature]
    if view.features[feature]["dtype"] == "image":
        result = {name: value if name == "count" else value.reshape(-1, 1, 1) for name, value in result.items()}
    return {name: value.tolist() for name, value in (result | {"count": np.array([total])}).items()}


def _data_file(folder: Path, number: int) -> Path:
    path = folder / DATA_PATH.format(chunk_index=number // CHUNKS_SIZE, file_index=number % CHUNKS_SIZE)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _png(frame: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
