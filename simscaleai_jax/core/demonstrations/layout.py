"""Names and dtypes of a demonstration file: robomimic's layout with our attributes.

    data                    attributes: total, env_args (JSON), format_version, seed, policy_type, domain_randomization,
                            settings (JSON: everything the file was made from), first_episode, num_episodes, complete
    data/demo_{i}           attributes: num_samples, success, language, terminated, attempts
      actions (T, A) f4     the label in [-1, 1]: what the policy wanted
      actions_executed      (T, A) f4, only where noise was injected: what the robot was told
      rewards (T,) f4, dones (T,) i8 (1 on the last step), states (T, nq+nv) f4
      obs/<key>             (T, ...) f4, images (T, H, W, 3) u1: what the policy saw before action t
      next_obs/<key>        optional: what followed action t
    mask/{train,valid,success}   byte strings, names of demos
    stats/{obs/<key>,actions}    mean, std, min, max, q01, q10, q50, q90, q99, count

Beside the file lies its index (see `index`), which training reads; this file stands alone without it.

Chosen by benchmarks/hdf5_layout.py (pick_place episodes of 42 steps, 64x64 images, results/hdf5_layout.json): state
arrays are contiguous, which writes in less than half the time of any compressor and costs 10 to 17 percent more space.
Images are stored one frame per chunk under gzip 1: a quarter of the raw size, and a random frame costs one chunk, which
the index finds without HDF5 (benchmarks/data_loading.py compares that with other ways to store frames; chunks of 8
frames halve the size again and take four times as long).
"""

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from simscaleai_jax.core.streams import Stream, host_random

FORMAT_VERSION = 1
H5 = Any  # a group, file or data set of h5py, whose own hints are unions of everything that a path may hold
IMAGE_COMPRESSION: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": False}


@dataclass
class Episode:
    """One demonstration on the host; every array leads with T.

    Attributes:
      obs: observations before each action, float32 (T, ...) or uint8 (T, H, W, 3).
      actions: (T, A) float32 labels in [-1, 1].
      rewards: (T,) float32.
      success: whether the last step was a success.
      terminated: whether the task ended the episode (False: the time limit did).
      language: the instruction.
      attempts: how many rollouts it took (more than 1 only where failures are thrown away).
      states: (T, nq+nv) float32 simulator state before each action, or None.
      next_obs: observations after each action, or None.
      actions_executed: (T, A) what was sent to the robot, or None where it was `actions`.
    """

    obs: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    success: bool
    terminated: bool = False
    language: str = ""
    attempts: int = 1
    states: np.ndarray | None = None
    next_obs: dict[str, np.ndarray] | None = None
    actions_executed: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Every data set of the episode by its path in the demo's group."""
        dones = np.zeros(len(self.actions), np.int64)
        dones[-1:] = 1
        arrays = {"actions": self.actions, "rewards": self.rewards, "dones": dones}
        optional = {"states": self.states, "actions_executed": self.actions_executed}
        arrays |= {name: value for name, value in optional.items() if value is not None}
        arrays |= {f"obs/{key}": value for key, value in self.obs.items()}
        return arrays | {f"next_obs/{key}": value for key, value in (self.next_obs or {}).items()}


def demo_name(index: int) -> str:
    """Group name of an episode."""
    return f"demo_{index}"


def write_episode(group: H5, episode: Episode) -> None:
    """Writes one episode into an empty group.

    Raises:
      ValueError: an empty episode, or arrays of different lengths.
    """
    arrays = episode.arrays()
    length = len(episode.actions)
    wrong = {key: len(value) for key, value in arrays.items() if len(value) != length}
    if wrong or not length:
        raise ValueError(
            f"Episode of {length} actions has arrays of other lengths: {wrong}." if length else "Empty episode."
        )
    folders = sorted({key.rpartition("/")[0] for key in arrays} - {""})
    parents = {"": group} | {name: group.create_group(name) for name in folders}
    for key, value in arrays.items():
        parent, _, name = key.rpartition("/")
        if value.dtype == np.uint8 and value.ndim == 4:
            parents[parent].create_dataset(name, data=value, chunks=(1, *value.shape[1:]), **IMAGE_COMPRESSION)
        else:
            dtype = value.dtype if value.dtype.kind in "iub" else np.float32
            _write_contiguous(parents[parent], name, np.ascontiguousarray(value, dtype=dtype))
    group.attrs["language"] = episode.language
    numbers = {"num_samples": np.int64(length), "attempts": np.int64(episode.attempts)}
    flags = {"success": np.bool_(episode.success), "terminated": np.bool_(episode.terminated)}
    for name, number in (numbers | flags).items():
        _write_attribute(group, name, number)


def _write_contiguous(group: H5, name: str, value: np.ndarray) -> None:
    """`group[name] = value` without h5py's Python layer, which on tiny arrays costs several times what HDF5 does."""
    kind = h5py.h5t.py_create(value.dtype, logical=True)
    dataset = h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(value.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, value)


def _write_attribute(group: H5, name: str, value: np.generic) -> None:
    """`group.attrs[name] = value`, low-level likewise."""
    kind = h5py.h5t.py_create(value.dtype, logical=True)
    h5py.h5a.create(group.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR)).write(np.asarray(value))


def split_masks(num_episodes: int, seed: int, valid_fraction: float = 0.1) -> dict[str, np.ndarray]:
    """Episode indices of the train and valid splits, a function of the whole run only (not of its shards).

    Returns:
      {"train", "valid"}: sorted int arrays; `valid` holds round(valid_fraction * num_episodes) of them.
    """
    order = host_random(seed, Stream.DATA_SPLIT).permutation(num_episodes)
    num_valid = round(valid_fraction * num_episodes)
    return {"train": np.sort(order[num_valid:]), "valid": np.sort(order[:num_valid])}


def write_masks(file: H5, masks: dict[str, list[str]]) -> None:
    """Writes robomimic's filter keys: one array of byte strings per mask."""
    for name, demos in masks.items():
        file.create_dataset(f"mask/{name}", data=np.array(demos, dtype="S") if demos else np.zeros(0, "S6"))


def write_statistics(file: H5, statistics: dict[str, Any], prefix: str = "stats") -> None:
    """Writes the nested result of `compute_statistics` under `stats/`."""
    for name, value in statistics.items():
        path = f"{prefix}/{name}"
        if isinstance(value, dict):
            write_statistics(file, value, path)
        else:
            file.create_dataset(path, data=np.asarray(value))
