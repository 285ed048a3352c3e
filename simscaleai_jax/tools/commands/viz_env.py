"""`simscale viz-env`: a grid of frames of an environment."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.display import figure_file, show_or_name

DESCRIPTION = """Draw frames of one episode with random actions; with --save FILE.mp4 or FILE.gif, write a video of it.

Examples:
  simscale viz-env --env-name pick_place --save frames.png
  simscale viz-env --env-name reach --n-steps 100 --save reach.mp4"""


@dataclasses.dataclass(frozen=True)
class VizEnvOptions:
    """Options of `simscale viz-env`.

    Attributes:
      env_name: environment (see simscale list-envs).
      n_steps: control steps to play.
      seed: of the start and the actions.
      save: PNG, PDF, SVG, MP4 or GIF to write; without it the figure is shown on screen, or
        written to outputs/viz-env.png where there is none.
    """

    env_name: str = "reach"
    n_steps: int = 10
    seed: int = 42
    save: Annotated[str | None, tyro.conf.arg(aliases=["--output"])] = None


def main(argv: list[str]) -> None:
    """Parses the options and draws."""
    from simscaleai_jax.tools.viz_env import plot_env

    options = parse(VizEnvOptions, argv, "viz-env", DESCRIPTION)
    file = figure_file(options.save, "viz-env")
    plot_env(options.env_name, options.n_steps, options.seed, file)
    show_or_name(file, options.save)
