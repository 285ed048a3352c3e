"""A film of how a policy learned: a grid of episodes that all begin at once, stage after stage, with captions."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simscaleai_jax.core.streams import Stream, seed_key
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
      policy: pure policy(obs, key) -> action.
      num_steps: control steps that it lasts; an environment whose episode ends begins the next one.
    """

    caption: str
    policy: Callable[[Any, jax.Array], jax.Array]
    num_steps: int


def write_film(
    env: Any, acts: Sequence[Act], path: str | Path, rows: int = 3, side: int = 256, seed: int = 0
) -> list[Path]:
    """Plays the acts in `rows` x `rows` environments and films them: an MP4, and a small GIF beside it.

    Args:
      env: batched environment without cameras.
      acts: the stages, in order.
      path: of the MP4.
      rows: tiles along either side of the grid.
      side: pixels of a tile's side.
      seed: of the episodes.
    Returns:
      The files.
    Raises:
      ValueError: a scene without cameras.
    """
    path = Path(path)
    model = env.functional.physics.host_model
    portrait_fn = make_portrait_fn(model, portrait_camera(model), side, side)
    physics = env.functional.physics
    draw = jax.jit(jax.vmap(lambda state: portrait_fn(physics.kinematics(state), {})))
    frames = []
    for act in acts:
        banner = caption(act.caption, rows * side)
        frames += [np.concatenate([banner, tile(np.asarray(draw(s)), rows)]) for s in play(env, act, rows * rows, seed)]
    video = write_video(path, frames, FRAMES_PER_SECOND)
    return [video, write_gif(path.with_suffix(".gif"), frames, rows * GIF_SIDE)]


def play(env: Any, act: Act, num_envs: int, seed: int) -> Iterator[Any]:
    """Physics of all environments at each frame of an act."""
    key = seed_key(seed, Stream.VIEWER)
    state = jax.jit(env.init)(key, jnp.arange(num_envs))
    state = state.replace(env=state.env.replace(step=jnp.zeros_like(state.env.step)))  # all begin at once

    def body(state: Any, t: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.fold_in(key, t), num_envs)
        return env.step(state, jax.vmap(act.policy)(state.obs, keys)), state.env.physics

    physics = jax.jit(lambda state: jax.lax.scan(body, state, jnp.arange(act.num_steps))[1])(state)
    for t in range(0, act.num_steps, STEPS_PER_FRAME):
        yield jax.tree.map(lambda leaf, t=t: leaf[t], physics)


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
