"""`simscale viz-cameras`: what the cameras of an environment see."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.display import figure_file, show_or_name

DESCRIPTION = """Draw RGB, depth and segmentation of every camera, side by side.

Example:
  simscale viz-cameras --env-name pick_place --save cameras.png"""


@dataclasses.dataclass(frozen=True)
class VizCamerasOptions:
    """Options of `simscale viz-cameras`.

    Attributes:
      env_name: environment (see simscale list-envs).
      seed: of the start.
      save: PNG, PDF or SVG to write; without it the figure is shown on screen, or
        written to outputs/viz-cameras.png where there is none.
    """

    env_name: str = "reach"
    seed: int = 42
    save: Annotated[str | None, tyro.conf.arg(aliases=["--output"])] = None


def main(argv: list[str]) -> None:
    """Parses the options and draws."""
    from simscaleai_jax.tools.viz_env import plot_cameras

    options = parse(VizCamerasOptions, argv, "viz-cameras", DESCRIPTION)
    file = figure_file(options.save, "viz-cameras")
    plot_cameras(options.env_name, options.seed, file)
    show_or_name(file, options.save)
