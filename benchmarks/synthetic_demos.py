"""Demonstration files of made-up episodes with the shapes of pick and place, written fast: for measuring loaders.

File and index are what `simscale datagen` writes (contiguous states, a gzip-1 chunk per frame), by the same functions.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.demonstrations.index import beside
from simscaleai_jax.core.demonstrations.index_builder import IndexBuilder, Piece
from simscaleai_jax.core.demonstrations.layout import (
    FORMAT_VERSION,
    Episode,
    demo_name,
    split_masks,
    write_episode,
    write_masks,
)

STEPS = 42  # of a pick and place episode, on average
STATE_SIZES = {
    "ee_pos": 3,
    "gripper_state": 1,
    "joint_pos": 7,
    "joint_vel": 7,
    "object_pos": 3,
    "object_quat": 4,
    "target_pos": 3,
}
ACTIONS = 4
DIFFERENT = 64  # episodes; they are repeated under other numbers


def make_episodes(cameras: tuple[str, ...] = (), image_size: int = 64) -> list[Episode]:
    """The different episodes; lengths vary between STEPS / 2 and 3 / 2 STEPS."""
    rng = np.random.default_rng(0)
    shortest, longest = STEPS // 2, STEPS * 3 // 2
    return [make_episode(rng, int(rng.integers(shortest, longest)), cameras, image_size) for _ in range(DIFFERENT)]


def write_demos(path: Path, made: list[Episode], episodes: int, is_linked: bool = False) -> None:
    """Writes a complete file without an index, from `make_episodes`.

    Args:
      is_linked: repeated episodes are hard links, which saves minutes where only the index (in full) is measured.
    """
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_group("data", track_order=True)
        first: list[str] = []
        for number in range(episodes):
            name = demo_name(number)
            if number < DIFFERENT:
                write_episode(data.create_group(name), made[number])
                first.append(name)
            elif is_linked:
                data[name] = data[first[number % DIFFERENT]]
            else:
                file.copy(data[first[number % DIFFERENT]], data, name)
        masks = split_masks(episodes, 0)
        write_masks(file, {mask: [demo_name(i) for i in chosen] for mask, chosen in masks.items()})
        data.attrs["num_episodes"], data.attrs["format_version"] = episodes, FORMAT_VERSION
        data.attrs["total"] = sum(len(made[number % DIFFERENT].actions) for number in range(episodes))
        data.attrs["complete"] = True


def write_index(path: Path, made: list[Episode], episodes: int) -> None:
    """Writes its index from joined columns, as data generation does."""
    with open(beside(path), "wb+", buffering=0) as raw:
        demos = DemonstrationFile(path)
        builder = IndexBuilder(demos, beside(path), raw)
        builder.fill(_pieces(made, episodes))
        builder.finish(demos.sources)


def _pieces(made: list[Episode], episodes: int) -> Iterator[Piece]:
    for first in range(0, episodes, len(made)):
        part = made[: episodes - first]
        columns = {f"obs/{key}": np.concatenate([episode.obs[key] for episode in part]) for key in STATE_SIZES}
        columns["actions"] = np.concatenate([episode.actions for episode in part])
        success = np.array([episode.success for episode in part])
        returns = np.array([episode.rewards.sum(dtype=np.float64) for episode in part])
        yield Piece(columns, success, np.ones(len(part)), returns, [episode.language for episode in part])


def make_episode(rng: np.random.Generator, length: int, cameras: tuple[str, ...], image_size: int) -> Episode:
    """Random walks, and pictures of shapes with a little noise: they compress like rendered ones, to a quarter."""
    obs = {
        key: np.cumsum(rng.normal(size=(length, size)), axis=0).astype(np.float32) for key, size in STATE_SIZES.items()
    }
    for camera in cameras:
        obs[f"image_{camera}"] = np.stack([_picture(rng, image_size, step / length) for step in range(length)])
    return Episode(
        obs=obs,
        actions=rng.uniform(-1, 1, (length, ACTIONS)).astype(np.float32),
        rewards=rng.normal(size=length).astype(np.float32),
        success=bool(rng.random() < 0.9),
        language="pick up the cube and move it to the target",
        states=rng.normal(size=(length, 31)).astype(np.float32),
    )


def _picture(rng: np.random.Generator, size: int, progress: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    image = np.stack([40 + y, 60 + y // 2, 80 + 0 * y], axis=-1).astype(np.int64)
    for number in range(6):
        centre = rng.uniform(0, size, 2) + progress
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (size / (4 + number)) ** 2
        image[inside] = rng.integers(0, 200, 3) + (x[inside] // 2)[:, None]
    noisy = rng.random((size, size)) < 0.08
    image[noisy] += rng.integers(0, 9, (int(noisy.sum()), 3))
    return np.clip(image, 0, 255).astype(np.uint8)
