"""Reads a LeRobot v3.0 data set of states and images into a demonstration file of ours, for training."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations import Episode, split_masks
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.datagen.files.shards import plan_shards
from simscaleai_jax.datagen.files.writer import ShardWriter
from simscaleai_jax.datagen.formats.lerobot_export import CODEBASE_VERSION, require_extra
from simscaleai_jax.datagen.formats.lerobot_features import ENV_ENTRY, ENV_FILE
from simscaleai_jax.datagen.generator import file_attributes

COMPONENT = re.compile(r"(.+)\.(\d+)$")


def import_lerobot(source: str | Path, output: str | Path, seed: int = 0, valid_fraction: float = 0.1) -> Path:
    """Converts states, images, actions, rewards and tasks; videos are left out.

    `observation.state` is split into keys where its component names say so ("ee_pos.0", as our exporter writes them)
    and becomes the key `state` otherwise; other float vectors `observation.x` become the key `x`; the first camera
    becomes `image`, others `image_NAME`. The environment is the one that our exporter names; a data set from elsewhere
    has none, and its robot is the attribute `robot_type`.

    Raises:
      ImportError: pyarrow or pandas is missing.
      FileNotFoundError, ValueError: not a LeRobot v3.0 data set, one without `action` or any state, or with other
        episodes than it announces.
    """
    require_extra()
    source, output = Path(source), Path(output)
    if output.exists():
        raise ValueError(f"{output} exists; delete it first or choose another name.")
    info = _read_info(source)
    keys = _state_features(info["features"], source)
    own = source / ENV_FILE
    entry = json.loads(own.read_text()) if own.is_file() else info.get(ENV_ENTRY, {})
    images = _image_features(info["features"], entry.get("env_kwargs", {}))
    settings = {
        "env_name": entry.get("env_name", ""),
        "env_kwargs": {"control_dt": 1.0 / info["fps"]} | entry.get("env_kwargs", {}),
        "n_episodes": int(info["total_episodes"]),
        "policy_type": "lerobot",
        "policy_name": source.name,
        "seed": seed,
        "valid_fraction": valid_fraction,
    }
    masks = split_masks(settings["n_episodes"], seed, valid_fraction)
    shard = plan_shards(output, settings["n_episodes"])[0]
    attributes = file_attributes(settings) | {"robot_type": info.get("robot_type") or ""}
    with ShardWriter(shard, settings, attributes, masks) as writer:
        missing = set(writer.missing())
        for number, episode in _episodes(source, keys, images):
            if not 0 <= number < shard.count:
                raise ValueError(f"{source} holds episode {number}, and its info.json says {shard.count} episodes.")
            if number in missing:
                writer.add(number, episode)
        return writer.finish()


def _read_info(source: Path) -> dict[str, Any]:
    path = source / "meta" / "info.json"
    if not path.is_file():
        raise FileNotFoundError(f"{source} is not a LeRobot data set: it has no meta/info.json.")
    info = json.loads(path.read_text())
    if info.get("codebase_version") != CODEBASE_VERSION:
        raise ValueError(f"{source} is a LeRobot {info.get('codebase_version')} data set, wanted {CODEBASE_VERSION}.")
    if "action" not in info["features"]:
        raise ValueError(f"{source} has no feature 'action'.{suggest('action', info['features'])}")
    return info


def _state_features(features: dict[str, Any], source: Path) -> dict[str, list[str]]:
    """Feature -> the observation key of each of its components."""
    keys = {}
    for name, feature in features.items():
        if (
            name.startswith("observation.")
            and feature["dtype"] in ("float32", "float64")
            and len(feature["shape"]) == 1
        ):
            keys[name] = _component_keys(name.removeprefix("observation."), feature)
    if not keys:
        raise ValueError(f"{source} has no state: no float vector among {sorted(features)}.")
    return keys


def _image_features(features: dict[str, Any], env_kwargs: dict[str, Any]) -> dict[str, str]:
    """Feature -> observation key of its pictures."""
    names = [name for name, feature in features.items() if feature["dtype"] == "image"]
    cameras = [name.removeprefix("observation.images.") for name in names]
    known = env_kwargs.get("cameras") or []
    first = known[0]["name"] if known else "image" if "image" in cameras else next(iter(cameras), "")
    return {
        name: "image" if camera == first else f"image_{camera}" for name, camera in zip(names, cameras, strict=True)
    }


def _component_keys(name: str, feature: dict[str, Any]) -> list[str]:
    names = feature.get("names") or []
    parsed = [COMPONENT.match(part) for part in names if isinstance(part, str)]
    if len(parsed) == feature["shape"][0] and all(parsed):
        return [match[1] for match in parsed if match]
    return [name] * feature["shape"][0]


def _episodes(source: Path, keys: dict[str, list[str]], images: dict[str, str]) -> Any:
    """(number, Episode) in the order of the data files."""
    import pandas as pd
    import pyarrow.parquet as pq

    tasks = pd.read_parquet(source / "meta" / "tasks.parquet")
    instructions = {int(row.task_index): str(task) for task, row in tasks.iterrows()}
    pending: dict[str, Any] = {}
    for path in sorted((source / "data").glob("*/*.parquet")):
        file = pq.ParquetFile(path)
        pictures = [name for name in file.schema_arrow.names if name.startswith("observation.images.")]
        wanted = [name for name in file.schema_arrow.names if name not in pictures or name in images]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=wanted)
            numbers = table["episode_index"].to_numpy()
            bounds = np.flatnonzero(np.diff(numbers)) + 1
            for start, stop in zip([0, *bounds], [*bounds, len(numbers)], strict=True):
                piece, number = table.slice(start, stop - start), int(numbers[start])
                if pending and pending["number"] != number:
                    yield pending["number"], _episode(pending["pieces"], keys, images, instructions)
                    pending = {}
                pending.setdefault("number", number)
                pending.setdefault("pieces", []).append(piece)
    if pending:
        yield pending["number"], _episode(pending["pieces"], keys, images, instructions)


def _episode(
    pieces: list[Any], keys: dict[str, list[str]], images: dict[str, str], instructions: dict[int, str]
) -> Episode:
    import pyarrow as pa

    table = pa.concat_tables(pieces)
    obs: dict[str, list[np.ndarray]] = {}
    for feature, names in keys.items():
        values = _matrix(table[feature], len(names))
        for component, name in enumerate(names):
            obs.setdefault(name, []).append(values[:, component])
    length = table.num_rows
    has = table.schema.names
    success = bool(np.asarray(table["next.success"].to_pylist()).any()) if "next.success" in has else False
    rewards = (
        np.asarray(table["next.reward"].to_pylist(), np.float32).reshape(length)
        if "next.reward" in has
        else np.zeros(length)
    )
    actions = table["action"].to_pylist()
    return Episode(
        obs={name: np.stack(columns, axis=1) for name, columns in obs.items()}
        | {key: np.stack([_picture(cell) for cell in table[name].to_pylist()]) for name, key in images.items()},
        actions=np.asarray(actions, np.float32).reshape(length, -1),
        rewards=rewards.astype(np.float32),
        success=success,
        terminated=success,
        language=instructions.get(int(table["task_index"][0].as_py()), "") if "task_index" in has else "",
    )


def _picture(cell: dict[str, Any]) -> np.ndarray:
    """uint8 (H, W, 3) of a cell {"bytes", "path"}."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))


def _matrix(column: Any, width: int) -> np.ndarray:
    return np.asarray(column.to_pylist(), np.float32).reshape(-1, width)
