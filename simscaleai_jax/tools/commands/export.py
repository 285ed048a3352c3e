"""`simscale export`: the weights of a checkpoint for torch."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Write the weights of a checkpoint as torch weights, with torch's names and layouts.

In torch: simscaleai_jax.interop.torch_mirror.load(FILE) builds the module and loads them strictly, without JAX.

Examples:
  simscale export checkpoints/bc --format safetensors
  simscale export checkpoints/ppo_reach --output policy.pt"""


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of `simscale export`.

    Attributes:
      checkpoint: checkpoint directory, or the folder of a run (its best checkpoint is taken).
      format: safetensors, or pt (needs torch); default: by the suffix of the output.
      output: file to write; default: the checkpoint's path with the format's suffix.
      use_ema: the averaged weights where the checkpoint has them.
    """

    checkpoint: Annotated[str, tyro.conf.Positional]
    format: Literal["safetensors", "pt"] | None = None
    output: str | None = None
    use_ema: bool = True


def main(argv: list[str]) -> None:
    """Parses the options, exports, prints the file's path."""
    options = parse(ExportOptions, argv, "export", DESCRIPTION)
    from simscaleai_jax.core import checkpoint
    from simscaleai_jax.interop import export_torch

    source = checkpoint.resolve(options.checkpoint)
    output = (
        Path(options.output) if options.output else source.with_name(f"{source.name}.{options.format or 'safetensors'}")
    )
    written = export_torch(source, output, options.format, use_ema=options.use_ema)
    print(f"Wrote {written} ({written.stat().st_size / 1e6:.1f} MB).")
