"""How demonstrations look as LeRobot v3.0 features: names, shapes, and the numbers of a run of episodes.

What a robot knows of itself is joined into `observation.state`, the rest (objects, targets) into
`observation.environment_state`, each in sorted order. `names` says what every number is (`joint_pos.joint1`,
`ee_pos.x`); which observation it belongs to is kept in a file of ours, so that an import restores the keys.
"""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations import DemonstrationFile, ensure_index
from simscaleai_jax.datagen.identity import OWN_ARM

INDEX_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
ENV_FILE = "meta/simscaleai.json"  # our own file: LeRobot warns of fields of info.json that it does not know
ENV_ENTRY = "simscaleai"  # where older exports had it in meta/info.json
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
IMAGES = "observation.images."
ROBOT_WORDS = ("joint", "ee", "gripper", "robot", "state", "touch")  # first word of what a robot knows of itself
OTHER_WORDS = ("object", "target", "goal")  # a word of what it does not: `ee_to_object`
CARTESIAN = ("delta_x", "delta_y", "delta_z", "gripper")
FLAGS = ("next.done", "next.success")
AXES = {("pos", 3): "xyz", ("vel", 3): "xyz", ("quat", 4): "wxyz"}  # by last word and size
UNKNOWN_ROBOT = "unknown"
Features = dict[str, dict[str, Any]]


class LeRobotView:
    """A demonstration file seen as LeRobot frames.

    Attributes:
      vectors: feature -> the observation keys that it is made of. cameras: observation key -> feature.
      starts: (E + 1,) first frame of each episode. tasks: instructions; task_index: (E,) which one is whose.

    Raises:
      ValueError: fps under 1 or not known, an empty episode, or pictures that are not uint8 (H, W, 3).
    """

    def __init__(self, demos: DemonstrationFile, fps: int | None = None) -> None:
        self.demos = demos
        self.env_kwargs = _env_kwargs(demos)
        self.fps = _frames_per_second(self.env_kwargs) if fps is None else fps
        if self.fps < 1:
            raise ValueError(f"fps must be at least 1, got {self.fps}.")
        if not demos.lengths.all():
            raise ValueError(f"{demos.path}: {demos.names[int(np.argmin(demos.lengths))]} has no steps.")
        states = [key for key in demos.obs_keys if key not in demos.image_keys]
        self.vectors = split_keys(["state"] if "state" in states else states)
        self.cameras = _camera_names(demos, self.env_kwargs)
        self.index = ensure_index(demos)
        self.starts = np.concatenate([[0], np.cumsum(demos.lengths)])
        self.tasks, self.task_index = _tasks(self.index.instructions, self.index.languages)

    @property
    def robot_type(self) -> str:
        """The robot that the file names; our own scenes have the Panda."""
        named = self.demos.attributes.get("robot_type") or self.env_kwargs.get("robot")
        is_own = "robot" in self.env_kwargs and not self.env_kwargs.get("xml_path")
        return str(named or (OWN_ARM if is_own else UNKNOWN_ROBOT))

    @property
    def features(self) -> Features:
        """The `features` entry of meta/info.json, of pictures as images."""
        features: Features = {}
        joints = self.joints
        for feature, keys in self.vectors.items():
            names = [name for key in keys for name in component_names(key, self.size(key), joints)]
            features[feature] = {"dtype": "float32", "shape": [len(names)], "names": names}
        for key, camera in self.cameras.items():
            shape = list(self.demos.specs[f"obs/{key}"][0])
            features[camera] = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
        size = self.demos.specs["actions"][0][-1]
        features["action"] = {"dtype": "float32", "shape": [size], "names": self._action_names(size, joints)}
        features["next.reward"] = {"dtype": "float32", "shape": [1], "names": None}
        features |= {name: {"dtype": "bool", "shape": [1], "names": None} for name in FLAGS}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        return features | {name: {"dtype": "int64", "shape": [1], "names": None} for name in INDEX_FEATURES[1:]}

    def size(self, key: str) -> int:
        """Numbers of an observation."""
        return int(np.prod(self.demos.specs[f"obs/{key}"][0], dtype=int))

    def blocks(self, max_rows: int) -> Iterator[tuple[int, int]]:
        """Runs of episodes (first, last + 1): as many as make `max_rows` frames if all were as long as the longest."""
        first, lengths = 0, self.demos.lengths
        while first < len(lengths):
            longest = np.maximum.accumulate(lengths[first : first + max_rows])
            fits = np.flatnonzero(longest * np.arange(1, len(longest) + 1) <= max_rows)
            last = first + max(1, len(fits))
            yield first, last
            first = last

    def frames(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Features of the frames of episodes [first, last), all but pictures: (R,) numbers or (R, n) vectors."""
        lengths = self.demos.lengths[first:last]
        start, stop = int(self.starts[first]), int(self.starts[last])
        at = np.arange(start, stop) - np.repeat(self.starts[first:last], lengths)
        is_last = at == np.repeat(lengths, lengths) - 1
        columns = {
            feature: np.concatenate([self._rows(f"obs/{key}", first, last) for key in keys], axis=1)
            for feature, keys in self.vectors.items()
        }
        return columns | {
            "action": self._rows("actions", first, last),
            "next.reward": self._rewards(first, last, stop - start),
            "next.done": is_last,
            "next.success": is_last & np.repeat(self.index.success[first:last] == 1, lengths),
            "timestamp": (at / self.fps).astype(np.float32),
            "frame_index": at,
            "episode_index": np.repeat(np.arange(first, last), lengths),
            "index": np.arange(start, stop),
            "task_index": np.repeat(self.task_index[first:last], lengths),
        }

    def record(self) -> dict[str, Any]:
        """What `ENV_FILE` says: the environment, and which observation each part of a feature is."""
        shapes = {
            feature: {key: list(self.demos.specs[f"obs/{key}"][0]) for key in keys}
            for feature, keys in self.vectors.items()
        }
        places = {"observations": shapes, "cameras": {feature: key for key, feature in self.cameras.items()}}
        return env_entry(self.demos) | ({"joint_names": self.joints} if self.joints else {}) | places

    def _rows(self, key: str, first: int, last: int) -> np.ndarray:
        """(R, n) float32 of one array of the file."""
        if key in self.index.columns:
            rows = self.index.rows(key, int(self.starts[first]), int(self.starts[last]))
        else:
            rows = np.concatenate([self.demos.read(episode, key) for episode in range(first, last)])
        return np.ascontiguousarray(rows.reshape(len(rows), -1), np.float32)

    def _rewards(self, first: int, last: int, count: int) -> np.ndarray:
        if "rewards" not in self.demos.specs:
            return np.zeros(count, np.float32)
        rewards, at = np.empty(count, np.float32), 0
        for episode in range(first, last):  # without h5py's Python layer, which costs more than HDF5
            part = rewards[at : (at := at + int(self.demos.lengths[episode]))]
            dataset = h5py.h5d.open(self.demos.group(episode).id, b"rewards")
            if dataset.shape != part.shape:
                self.demos.dataset(episode, "rewards")  # says what is wrong
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, part)
        return rewards

    @property
    def joints(self) -> list[str]:
        """Names of the arm's joints, none where the file does not say."""
        return [str(name) for name in self.demos.attributes.get("joint_names", [])]

    def _action_names(self, size: int, joints: list[str]) -> list[str]:
        controller = str(self.env_kwargs.get("controller", "cartesian"))
        names = [*CARTESIAN[:3]] if controller.startswith("cartesian") else joints
        for candidate in (names, [*names, "gripper"]):
            if names and len(candidate) == size:
                return candidate
        return [f"action.{i}" for i in range(size)]


def component_names(key: str, size: int, joints: list[str]) -> list[str]:
    """Names of the numbers of an observation: by joint, by axis, or by their place."""
    words = key.split("_")
    if size == 1:
        return [key]
    if words[0] == "joint" and len(joints) == size:
        return [f"{key}.{joint}" for joint in joints]
    return [f"{key}.{part}" for part in AXES.get((words[-1], size), range(size))]


def split_keys(keys: list[str]) -> dict[str, list[str]]:
    """Feature -> the observation keys, no pictures, that it joins; all is the robot's where nothing has its name."""
    own = [key for key in keys if key.split("_")[0] in ROBOT_WORDS and not set(key.split("_")) & set(OTHER_WORDS)]
    rest = [key for key in keys if key not in own]
    return {STATE: own, ENVIRONMENT: rest} if own and rest else {STATE: keys}


def env_entry(demos: DemonstrationFile) -> dict[str, Any]:
    """The environment of a file: env_name ("" where it is unknown) and env_kwargs."""
    env_args = demos.attributes.get("env_args", {})
    name = env_args.get("env_name") if isinstance(env_args, dict) else None
    return {"env_name": str(name or demos.attributes.get("env_name", "")), "env_kwargs": _env_kwargs(demos)}


def _env_kwargs(demos: DemonstrationFile) -> dict[str, Any]:
    env_args = demos.attributes.get("env_args", {})
    return env_args.get("env_kwargs", {}) if isinstance(env_args, dict) else {}


def _tasks(instructions: np.ndarray, languages: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Distinct instructions in the order of their first use, and which one each episode has."""
    texts = [str(text) or "do the task" for text in instructions]
    used, places = np.unique(languages, return_index=True)
    tasks = list(dict.fromkeys(texts[number] for number in used[np.argsort(places)]))
    place = {text: i for i, text in enumerate(tasks)}
    numbers = np.array([place.get(text, 0) for text in texts], np.int64)
    return tasks, numbers[languages]


def _frames_per_second(env_kwargs: dict[str, Any]) -> int:
    rate = env_kwargs.get("control_freq") or (1.0 / env_kwargs["control_dt"] if "control_dt" in env_kwargs else None)
    if rate is None:
        raise ValueError("The file does not say its control rate; give it with fps.")
    if abs(rate - round(rate)) > 1e-6:
        raise ValueError(f"LeRobot wants whole frames per second, the file has {rate:g}; give a whole number with fps.")
    return round(rate)


def _camera_names(demos: DemonstrationFile, env_kwargs: dict[str, Any]) -> dict[str, str]:
    """Observation key -> feature name."""
    for key in demos.image_keys:
        shape, dtype = demos.specs[f"obs/{key}"]
        if len(shape) != 3 or shape[-1] != 3 or dtype != np.uint8:
            raise ValueError(f"LeRobot's pictures are uint8 (H, W, 3); obs/{key} is {dtype} {shape}.")
    cameras = env_kwargs.get("cameras") or []
    first = cameras[0]["name"] if cameras else "image"
    names = {key: first if key == "image" else key.removeprefix("image_") for key in demos.image_keys}
    return {key: f"{IMAGES}{name}" for key, name in names.items()}
