"""`simscale merge`: join the shards of a data set."""

import dataclasses
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Write one file from all shards of a run of simscale datagen, as an unsharded run would have written it.

Either way the result is one robomimic file that h5py reads by itself: with --copy (the default) it stands alone, with
--link its episodes are links that HDF5 follows into the shards.

Examples:
  simscale merge data/reach.h5 data/reach-*-of-00004.h5
  simscale merge data/reach.h5 data/reach-*-of-00004.h5 --link"""


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Options of `simscale merge`.

    Attributes:
      output: file to write; must not exist.
      shards: the shards, in any order.
      copy: store copies, the default; the shards may be deleted afterwards.
      link: store links instead of copies; the shards must then stay where they are.
    """

    output: Annotated[str, tyro.conf.Positional]
    shards: Annotated[tuple[str, ...], tyro.conf.Positional]
    copy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    link: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main(argv: list[str]) -> None:
    """Parses the options and merges."""
    from simscaleai_jax.datagen import merge_files

    options = parse(MergeOptions, argv, "merge", DESCRIPTION)
    if options.copy and options.link:
        raise ValueError("--copy and --link exclude each other.")
    print(f"Wrote {merge_files(options.shards, options.output, options.link)} from {len(options.shards)} shards.")
