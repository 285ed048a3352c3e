"""`simscale viz-trajectory`: draw one episode of a data set."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.display import figure_file, show_or_name

DESCRIPTION = """Draw one episode: observations, actions, rewards, and frames if there are any; or write a video of it.

Examples:
  simscale viz-trajectory data/reach.h5 --episode 3 --save episode.png
  simscale viz-trajectory data/reach.h5 --episode 3 --save episode.mp4"""


@dataclasses.dataclass(frozen=True)
class VizTrajectoryOptions:
    """Options of `simscale viz-trajectory`.

    Attributes:
      path: demonstration file.
      episode: which one, counted from 0.
      save: PNG, PDF, SVG, MP4 or GIF to write; without it the figure is shown on screen, or
        written to outputs/viz-trajectory.png where there is none.
    """

    path: Annotated[str, tyro.conf.Positional]
    episode: int = 0
    save: Annotated[str | None, tyro.conf.arg(aliases=["--output"])] = None


def main(argv: list[str]) -> None:
    """Parses the options and draws."""
    from simscaleai_jax.tools.viz_dataset import plot_trajectory

    options = parse(VizTrajectoryOptions, argv, "viz-trajectory", DESCRIPTION)
    file = figure_file(options.save, "viz-trajectory")
    if options.save and options.save.lower().endswith((".mp4", ".gif")):
        from simscaleai_jax.tools.viz_live import write_episode_video

        write_episode_video(options.path, options.episode, options.save)
    else:
        plot_trajectory(options.path, options.episode, file)
    show_or_name(file, options.save)
