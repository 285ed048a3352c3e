"""Windows over demonstrations as a random-access data set of NumPy items.

`len` and `[]` are all that torch's DataLoader and Grain ask for, so one class serves both. Items are NumPy because
torch's default collate cannot batch JAX arrays. No JAX and no jaxtyping here: workers import this module.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations import DemonstrationFile, compute_statistics
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.core.observations import is_image_key
from simscaleai_jax.core.streams import Stream, host_random

MAX_CHUNK_ROWS = 64  # image frames read at once when statistics stream
MAX_VIEWS = 100_000  # remembered places of mapped arrays, some 20 MB of Python objects

DUMMY_INSTRUCTIONS = (
    "reach the red target",
    "pick up the cube",
    "place the cube on the target",
    "move the gripper to the left",
    "lift the object",
)


class TrajectoryDataset:
    """Sliding windows of `seq_len` steps over the episodes of a demonstration file.

    An item is a dict:
      observations: {key: (seq_len, ...) float32}, images (seq_len, C, H, W) float32 in [0, 1]
      actions: (seq_len, A) float32
      is_pad: (seq_len,) bool, True where the window runs past its episode and repeats the last step
      language: str, with `include_language`
    With seq_len 1 the time axis is dropped and there is no is_pad. One window starts at every step of every episode.

    Args:
      data_path: our HDF5 file, a robomimic one, or the older one-group-per-episode layout.
      seq_len: steps per window.
      obs_keys: observations to return, all by default.
      include_language: adds the episode's instruction.
      transform: called with the finished item; its result is returned.
      split: name of a mask in the file ("train", "valid", "success"), all episodes by default.
      obs_horizon: observation steps per window, `seq_len` by default; 1 gives the first observation without time axis,
        which is what a policy that predicts chunks of actions trains on.
      raw_images: leaves images as stored, uint8 (..., H, W, C), for loaders that convert them on the device.
      cache_mb: memory for arrays that cannot be mapped (compressed ones), per process.

    Raises:
      FileNotFoundError, ValueError: see `DemonstrationFile`; also unknown obs_keys or split, and windows longer than
        every episode.
    """

    def __init__(
        self,
        data_path: str | Path,
        seq_len: int = 1,
        obs_keys: list[str] | None = None,
        include_language: bool = False,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        split: str | None = None,
        obs_horizon: int | None = None,
        raw_images: bool = False,
        cache_mb: float = 256.0,
    ) -> None:
        self.demos = DemonstrationFile(data_path)
        self.seq_len = seq_len
        self.obs_horizon = seq_len if obs_horizon is None else obs_horizon
        self.obs_keys = _check_obs_keys(self.demos, obs_keys)
        self.include_language = include_language
        self.transform = transform
        self.raw_images = raw_images
        self.episodes = _select_episodes(self.demos, split)
        lengths = self.demos.lengths[self.episodes]
        _check_windows(seq_len, self.obs_horizon, lengths, self.demos.path)
        self.ends: list[int] = np.cumsum(lengths).tolist()
        self._cache = _EpisodeCache(self.demos, int(cache_mb * 2**20))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, idx: int) -> dict[str, Any]:
        idx = int(idx)
        if idx < 0:
            idx += len(self)
        if not 0 <= idx < len(self):
            raise IndexError(f"Index {idx} is out of range for a data set of {len(self)} windows.")
        position = bisect_right(self.ends, idx)
        start = idx - (self.ends[position - 1] if position else 0)
        episode = int(self.episodes[position])
        observations = {key: self._window(episode, f"obs/{key}", start, self.obs_horizon) for key in self.obs_keys}
        item: dict[str, Any] = {
            "observations": observations,
            "actions": self._window(episode, "actions", start, self.seq_len),
        }
        if self.seq_len > 1:
            item["is_pad"] = np.arange(start, start + self.seq_len) >= self.demos.lengths[episode]
        if self.include_language:
            item["language"] = self.demos.language(episode)
        return item if self.transform is None else self.transform(item)

    @property
    def image_keys(self) -> list[str]:
        """Observations that are pictures."""
        return [key for key in self.obs_keys if key in self.demos.image_keys]

    @property
    def action_dim(self) -> int:
        """Number of action components."""
        return int(self.demos.specs["actions"][0][-1])

    @property
    def nbytes(self) -> int:
        """Bytes of all observations and actions once they are float32 (images: uint8) in memory."""
        shapes = [self.demos.specs[key][0] for key in self._keys()]
        sizes = [np.prod(shape, dtype=int) * (1 if len(shape) == 3 else 4) for shape in shapes]
        return int(sum(sizes)) * len(self)

    def stats(self) -> dict[str, Any]:
        """Statistics of every observation and of the actions, exact, streamed in bounded memory.

        Returns:
          {"observations": {key: s}, "actions": s}, each s with mean, std, min, max, q01, q10, q50, q90, q99 (float64,
          the shape of one step; images: one number per channel, in [0, 1]) and count. Taken from the file where it
          stores them for the same episodes.
        """
        stored = self.demos.stored_statistics
        whole_file = len(self.episodes) == len(self.demos.names)
        if stored and whole_file and "actions" in stored and set(self.obs_keys) <= set(stored.get("obs", {})):
            return {"observations": {key: stored["obs"][key] for key in self.obs_keys}, "actions": stored["actions"]}
        computed = compute_statistics(self._chunks, self._keys())
        return {
            "observations": {key: computed[f"obs/{key}"] for key in self.obs_keys},
            "actions": computed["actions"],
        }

    def window_ends(self) -> np.ndarray:
        """(len(self),) int32: for each step, the position of its episode's last step."""
        return np.repeat(np.array(self.ends, np.int32) - 1, self.demos.lengths[self.episodes])

    def column(self, key: str) -> np.ndarray:
        """A whole column ("actions" or "obs/<key>") over all episodes: (len(self), ...), float32 or uint8 images."""
        return np.concatenate(
            [_as_item(self._cache.rows(int(e), key, 0, int(self.demos.lengths[e]))) for e in self.episodes]
        )

    def _keys(self) -> list[str]:
        return ["actions", *(f"obs/{key}" for key in self.obs_keys)]

    def _chunks(self, key: str) -> Iterator[np.ndarray]:
        rows = MAX_CHUNK_ROWS if is_image_key(key.removeprefix("obs/")) else None
        for episode in self.episodes:
            length = int(self.demos.lengths[episode])
            for start in range(0, length, rows or length):
                yield self._cache.rows(int(episode), key, start, min(start + (rows or length), length))

    def _window(self, episode: int, key: str, start: int, steps: int) -> np.ndarray:
        """(steps, ...) rows from `start`, the last one repeated past the episode's end; no time axis for one step."""
        stop = min(start + steps, int(self.demos.lengths[episode]))
        rows = _as_item(self._cache.rows(episode, key, start, stop))
        if rows.dtype == np.uint8 and rows.ndim == 4 and not self.raw_images:
            rows = np.ascontiguousarray(rows.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
        if steps == 1:
            return rows[0]
        if stop - start < steps:
            rows = np.concatenate([rows, np.repeat(rows[-1:], steps - (stop - start), axis=0)])
        return rows


class DummyTrajectoryDataset:
    """Random samples of the documented shapes, for tests and throughput measurements without a file.

    An item is {"observations": {"state": (obs_dim,) float32, "image"?: (3, H, W) float32 in [0, 1]},
    "actions": (action_dim,) float32 in [-1, 1], "language"?: str}. The same seed gives the same data set.
    """

    def __init__(
        self,
        num_samples: int = 1000,
        obs_dim: int = 20,
        action_dim: int = 4,
        image_size: tuple[int, int] = (128, 128),
        include_image: bool = False,
        include_language: bool = False,
        seed: int = 42,
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        rng = host_random(seed, Stream.DUMMY_DATA)
        self.states = rng.standard_normal((num_samples, obs_dim), dtype=np.float32)
        self.actions = rng.uniform(-1.0, 1.0, (num_samples, action_dim)).astype(np.float32)
        self.image_size = image_size
        self.include_image = include_image
        self.include_language = include_language
        self.seed = seed

    seq_len = obs_horizon = 1
    transform = None

    @property
    def obs_keys(self) -> list[str]:
        """Observations of an item."""
        return ["image", "state"] if self.include_image else ["state"]

    @property
    def image_keys(self) -> list[str]:
        """Observations that are pictures."""
        return ["image"] if self.include_image else []

    @property
    def nbytes(self) -> int:
        """Bytes of the states and actions."""
        return self.states.nbytes + self.actions.nbytes

    def window_ends(self) -> np.ndarray:
        """(len(self),) int32: every sample is an episode of one step."""
        return np.arange(len(self), dtype=np.int32)

    def column(self, key: str) -> np.ndarray:
        """The states ("obs/state") or "actions" of all samples."""
        return {"actions": self.actions, "obs/state": self.states}[key]

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        idx = range(len(self))[int(idx)]
        observations = {"state": self.states[idx].copy()}
        if self.include_image:  # drawn when asked for: a thousand of them would take 200 MB
            rng = host_random(self.seed, Stream.DUMMY_IMAGES, idx)
            observations["image"] = rng.random((3, *self.image_size), dtype=np.float32)
        item: dict[str, Any] = {"observations": observations, "actions": self.actions[idx].copy()}
        if self.include_language:
            item["language"] = DUMMY_INSTRUCTIONS[idx % len(DUMMY_INSTRUCTIONS)]
        return item


class _EpisodeCache:
    """Arrays of recently used episodes: views on the mapped file, and loaded copies up to `limit` bytes."""

    def __init__(self, demos: DemonstrationFile, limit: int) -> None:
        self.demos = demos
        self.limit = limit
        self.views: dict[tuple[int, str], np.ndarray] = {}
        self.loaded: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()
        self.size = 0

    def rows(self, episode: int, key: str, start: int, stop: int) -> np.ndarray:
        """Rows of one array; never more than `limit` bytes stay in memory."""
        name = (episode, key)
        if name in self.views:
            return self.views[name][start:stop]
        if name in self.loaded:
            self.loaded.move_to_end(name)
            return self.loaded[name][start:stop]
        if is_image_key(key.removeprefix("obs/")):
            return self.demos.read(episode, key, start, stop)
        view = self.demos.array(episode, key)
        if view is not None:
            if len(self.views) >= MAX_VIEWS:
                self.views.clear()
            self.views[name] = view
            return view[start:stop]
        return self._load(name)[start:stop]

    def _load(self, name: tuple[int, str]) -> np.ndarray:
        array = self.demos.read(*name).astype(np.float32)
        if array.nbytes <= self.limit:
            self.loaded[name] = array
            self.size += array.nbytes
        while self.size > self.limit:
            self.size -= self.loaded.popitem(last=False)[1].nbytes
        return array

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"views": {}, "loaded": OrderedDict(), "size": 0}


def _as_item(rows: np.ndarray) -> np.ndarray:
    """A writable copy: float32, or uint8 for images."""
    return np.array(rows, dtype=np.uint8 if rows.dtype == np.uint8 and rows.ndim == 4 else np.float32)


def _check_obs_keys(demos: DemonstrationFile, obs_keys: list[str] | None) -> list[str]:
    if obs_keys is None:
        return demos.obs_keys
    if not obs_keys:
        raise ValueError(f"obs_keys is empty; {demos.path} holds {demos.obs_keys}.")
    for key in obs_keys:
        if key not in demos.obs_keys:
            raise ValueError(
                f"{demos.path} has no observation {key!r}; it holds {demos.obs_keys}.{suggest(key, demos.obs_keys)}"
            )
    return list(obs_keys)


def _select_episodes(demos: DemonstrationFile, split: str | None) -> np.ndarray:
    if split is None:
        return np.arange(len(demos.names))
    if split not in demos.masks:
        raise ValueError(
            f"{demos.path} has no mask {split!r}; it holds {sorted(demos.masks)}.{suggest(split, demos.masks)}"
        )
    if not len(demos.masks[split]):
        raise ValueError(f"Mask {split!r} of {demos.path} selects no episode.")
    return demos.masks[split]


def _check_windows(seq_len: int, obs_horizon: int, lengths: np.ndarray, path: Path) -> None:
    if seq_len < 1 or not 1 <= obs_horizon <= seq_len:
        raise ValueError(f"Wanted 1 <= obs_horizon <= seq_len, got obs_horizon {obs_horizon}, seq_len {seq_len}.")
    if seq_len > lengths.max():
        raise ValueError(
            f"seq_len {seq_len} is longer than every episode of {path} (the longest has {lengths.max()} steps)."
        )
