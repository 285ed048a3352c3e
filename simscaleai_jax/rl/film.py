"""A film of how a policy learned: a grid of episodes, stage after stage, with captions."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simscaleai_jax.rl.play import Played
from simscaleai_jax.sim.cameras import make_portrait_fn, portrait_camera
from simscaleai_jax.sim.video import write_video

CAPTION_HEIGHT = 40  # pixels over the grid
STEPS_PER_FRAME = 2
FRAMES_PER_SECOND = 10  # a control step takes 0.05 s: films run in real time
GIF_SIDE = 104  # pixels of one tile: a GIF is for a page's head and has to be small
INK, PAPER = (235, 235, 235), (24, 26, 30)


@dataclasses.dataclass(frozen=True)
class Act:
    """One stage of the film.

    Attributes:
      caption: what stands over it.
      played: episodes whose physics was kept; a tile shows one after the other.
      num_steps: control steps that it lasts.
    """

    caption: str
    played: Played
    num_steps: int


def write_film(physics: Any, acts: Sequence[Act], path: str | Path, rows: int = 3, side: int = 256) -> list[Path]:
    """Films episodes, `rows` x `rows` at a time: an MP4, and a small GIF beside it.

    Args:
      physics: the engine that the episodes were played on.
      acts: the stages, in order.
      path: of the MP4.
      rows: tiles along either side of the grid.
      side: pixels of a tile's side.
    Returns:
      The files.
    Raises:
      ValueError: a scene without cameras.
    """
    path = Path(path)
    portrait_fn = make_portrait_fn(physics.host_model, portrait_camera(physics.host_model), side, side)
    draw = jax.jit(jax.vmap(lambda state: portrait_fn(physics.kinematics(state), {})))
    frames = []
    for act in acts:
        banner = caption(act.caption, rows * side)
        for state in tiles(act, rows * rows):
            frames.append(np.concatenate([banner, tile(np.asarray(draw(state)), rows)]))
    video = write_video(path, frames, FRAMES_PER_SECOND)
    return [video, write_gif(path.with_suffix(".gif"), frames, rows * GIF_SIDE)]


def tiles(act: Act, count: int) -> Iterator[Any]:
    """Physics of `count` tiles at each frame. Tile i shows episodes i, i + count, ...; the last one stands still."""
    lengths = np.asarray(act.played.lengths)
    num_filmed = jax.tree.leaves(act.played.physics)[0].shape[1]
    shown = [
        [(t, episode) for episode in range(i, num_filmed, count) for t in range(lengths[episode])] for i in range(count)
    ]
    for step in range(0, act.num_steps, STEPS_PER_FRAME):
        times, episodes = np.transpose([moments[min(step, len(moments) - 1)] for moments in shown])
        yield jax.tree.map(lambda leaf, t=times, e=episodes: leaf[t, e], act.played.physics)


def tile(pictures: np.ndarray, rows: int) -> np.ndarray:
    """(rows * rows, H, W, 3) as one picture of rows x rows."""
    height, width = pictures.shape[1:3]
    grid = pictures.reshape(rows, rows, height, width, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, rows * width, 3)


def caption(text: str, width: int) -> np.ndarray:
    """A line of text as a picture uint8 (CAPTION_HEIGHT, width, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (width, CAPTION_HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((12, CAPTION_HEIGHT / 2), text, fill=INK, font=ImageFont.load_default(20), anchor="lm")
    return np.asarray(picture)


def write_gif(path: Path, frames: Sequence[np.ndarray], width: int) -> Path:
    """A small GIF of the frames, `width` pixels wide."""
    from PIL import Image

    size = (width, round(frames[0].shape[0] * width / frames[0].shape[1]))
    small = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames]
    return write_video(path, small, FRAMES_PER_SECOND)
