"""`simscale export-dataset`: convert data sets."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Convert a data set to LeRobot v3.0, robomimic or Minari, or a LeRobot data set to HDF5.

Examples:
  simscale export-dataset data/reach.h5 lerobot/reach --to lerobot
  simscale export-dataset data/pick.h5 lerobot/pick --to lerobot --images h264
  simscale export-dataset data/reach.h5 data/reach_robomimic.h5 --to robomimic
  simscale export-dataset data/reach.h5 minari/reach-expert-v0 --to minari
  simscale export-dataset lerobot/reach data/from_lerobot.h5 --from lerobot"""


@dataclasses.dataclass(frozen=True)
class ExportDatasetOptions:
    """Options of `simscale export-dataset`.

    Attributes:
      source: HDF5 file, or a LeRobot folder with --from lerobot.
      output: what to write; must not exist.
      to: format to write.
      from_: "lerobot" imports, "hdf5" exports.
      fps: frames per second, where the file does not say.
      images: LeRobot's pictures as they are (png), or as videos, which are smaller and lose a little.
    """

    source: Annotated[str, tyro.conf.Positional]
    output: Annotated[str, tyro.conf.Positional]
    to: Literal["lerobot", "robomimic", "minari", "hdf5"] | None = None
    from_: Annotated[Literal["hdf5", "lerobot"], tyro.conf.arg(name="from")] = "hdf5"
    fps: int | None = None
    images: Literal["png", "h264", "av1"] = "png"


def main(argv: list[str]) -> None:
    """Parses the options and converts."""
    print(f"Wrote {convert(parse(ExportDatasetOptions, argv, 'export-dataset', DESCRIPTION))}.")


def convert(options: ExportDatasetOptions) -> Path:
    """Runs the converter that the options name."""
    if options.from_ == "lerobot":
        if options.to not in (None, "hdf5"):
            raise ValueError(f"--from lerobot writes HDF5, not {options.to}; convert it in a second step.")
        from simscaleai_jax.datagen.formats.lerobot_import import import_lerobot

        return import_lerobot(options.source, options.output, progress=True)
    if options.to == "lerobot":
        from simscaleai_jax.datagen.formats.lerobot_export import export_lerobot

        return export_lerobot(options.source, options.output, options.fps, progress=True, images=options.images)
    if options.to == "robomimic":
        from simscaleai_jax.datagen.formats.robomimic_export import export_robomimic

        return export_robomimic(options.source, options.output)
    if options.to == "minari":
        from simscaleai_jax.datagen.formats.minari_export import export_minari

        return export_minari(options.source, options.output)
    raise ValueError("Say what to write: --to lerobot, --to robomimic or --to minari, or --from lerobot.")
