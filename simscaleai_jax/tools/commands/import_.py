"""`simscale import`: torch weights as a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Read torch weights (.safetensors or .pt) and write them as a checkpoint that eval and training take.

Examples:
  simscale import policy.safetensors --output checkpoints/policy
  simscale import bc.pt --model-name bc --model-kwargs '{"state_dim": 28}'"""


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of `simscale import`.

    Attributes:
      file: .safetensors or .pt file.
      output: checkpoint directory to write; default: the file's path without its suffix.
      model_name: what the file holds, where it does not say: bc, vla or actor_critic.
      model_kwargs: constructor arguments as JSON, where the file does not say.
    """

    file: Annotated[str, tyro.conf.Positional]
    output: str | None = None
    model_name: str | None = None
    model_kwargs: str = "{}"


def main(argv: list[str]) -> None:
    """Parses the options, imports, prints the checkpoint's path."""
    options = parse(ImportOptions, argv, "import", DESCRIPTION)
    try:
        kwargs = json.loads(options.model_kwargs)
    except json.JSONDecodeError as error:
        raise ValueError(f"--model-kwargs is not JSON: {error}.") from None
    from simscaleai_jax.interop import import_torch

    output = options.output or str(Path(options.file).with_suffix(""))
    model = import_torch(options.file, output, model_name=options.model_name, model_kwargs=kwargs)
    print(f"Wrote {output}: {type(model).__name__}.")
