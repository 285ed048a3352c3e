"""`simscale completion`: what completes commands, options and their choices in a shell."""

import dataclasses
import importlib
from typing import Annotated, Any, Literal

import tyro

from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.cli import COMMANDS

DESCRIPTION = """Print a script that completes commands, options and choices.

  bash    simscale completion bash > ~/.local/share/bash-completion/completions/simscale
  zsh     simscale completion zsh > _simscale, in a folder of $fpath
  tcsh    simscale completion tcsh > ~/.simscale.tcsh, and source it"""


@dataclasses.dataclass(frozen=True)
class CompletionOptions:
    """Options of `simscale completion`.

    Attributes:
      shell: the shell.
    """

    shell: Annotated[Literal["bash", "zsh", "tcsh"], tyro.conf.Positional]


def main(argv: list[str]) -> None:
    """Prints the script."""
    options = parse(CompletionOptions, argv, "completion", DESCRIPTION)
    arguments = ["--tyro-print-completion", options.shell]
    tyro.extras.subcommand_cli_from_dict(option_classes(), args=arguments, prog="simscale")


def option_classes() -> dict[str, Any]:
    """The options of every command that has some: command -> dataclass, which is named after it."""
    found = {}
    for command, (module, _, _) in COMMANDS.items():
        members = {name.lower(): value for name, value in vars(importlib.import_module(module)).items()}
        found[command] = members.get(command.replace("-", "") + "options")
    return {command: options for command, options in found.items() if options is not None}
