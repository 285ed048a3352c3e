"""How demonstrations look as LeRobot v3.0 features: names, shapes, and the arrays of one episode.

What a robot knows of itself is joined into `observation.state`, the rest (objects, targets) into
`observation.environment_state`, each in sorted order; `names` keeps "key.index" for every component, so that an import
restores the keys.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations import QUANTILES, DemonstrationFile

INDEX_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
ENV_FILE = "meta/simscaleai.json"  # our own file: LeRobot warns of fields of info.json that it does not know
ENV_ENTRY = "simscaleai"  # where older exports had it in meta/info.json
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
ROBOT_WORDS = ("joint", "ee", "gripper", "robot", "state")  # first word of the keys of what a robot knows of itself
CARTESIAN = ["delta_x", "delta_y", "delta_z", "gripper"]
FLAGS = ("next.done", "next.success")
Features = dict[str, dict[str, Any]]


class LeRobotView:
    """A demonstration file seen as LeRobot frames."""

    def __init__(self, demos: DemonstrationFile, fps: int | None = None) -> None:
        self.demos = demos
        self.env_kwargs = _env_kwargs(demos)
        self.fps = _frames_per_second(self.env_kwargs) if fps is None else fps
        if self.fps < 1:
            raise ValueError(f"fps must be at least 1, got {self.fps}.")
        states = [key for key in demos.obs_keys if key not in demos.image_keys]
        self.vectors = _split(["state"] if "state" in states else states)
        self.cameras = _camera_names(demos.image_keys, self.env_kwargs)
        self.starts = np.concatenate([[0], np.cumsum(demos.lengths)])
        texts = [demos.language(i) or "do the task" for i in range(len(demos.names))]
        self.tasks = list(dict.fromkeys(texts))
        self.task_index = [self.tasks.index(text) for text in texts]

    @property
    def robot_type(self) -> str:
        """The robot that the file names."""
        return str(self.demos.attributes.get("robot_type") or self.env_kwargs.get("robot") or "panda")

    @property
    def features(self) -> Features:
        """The `features` entry of meta/info.json."""
        specs = self.demos.specs
        features: Features = {}
        for feature, keys in self.vectors.items():
            sizes = {key: int(np.prod(specs[f"obs/{key}"][0], dtype=int)) for key in keys}
            names = [f"{key}.{i}" for key, size in sizes.items() for i in range(size)]
            features[feature] = {"dtype": "float32", "shape": [len(names)], "names": names}
        for key, camera in self.cameras.items():
            shape = list(specs[f"obs/{key}"][0])
            features[camera] = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
        action_size = specs["actions"][0][-1]
        actions = CARTESIAN if action_size == len(CARTESIAN) else [f"action.{i}" for i in range(action_size)]
        features["action"] = {"dtype": "float32", "shape": [action_size], "names": actions}
        features["next.reward"] = {"dtype": "float32", "shape": [1], "names": None}
        features |= {name: {"dtype": "bool", "shape": [1], "names": None} for name in FLAGS}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        return features | {name: {"dtype": "int64", "shape": [1], "names": None} for name in INDEX_FEATURES[1:]}

    def column(self, episode: int, feature: str) -> np.ndarray:
        """One feature of one episode: (T,) for shape [1], (T, n) for vectors, (T, H, W, C) uint8 for images."""
        length = int(self.demos.lengths[episode])
        if feature in self.vectors:
            parts = [self.demos.read(episode, f"obs/{key}").reshape(length, -1) for key in self.vectors[feature]]
            return np.concatenate(parts, axis=1).astype(np.float32)
        for key, camera in self.cameras.items():
            if feature == camera:
                return self.demos.read(episode, f"obs/{key}")
        if feature == "action":
            return self.demos.read(episode, "actions").astype(np.float32)
        if feature == "next.reward":
            has_rewards = "rewards" in self.demos.specs
            return (
                self.demos.read(episode, "rewards").astype(np.float32) if has_rewards else np.zeros(length, np.float32)
            )
        return self._counted(episode, feature, length)

    def stream(self, feature: str) -> Iterator[np.ndarray]:
        """One feature over all episodes, in rows of at least one axis more than (T,)."""
        for episode in range(len(self.demos.names)):
            column = self.column(episode, feature)
            yield column if column.ndim > 1 else column[:, None]

    def _counted(self, episode: int, feature: str, length: int) -> np.ndarray:
        """Features that follow from the place of a frame."""
        frames = np.arange(length)
        if feature in FLAGS:
            flag = feature == "next.done" or bool(self.demos.success(episode))
            return (frames == length - 1) & flag
        if feature == "timestamp":
            return (frames / self.fps).astype(np.float32)
        constant = {"episode_index": episode, "task_index": self.task_index[episode]}
        if feature in constant:
            return np.full(length, constant[feature], np.int64)
        return frames + (self.starts[episode] if feature == "index" else 0)


def episode_statistics(column: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of one episode's feature: (n,), or (C, 1, 1) for images scaled to [0, 1]; count is in frames."""
    count = np.array([len(column)], np.int64)
    if column.ndim == 4:
        rows = column.reshape(-1, column.shape[-1]) / 255.0
        shaped = {name: value.reshape(-1, 1, 1) for name, value in _row_statistics(rows).items()}
        return shaped | {"count": count}
    return _row_statistics(column.reshape(len(column), -1).astype(np.float64)) | {"count": count}


def _row_statistics(rows: np.ndarray) -> dict[str, np.ndarray]:
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    moments = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return moments | dict(zip(QUANTILES, quantiles, strict=True))


def _env_kwargs(demos: DemonstrationFile) -> dict[str, Any]:
    env_args = demos.attributes.get("env_args", {})
    return env_args.get("env_kwargs", {}) if isinstance(env_args, dict) else {}


def env_entry(demos: DemonstrationFile) -> dict[str, Any]:
    """The environment of a file as our entry of meta/info.json: env_name ("" where it is unknown) and env_kwargs."""
    env_args = demos.attributes.get("env_args", {})
    name = env_args.get("env_name") if isinstance(env_args, dict) else None
    return {"env_name": str(name or demos.attributes.get("env_name", "")), "env_kwargs": _env_kwargs(demos)}


def _split(keys: list[str]) -> dict[str, list[str]]:
    """Feature -> its keys; everything is the robot's where nothing, or all, has its name."""
    own = [key for key in keys if key.split("_")[0] in ROBOT_WORDS]
    rest = [key for key in keys if key not in own]
    return {STATE: own, ENVIRONMENT: rest} if own and rest else {STATE: keys}


def _frames_per_second(env_kwargs: dict[str, Any]) -> int:
    rate = env_kwargs.get("control_freq") or (1.0 / env_kwargs["control_dt"] if "control_dt" in env_kwargs else None)
    if rate is None:
        raise ValueError("The file does not say its control rate; give it with fps.")
    if abs(rate - round(rate)) > 1e-6:
        raise ValueError(f"LeRobot wants whole frames per second, the file has {rate:g}; give a whole number with fps.")
    return round(rate)


def _camera_names(keys: list[str], env_kwargs: dict[str, Any]) -> dict[str, str]:
    """Observation key -> feature name."""
    cameras = env_kwargs.get("cameras") or []
    first = cameras[0]["name"] if cameras else "image"
    names = {key: first if key == "image" else key.removeprefix("image_") for key in keys}
    return {key: f"observation.images.{name}" for key, name in names.items()}
