"""Small demonstration files with known content, written by hand in each layout, or by our writer."""

import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations import Episode, split_masks
from simscaleai_jax.datagen.files.shards import plan_shards
from simscaleai_jax.datagen.files.writer import ShardWriter
from simscaleai_jax.datagen.generator import file_attributes

HERE = str(Path(__file__).parent)
STATE_SHAPES = {"ee_pos": 3, "joint_pos": 7, "target_pos": 3}
LENGTHS = (5, 3, 8, 4)


def make_episode(number: int, length: int = 5, image: int = 0) -> Episode:
    """Random content that depends on the number only; success on even numbers."""
    rng = np.random.default_rng(number)
    obs = {key: rng.normal(size=(length, size)).astype(np.float32) for key, size in STATE_SHAPES.items()}
    if image:
        obs["image"] = rng.integers(0, 256, (length, image, image, 3), dtype=np.uint8)
    return Episode(
        obs=obs,
        actions=rng.uniform(-1, 1, (length, 4)).astype(np.float32),
        rewards=rng.normal(size=length).astype(np.float32),
        success=number % 2 == 0,
        terminated=number % 2 == 0,
        language=f"instruction {number % 3}",
        states=rng.normal(size=(length, 16)).astype(np.float32),
    )


def make_settings(num_episodes: int, seed: int = 0) -> dict:
    """Settings of a run as generate_dataset records them."""
    return {
        "env_name": "toy",
        "env_kwargs": {"control_dt": 0.05, "domain_randomization": False},
        "n_episodes": num_episodes,
        "policy_type": "random",
        "seed": seed,
        "valid_fraction": 0.25,
    }


def make_writer(path: Path, num_episodes: int, shard: int = 0, num_shards: int = 1, seed: int = 0) -> ShardWriter:
    """A writer of one shard, with two episodes per part."""
    settings = make_settings(num_episodes, seed)
    masks = split_masks(num_episodes, seed, 0.25)
    return ShardWriter(
        plan_shards(path, num_episodes, num_shards)[shard], settings, file_attributes(settings), masks, 2
    )


def write_file(path: Path, lengths: tuple[int, ...] = LENGTHS, image: int = 0) -> list[Episode]:
    """A complete file of ours; returns its episodes."""
    episodes = [make_episode(number, length, image) for number, length in enumerate(lengths)]
    writer = make_writer(path, len(lengths))
    for number in reversed(range(len(lengths))):
        writer.add(number, episodes[number])
    writer.finish()
    return episodes


def write_robomimic(path: Path, episodes: list[Episode]) -> None:
    """A file as robomimic's tools write it: float64 actions, gzip, no attributes of ours, gaps in the numbering."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(len(episode.actions) for episode in episodes)
        data.attrs["env_args"] = '{"env_name": "Lift", "type": 1, "env_kwargs": {}}'
        for number, episode in enumerate(episodes):
            demo = data.create_group(f"demo_{number * 2}")
            demo.attrs["num_samples"] = len(episode.actions)
            demo.create_dataset("actions", data=episode.actions.astype(np.float64))
            demo.create_dataset("rewards", data=episode.rewards)
            for key, value in episode.obs.items():
                demo.create_dataset(f"obs/{key}", data=value, compression="gzip")
        file["mask/train"] = np.array(["demo_0", "demo_4"], dtype="S")


def write_older(path: Path, episodes: list[Episode], announced: int | None = None) -> None:
    """The older layout: one group per episode, attributes at the root."""
    with h5py.File(path, "w") as file:
        file.attrs["env_name"] = "reach"
        file.attrs["n_episodes"] = announced or len(episodes)
        file.attrs["policy_type"] = "scripted"
        for number, episode in enumerate(episodes):
            group = file.create_group(f"episode_{number:05d}")
            group.create_dataset("actions", data=episode.actions.astype(np.float64), compression="gzip")
            group.create_dataset("rewards", data=episode.rewards)
            for key, value in episode.obs.items():
                group.create_dataset(f"observations/{key}", data=value, compression="gzip")


def content(path: Path) -> dict:
    """Every attribute and every byte of a file, by path."""
    found = {}

    def visit(prefix: str, group: h5py.Group) -> None:
        found[prefix] = {
            name: value.tolist() if hasattr(value, "tolist") else value for name, value in group.attrs.items()
        }
        for name in group:
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(f"{prefix}/{name}", item)
            else:
                found[f"{prefix}/{name}"] = (item.dtype.str, item.shape, item[()].tobytes())

    with h5py.File(path) as file:
        visit("", file)
    return found


def run_with_file_limit(size: int, code: str) -> subprocess.CompletedProcess:
    """Runs Python code whose files may not grow beyond `size`: the kernel fails its writes as on a full disk."""
    head = f"""
import resource, signal, sys
sys.path.insert(0, {HERE!r})
import demo_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""
    command = [sys.executable, "-B", "-c", head + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
