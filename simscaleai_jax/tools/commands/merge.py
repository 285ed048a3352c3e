"""`simscale merge`: join the shards of a data set."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Write one file from all shards of a run of simscale datagen, as an unsharded run would have written it.

Example:
  simscale merge data/reach.h5 data/reach-*-of-00004.h5"""


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Options of `simscale merge`.

    Attributes:
      output: file to write; must not exist.
      shards: the shards, in any order.
      link: store links instead of copies; the shards must then stay where they are.
    """

    output: Annotated[str, tyro.conf.Positional]
    shards: Annotated[tuple[str, ...], tyro.conf.Positional]
    link: bool = False


def main(argv: list[str]) -> None:
    """Parses the options and merges."""
    from simscaleai_jax.datagen import merge_files

    options = parse(MergeOptions, argv, "merge", DESCRIPTION)
    print(f"Wrote {merge_files(options.shards, options.output, options.link)} from {len(options.shards)} shards.")
