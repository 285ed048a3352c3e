"""How commands read their options: a dataclass, a YAML file under it, and flags over it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import tyro
from rich.console import Console
from rich.table import Table

from simscaleai_jax.core.config import load_yaml


def parse[T](cls: type[T], argv: Sequence[str], command: str, description: str) -> T:
    """Fills the dataclass `cls` from its defaults, then the file named by `--config`, then the other options.

    Raises:
      FileNotFoundError, ValueError: the file is missing or holds a key that `cls` does not have.
      SystemExit: what tyro does after `--help` or a wrong option.
    """
    path = config_path(argv)
    default = None if path is None else load_yaml(path, cls)
    filled = tyro.cli(cls, args=list(argv), default=default, prog=f"simscale {command}", description=description)
    return cast(T, filled)


def config_path(argv: Sequence[str]) -> str | None:
    """The value of `--config` in `--config PATH` or `--config=PATH`."""
    for i, argument in enumerate(argv):
        if argument == "--config" and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith("--config="):
            return argument.partition("=")[2]
    return None


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table; numbers are right-aligned."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        is_number = bool(rows) and isinstance(rows[0][i], int | float)
        table.add_column(column, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console().print(table)


def recorded_env(record: Mapping[str, Any], chosen: str | None) -> tuple[str, dict[str, Any]]:
    """Name and settings of the environment that a checkpoint belongs to; none of its settings for another one.

    Args:
      record: the manifest's `env`.
      chosen: the value of --env-name.
    Raises:
      ValueError: neither names an environment.
    """
    recorded = record.get("name")
    name = chosen or recorded
    if not name:
        raise ValueError("The checkpoint names no environment; give --env-name.")
    return name, dict(record.get("config") or {}) if recorded in (None, name) else {}


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
