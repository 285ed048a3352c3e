"""Windows over demonstrations as a random-access data set of NumPy items, one by one or in batches.

`len` and `[]` are all that torch's DataLoader and Grain ask for, so one class serves both. Items are NumPy because
torch's default collate cannot batch JAX arrays. No JAX and no jaxtyping here: workers import this module.

States come out of the index's table, one read for all of a step's numbers; frames are read where they lie.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from simscaleai_jax.core.demonstrations import DemonstrationFile, FrameReader, compute_statistics, ensure_index
from simscaleai_jax.core.errors import suggest
from simscaleai_jax.training.data.dummy import DummyTrajectoryDataset

__all__ = ["DummyTrajectoryDataset", "TrajectoryDataset"]

MAX_CHUNK_FRAMES = 64  # frames read at once when statistics stream
MAX_CHUNK_ROWS = 65_536


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
      obs_horizon: k observations [t - k + 1 .. t] before a window's actions [t .. t + seq_len - 1], what a policy that
        predicts chunks of actions trains on: the episode's first one is repeated before it, and 1 gives an
        observation without time axis. None: the observations of the window's own steps.
      raw_images: leaves images as stored, uint8 (..., H, W, C), for loaders that convert them on the device.

    The first use of a file without an index makes one (`core.demonstrations.indexing`), which reads the whole file.

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
    ) -> None:
        self.demos = DemonstrationFile(data_path)
        self.seq_len = seq_len
        self.obs_horizon = obs_horizon
        self.obs_keys = _check_obs_keys(self.demos, obs_keys)
        self.include_language = include_language
        self.transform = transform
        self.raw_images = raw_images
        self.split = split
        self.episodes = _select_episodes(self.demos, split)
        _check_windows(seq_len, obs_horizon, self.demos.lengths[self.episodes], self.demos.path)
        self.index = ensure_index(self.demos)
        self.frames = FrameReader(self.demos.path, self.index)
        self.ends = np.cumsum(self.index.lengths[self.episodes])
        self._shifts = self.index.starts[self.episodes] + self.index.lengths[self.episodes] - self.ends

    def reading(self, obs_keys: list[str]) -> "TrajectoryDataset":
        """The same windows with other observations; raises a ValueError for those that there are not."""
        other = copy.copy(self)
        other.obs_keys = _check_obs_keys(self.demos, obs_keys)
        return other

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, idx: int) -> dict[str, Any]:
        idx = int(idx)
        if idx < 0:
            idx += len(self)
        if not 0 <= idx < len(self):
            raise IndexError(f"Index {idx} is out of range for a data set of {len(self)} windows.")
        batch = self.batch(np.array([idx]))
        item = {name: value[0] for name, value in batch.items() if name != "observations"}
        item = {"observations": {key: value[0] for key, value in batch["observations"].items()}} | item
        return item if self.transform is None else self.transform(item)

    def batch(self, windows: np.ndarray) -> dict[str, Any]:
        """The items of `windows` (B,), stacked, and language as a list; `transform` is not applied."""
        gathered = self.gather(windows)
        pictures = gathered["frames"]
        if not self.raw_images:
            gathered["frames"] = {key: _unit_images(value) for key, value in pictures.items()}
        return self.unpack(gathered)

    def gather(self, windows: np.ndarray) -> dict[str, Any]:
        """What `unpack` needs for a batch of windows (B,), in as few arrays as can be: each costs its way to a device.

        Returns:
          rows: (B, obs_horizon, W) of the index's table. actions: (B, seq_len, A), where these are other steps. frames:
          {key: (B, obs_horizon, ...)} as stored. is_pad: (B, seq_len). language: list of strings. Time axes of one step
          are left out; with seq_len 1 there is no is_pad.
        """
        positions = np.searchsorted(self.ends, windows, side="right")
        first = windows.astype(np.int64) + self._shifts[positions]
        episodes = self.episodes[positions]
        steps, last = first, self.index.starts[episodes] + self.index.lengths[episodes] - 1
        table, gathered = self.index.table, {}
        if self.seq_len > 1:
            wanted = first[:, None] + np.arange(self.seq_len)
            steps = np.minimum(wanted, last[:, None])
            gathered["is_pad"] = wanted > last[:, None]
        seen = steps
        if self.obs_horizon is not None and (self.obs_horizon, self.seq_len) != (1, 1):
            gathered["actions"] = table[steps, self.index.columns["actions"][0]]
            past = first[:, None] + np.arange(1 - self.obs_horizon, 1)
            seen = first if self.obs_horizon == 1 else np.maximum(past, self.index.starts[episodes][:, None])
        gathered["rows"] = table.take(seen, axis=0)
        gathered["frames"] = {key: self._frames(f"obs/{key}", seen, episodes) for key in self._keys_of(pictures=True)}
        if self.include_language:
            gathered["language"] = self.index.instructions[self.index.languages[episodes]].tolist()
        return gathered

    def unpack(self, gathered: dict[str, Any], xp: ModuleType = np) -> dict[str, Any]:
        """A batch {"observations", "actions", "is_pad"?, "language"?} from what `gather` returned; also inside jit.

        Args:
          xp: numpy or jax.numpy.
        """
        rows = gathered["rows"]

        def part(key: str) -> Any:
            columns, shape = self.index.columns[key]
            return xp.copy(rows[..., columns].reshape(*rows.shape[:-1], *shape))

        states = {key: part(f"obs/{key}") for key in self._keys_of(pictures=False)}
        unordered = states | gathered["frames"]
        actions = gathered["actions"] if "actions" in gathered else part("actions")
        batch = {"observations": {key: unordered[key] for key in self.obs_keys}, "actions": actions}
        return batch | {name: gathered[name] for name in ("is_pad", "language") if name in gathered}

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

    @property
    def has_unlocated_frames(self) -> bool:
        """Whether some pictures are stored in a way that only HDF5 can read, one at a time."""
        return any(f"obs/{key}" in self.index.unlocated for key in self.obs_keys)

    def stats(self, obs_keys: list[str] | None = None) -> dict[str, Any]:
        """Statistics of observations (all of the data set's, or `obs_keys`) and of the actions, exact.

        Those of states are stored with the index, for the file and for each of its masks, and those of pictures in
        files of ours, for the whole file; what is not stored is computed, in bounded memory.

        Returns:
          {"observations": {key: s}, "actions": s}, each s with mean, std, min, max, q01, q10, q50, q90, q99 (float64,
          the shape of one step; images: one number per channel, in [0, 1]) and count.
        """
        keys = self.obs_keys if obs_keys is None else obs_keys
        is_whole = len(self.episodes) == len(self.demos.names)
        stored = self.index.statistics["" if is_whole else self.split or ""]
        found = {key: stored.get(key) for key in ("actions", *(f"obs/{key}" for key in keys))}
        if is_whole and any(value is None for value in found.values()):
            in_file = (self.demos.stored_statistics or {}).get("obs", {})
            found |= {key: in_file[key[4:]] for key, value in found.items() if value is None and key[4:] in in_file}
        found |= compute_statistics(self._chunks, [key for key, value in found.items() if value is None])
        return {"observations": {key: found[f"obs/{key}"] for key in keys}, "actions": found["actions"]}

    def window_ends(self) -> np.ndarray:
        """(len(self),) int32: for each step, the position of its episode's last step."""
        return np.repeat(self.ends.astype(np.int32) - 1, self.index.lengths[self.episodes])

    def window_starts(self) -> np.ndarray:
        """(len(self),) int32: for each step, the position of its episode's first step."""
        lengths = self.index.lengths[self.episodes]
        return np.repeat((self.ends - lengths).astype(np.int32), lengths)

    def column(self, key: str) -> np.ndarray:
        """A whole column ("actions" or "obs/<key>") over all episodes: (len(self), ...), float32 or uint8 images."""
        return np.concatenate([_as_item(chunk) for chunk in self._chunks(key)])

    def _keys_of(self, pictures: bool) -> list[str]:
        """Observations that are, or are not, in the table."""
        return [key for key in self.obs_keys if (f"obs/{key}" not in self.index.columns) == pictures]

    def _keys(self) -> list[str]:
        return ["actions", *(f"obs/{key}" for key in self.obs_keys)]

    def _chunks(self, key: str) -> Iterator[np.ndarray]:
        """A key over all episodes in pieces (rows, ...)."""
        if key in self.index.columns:
            for first, last in self.index.row_runs(self.episodes):
                for row in range(first, last, MAX_CHUNK_ROWS):
                    yield self.index.rows(key, row, min(row + MAX_CHUNK_ROWS, last))
            return
        for episode in self.episodes:
            start, length = int(self.index.starts[episode]), int(self.index.lengths[episode])
            for step in range(0, length, MAX_CHUNK_FRAMES):
                rows = np.arange(start + step, start + min(step + MAX_CHUNK_FRAMES, length))
                yield self._read_frames(key, rows, np.full(len(rows), episode))

    def _frames(self, key: str, rows: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Frames of rows (B,) or (B, T) of the episodes (B,), as items have them: uint8, else float32."""
        steps = rows.shape[1] if rows.ndim > 1 else 1
        frames = _as_item(self._read_frames(key, rows.ravel(), np.repeat(episodes, steps)))
        return frames.reshape(*rows.shape, *frames.shape[1:])

    def _read_frames(self, key: str, rows: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """(M, ...) as stored."""
        if key in self.index.frames:
            return self.frames.read(key, rows, episodes)
        steps = rows - self.index.starts[episodes]
        return np.stack([self.demos.dataset(int(e), key)[int(s)] for e, s in zip(episodes, steps, strict=True)])


def _as_item(rows: np.ndarray) -> np.ndarray:
    """float32, or uint8 for images."""
    return rows if rows.dtype == np.uint8 and rows.ndim == 4 else np.asarray(rows, np.float32)


def _unit_images(frames: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W, C) to float32 (..., C, H, W) in [0, 1]; anything else as it is."""
    if frames.dtype != np.uint8:
        return frames
    return np.ascontiguousarray(np.moveaxis(frames, -1, -3)).astype(np.float32) / np.float32(255)


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


def _check_windows(seq_len: int, obs_horizon: int | None, lengths: np.ndarray, path: Path) -> None:
    if min(seq_len, 1 if obs_horizon is None else obs_horizon) < 1:
        raise ValueError(f"Wanted at least 1, got obs_horizon {obs_horizon}, seq_len {seq_len}.")
    if seq_len > lengths.max():
        raise ValueError(
            f"seq_len {seq_len} is longer than every episode of {path} (the longest has {lengths.max()} steps)."
        )
