"""Reads a LeRobot v3.0 data set of states, images and videos into a demonstration file of ours, for training."""

import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from simscaleai_jax.core.demonstrations import Episode, split_masks
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.datagen.files.shards import plan_shards
from simscaleai_jax.datagen.files.writer import ShardWriter
from simscaleai_jax.datagen.formats.lerobot_export import CODEBASE_VERSION
from simscaleai_jax.datagen.formats.lerobot_features import ENV_ENTRY, ENV_FILE, IMAGES
from simscaleai_jax.datagen.formats.lerobot_parquet import matrix, require_extra
from simscaleai_jax.datagen.formats.lerobot_video import Videos
from simscaleai_jax.datagen.generator import file_attributes

COMPONENT = re.compile(r"(.+)\.(\d+)$")  # names of exports that do not record their observations
PART_BYTES = 64 * 2**20  # of pictures written at a time
PART_EPISODES = 64


def import_lerobot(
    source: str | Path, output: str | Path, seed: int = 0, valid_fraction: float = 0.1, *, progress: bool = False
) -> Path:
    """Converts states, pictures (images and videos), actions, rewards and tasks.

    An export of ours says which observation is where. Of other data sets, `observation.state` is split into keys where
    its component names say so ("ee_pos.0"), and becomes the key `state` otherwise; other float vectors `observation.x`
    become the key `x`; the first camera becomes `image`, others `image_NAME`. The environment is the one that our
    exporter names; a data set from elsewhere has none, and its robot is the attribute `robot_type`.

    Raises:
      ImportError: pyarrow or pandas is missing.
      FileNotFoundError, ValueError: not a LeRobot v3.0 data set, one without `action` or any state, with other
        episodes than it announces, or a video that is cut.
    """
    require_extra()
    source, output = Path(source), Path(output)
    if output.exists():
        raise ValueError(f"{output} exists; delete it first or choose another name.")
    reader = _Reader(source)
    info, entry = reader.info, reader.entry
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
    attributes = file_attributes(settings) | reader.robot()
    with (
        ShardWriter(shard, settings, attributes, masks, reader.part_episodes()) as writer,
        Progress(console=Console(stderr=True), disable=not progress) as bar,
    ):
        missing = set(writer.missing())
        for number, episode in bar.track(reader.episodes(missing), total=shard.count, description="episodes"):
            if not 0 <= number < shard.count:
                raise ValueError(f"{source} holds episode {number}, and its info.json says {shard.count} episodes.")
            if episode is not None:
                writer.add(number, episode)
        return writer.finish()


class _Reader:
    """A LeRobot data set in the words of our files.

    Attributes:
      info: meta/info.json. entry: what our exporter says of it, {} if it is another's.
      vectors: feature -> observation key -> shape. cameras: feature -> observation key.
    """

    def __init__(self, source: Path) -> None:
        self.source, self.info = source, _read_info(source)
        features, own = self.info["features"], source / ENV_FILE
        self.entry: dict[str, Any] = json.loads(own.read_text()) if own.is_file() else self.info.get(ENV_ENTRY, {})
        self.vectors = self.entry.get("observations") or _vector_features(features, source)
        cameras, settings = self.entry.get("cameras"), self.entry.get("env_kwargs", {})
        self.cameras: dict[str, str] = _camera_features(features, settings) if cameras is None else cameras
        self.videos = [feature for feature in self.cameras if features[feature]["dtype"] == "video"]
        self.images = [feature for feature in self.cameras if feature not in self.videos]

    def robot(self) -> dict[str, Any]:
        """Attributes of the robot."""
        found = {"robot_type": self.info.get("robot_type") or ""}
        return found | ({"joint_names": json.dumps(self.entry["joint_names"])} if "joint_names" in self.entry else {})

    def part_episodes(self) -> int:
        """As many episodes as are written at a time: fewer with pictures."""
        pixels = sum(int(np.prod(self.info["features"][feature]["shape"])) for feature in self.cameras)
        mean_length = self.info["total_frames"] / max(self.info["total_episodes"], 1)
        return int(np.clip(PART_BYTES // max(pixels * mean_length, 1), 1, PART_EPISODES))

    def episodes(self, wanted: set[int]) -> Iterator[tuple[int, Episode | None]]:
        """(number, Episode) in the order of the files; None for those that are not wanted, or not announced."""
        import pandas as pd

        tasks = pd.read_parquet(self.source / "meta" / "tasks.parquet")
        instructions = {int(row.task_index): str(task) for task, row in tasks.iterrows()}
        videos = Videos(self.source, self.info, self.videos)
        try:
            for number, table in self._tables():
                if number not in wanted:
                    yield number, None
                    continue
                pictures = {self.cameras[f]: _pictures(table[f]) for f in self.images}
                pictures |= {self.cameras[f]: videos.read(f, number, table.num_rows) for f in self.videos}
                yield number, self._episode(table, pictures, instructions)
        finally:
            videos.close()

    def _tables(self) -> Iterator[tuple[int, Any]]:
        """(number, its frames) of each episode; one may lie in several row groups, and several in one."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number, pieces = -1, []
        for path in sorted((self.source / "data").glob("*/*.parquet")):
            file = pq.ParquetFile(path)
            unknown = {name for name in file.schema_arrow.names if name.startswith(IMAGES)} - set(self.images)
            wanted = [name for name in file.schema_arrow.names if name not in unknown]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=wanted)
                numbers = table["episode_index"].to_numpy()
                bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
                for start, stop in itertools.pairwise(bounds):
                    if pieces and number != numbers[start]:
                        yield number, pa.concat_tables(pieces)
                        pieces = []
                    number = int(numbers[start])
                    pieces.append(table.slice(start, stop - start))
        if pieces:
            yield number, pa.concat_tables(pieces)

    def _episode(self, table: Any, pictures: dict[str, np.ndarray], instructions: dict[int, str]) -> Episode:
        obs: dict[str, np.ndarray] = {}
        for feature, keys in self.vectors.items():
            values, at = matrix(table[feature]), 0
            for key, shape in keys.items():
                size = int(np.prod(shape, dtype=int))
                obs[key] = values[:, at : (at := at + size)].reshape(len(values), *shape)
        has, length = table.schema.names, table.num_rows
        success = bool(matrix(table["next.success"]).any()) if "next.success" in has else False
        rewards = matrix(table["next.reward"])[:, 0] if "next.reward" in has else np.zeros(length, np.float32)
        return Episode(
            obs=obs | pictures,
            actions=matrix(table["action"]),
            rewards=rewards,
            success=success,
            terminated=success,
            language=instructions.get(int(table["task_index"][0].as_py()), "") if "task_index" in has else "",
        )


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


def _vector_features(features: dict[str, Any], source: Path) -> dict[str, dict[str, list[int]]]:
    """Feature -> its observation keys and their shapes, by the names of its components."""
    found = {
        name: _component_keys(name.removeprefix("observation."), feature)
        for name, feature in features.items()
        if name.startswith("observation.") and feature["dtype"] in ("float32", "float64") and len(feature["shape"]) == 1
    }
    if not found:
        raise ValueError(f"{source} has no state: no float vector among {sorted(features)}.")
    return found


def _component_keys(name: str, feature: dict[str, Any]) -> dict[str, list[int]]:
    parsed = [COMPONENT.match(part) for part in feature.get("names") or [] if isinstance(part, str)]
    if len(parsed) != feature["shape"][0] or not all(parsed):
        return {name: [feature["shape"][0]]}
    keys = [match[1] for match in parsed if match]
    return {key: [keys.count(key)] for key in dict.fromkeys(keys)}


def _camera_features(features: dict[str, Any], env_kwargs: dict[str, Any]) -> dict[str, str]:
    """Feature -> observation key of its pictures."""
    names = [name for name, feature in features.items() if feature["dtype"] in ("image", "video")]
    cameras = [name.removeprefix(IMAGES) for name in names]
    known = env_kwargs.get("cameras") or []
    first = known[0]["name"] if known else "image" if "image" in cameras else next(iter(cameras), "")
    return {
        name: "image" if camera == first else f"image_{camera}" for name, camera in zip(names, cameras, strict=True)
    }


def _pictures(column: Any) -> np.ndarray:
    """uint8 (T, H, W, 3) of a column of PNG files."""
    from PIL import Image

    contents = [cell["bytes"] for cell in column.to_pylist()]
    return np.stack([np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents])
