"""Figures of an environment: a grid of frames, what its cameras see, and videos of recorded episodes."""

from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.streams import Stream, host_seed

MAX_FRAMES = 12  # in the grid of frames
CAMERA_SIZE = 240  # pixels, both sides
COLUMNS = 4


def play_random(env_name: str, num_steps: int, seed: int) -> tuple[list[np.ndarray], list[float]]:
    """Plays random actions on host physics; a frame (H, W, 3) of the start and after each step, and the rewards.

    Raises:
      ValueError: unknown environment, or fewer than one step.
    """
    from simscaleai_jax.sim import make_env

    if num_steps < 1:
        raise ValueError(f"--n-steps must be at least 1, got {num_steps}")
    env = make_env(env_name, render_mode="rgb_array", cameras=[])
    try:
        env.reset(seed=host_seed(seed, Stream.VIEWER))
        env.action_space.seed(host_seed(seed, Stream.ACTIONS))
        frames, rewards = [np.asarray(env.render())], []
        for _ in range(num_steps):
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            frames.append(np.asarray(env.render()))
            rewards.append(float(reward))
            if terminated or truncated:
                break
    finally:
        env.close()
    return frames, rewards


def plot_env(env_name: str, num_steps: int = 10, seed: int = 42, save: str | Path | None = None) -> Any:
    """A grid of frames of one episode with random actions; a video instead where `save` ends in .mp4 or .gif."""
    frames, rewards = play_random(env_name, num_steps, seed)
    if save is not None and Path(save).suffix.lower() in (".mp4", ".gif"):
        from simscaleai_jax.sim.video import write_video

        return write_video(save, frames)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames))).round().astype(int))
    rows = -(-len(shown) // COLUMNS)
    figure, axes = _grid(rows, min(COLUMNS, len(shown)), (3.0, 2.45))
    for axis, index in zip(axes.flat, shown, strict=False):
        axis.imshow(frames[index])
        reward = f", reward {rewards[index - 1]:.2f}" if index else ""
        axis.set_title(f"step {index}{reward}", fontsize=10)
    figure.suptitle(f"{env_name}, random actions, seed {seed}", fontsize=13)
    return _finish(figure, save)


def plot_cameras(env_name: str, seed: int = 42, save: str | Path | None = None) -> Any:
    """RGB, depth and segmentation side by side, one row per camera of the scene, after a reset."""
    from simscaleai_jax.sim import make_env
    from simscaleai_jax.sim.render import make_host_renderer

    env = make_env(env_name, cameras=[])
    try:
        env.reset(seed=host_seed(seed, Stream.VIEWER))
        model, data = env.unwrapped.model, env.unwrapped.data
        names = [name for i in range(model.ncam) if (name := model.camera(i).name)]
        if not names:
            raise ValueError(f"the scene of {env_name!r} has no named camera")
        renderer, size = make_host_renderer(model), (CAMERA_SIZE, CAMERA_SIZE)
        images = {name: renderer.images(data, name, *size, depth=True, segmentation=True) for name in names}
    finally:
        env.close()
    figure, axes = _grid(len(names), 3, (3.4, 3.1))
    for row, (name, shown) in zip(axes, images.items(), strict=True):
        _draw_camera(figure, row, model, name, shown)
    figure.suptitle(f"Cameras of {env_name}, seed {seed}", fontsize=13)
    return _finish(figure, save)


def _draw_camera(figure: Any, row: Any, model: Any, name: str, images: dict[str, np.ndarray]) -> None:
    """One camera's three images; depth without its background, segmentation with a colour per geom."""
    row[0].imshow(images["rgb"])
    row[0].set_title(f"{name}: rgb", fontsize=10)
    is_hit = images["segmentation"] >= 0
    depth = np.ma.masked_where(~is_hit, images["depth"])
    far = 2.0 * float(np.median(images["depth"][is_hit])) if is_hit.any() else 1.0  # the floor goes on for ever
    drawn = row[1].imshow(depth, cmap="viridis_r", vmax=far)
    row[1].set_title("depth", fontsize=10)
    figure.colorbar(drawn, ax=row[1], label="m", fraction=0.046)
    row[2].imshow(geom_colours(model.ngeom)[images["segmentation"]])
    ids = np.unique(images["segmentation"])
    row[2].set_title(f"segmentation: {np.sum(ids >= 0)} geoms", fontsize=10)


def geom_colours(count: int) -> np.ndarray:
    """uint8 (count + 1, 3): a distinct colour per geom id and white for the background, which id -1 indexes."""
    import colorsys

    golden = 0.61803398875  # steps by the golden ratio keep neighbouring ids apart in hue
    colours = [
        colorsys.hsv_to_rgb(i * golden % 1.0, 0.55 + 0.35 * (i % 2), 0.95 - 0.25 * (i % 3)) for i in range(count)
    ]
    return np.round(255 * np.array([*colours, (1.0, 1.0, 1.0)])).astype(np.uint8)


def _grid(rows: int, columns: int, panel: tuple[float, float]) -> tuple[Any, np.ndarray]:
    """A figure of rows x columns empty panels of the given size in inches."""
    import matplotlib.pyplot as plt

    size = columns * panel[0], rows * panel[1] + 0.5
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _finish(figure: Any, save: str | Path | None) -> Any:
    if save is not None:
        import matplotlib.pyplot as plt

        Path(save).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(save, dpi=130)
        plt.close(figure)
    return figure
