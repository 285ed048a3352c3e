"""`simscale config show`: the whole configuration of a command, a preset or a run."""

import importlib
import sys
from typing import Any

from simscaleai_jax.core.config import to_dict
from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.tools.arguments import presets

DESCRIPTION = """simscale config show [COMMAND | RUN] [PRESET] [OPTIONS]

Prints, as YAML that --config takes, every setting of a command as its options leave it; or of a run as its folder
records it, and what has been changed on the way. Without anything else it lists the presets.

Examples:
  simscale config show rl ppo_pick_place --ppo.lr 1e-3
  simscale config show train --model vla
  simscale config show checkpoints/ppo_reach
  simscale config show

options:
  -h, --help  show this text"""

COMMANDS = ("rl", "train", "datagen")
NOT_SHOWN = ("config",)


def main(argv: list[str]) -> None:
    """Prints what is asked for."""
    if not argv or argv[0] in ("-h", "--help") or {"-h", "--help"} & set(argv[1:2]):
        print(DESCRIPTION)
        sys.exit(0)
    if argv[0] != "show":
        raise unknown_name("action of simscale config", argv[0], ["show"])
    print(show(argv[1:]), end="")


def show(argv: list[str]) -> str:
    """The configuration as YAML.

    Raises:
      ValueError: neither a command nor a run's folder.
    """
    if not argv:
        return "".join(f"{name}: {path}\n" for name, path in presets().items())
    what, *rest = argv
    if what in COMMANDS:
        module = importlib.import_module(f"simscaleai_jax.tools.commands.{what}")
        values = to_dict(module.parse_options(rest))
        return _yaml({name: value for name, value in values.items() if name not in NOT_SHOWN})
    from simscaleai_jax.core.runs.folder import nested_settings, read_run

    run = read_run(what)
    if not run:
        raise ValueError(f"{what!r} is no command with a configuration ({', '.join(COMMANDS)}) and no run's folder.")
    return _yaml(nested_settings(run["settings"])) + "".join(map(_said, run["changes"]))


def _said(change: dict[str, Any]) -> str:
    since = f"# since step {change['step']:,} ({change['time']})"
    return f"{since}: {change['name']} {change['new']!r}, was {change['old']!r}\n"


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
