"""`simscale viz-dataset`: draw what is in a data set."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.display import figure_file, show_or_name

DESCRIPTION = """Draw a data set: episode lengths, returns, success, actions and the range of every observation key.

Example:
  simscale viz-dataset data/reach.h5 --save reach.png"""


@dataclasses.dataclass(frozen=True)
class VizDatasetOptions:
    """Options of `simscale viz-dataset`.

    Attributes:
      path: demonstration file.
      save: PNG, PDF or SVG to write; without it the figure is shown on screen, or
        written to outputs/viz-dataset.png where there is none.
    """

    path: Annotated[str, tyro.conf.Positional]
    save: Annotated[str | None, tyro.conf.arg(aliases=["--output"])] = None


def main(argv: list[str]) -> None:
    """Parses the options and draws."""
    from simscaleai_jax.tools.viz_dataset import plot_dataset

    options = parse(VizDatasetOptions, argv, "viz-dataset", DESCRIPTION)
    file = figure_file(options.save, "viz-dataset")
    plot_dataset(options.path, file)
    show_or_name(file, options.save)
