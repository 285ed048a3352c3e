"""What commands print: tables for people, or with `--json` one JSON value on standard output and all else on stderr."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from simscaleai_jax.core.plain import native

FILE_WIDTH = 240  # characters of a table that goes to a file or a pipe

_collected: list[Any] | None = None  # what `--json` will print


@contextlib.contextmanager
def as_json(stdout: TextIO) -> Iterator[None]:
    """Within it, tables are collected and anything else that is printed goes to stderr; at the end, JSON on `stdout`.

    One table is one value; several make a list. Nothing is printed where an error ends it.
    """
    global _collected
    before, _collected = _collected, []
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
        tables = _collected
        print(json.dumps(tables[0] if len(tables) == 1 else tables, indent=1, default=str), file=stdout, flush=True)
    finally:
        _collected = before


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], values: Any = None) -> None:
    """Prints a table; numbers are right-aligned, and what is too long goes on in the next line.

    Args:
      values: what `--json` says instead; default: a mapping of a table of two columns "result" and "value", else a
        list with a mapping per row.
    """
    if _collected is not None:
        _collected.append(_jsonable(_as_values(columns, rows) if values is None else values))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        is_number = bool(rows) and isinstance(rows[0][i], int | float)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(shown(cell)) for cell in row))
    print_rich(table)


def print_report(values: Any, *tables: tuple[str, Sequence[str], Sequence[Sequence[Any]]]) -> None:
    """Prints tables (title, columns, rows) that say the same as `values`, which are what `--json` prints."""
    if _collected is not None:
        _collected.append(_jsonable(values))
        return
    for title, columns, rows in tables:
        print_table(title, columns, rows)


def print_rich(*parts: Any) -> None:
    """Prints what rich lays out, in colours on a terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH  # rich assumes 80 columns, and would cut words short
    with console.capture() as laid_out:  # left to itself, rich ends the program where nobody reads
        for part in parts:
            console.print(part)
    print(laid_out.get(), end="", flush=True)


def shown(cell: Any) -> str:
    """A cell as people read it: three decimals, or three digits of what is smaller than that.

    >>> shown(14.4321), shown(0.00025), shown("reach")
    ('14.432', '0.00025', 'reach')
    """
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.3g}" if 0.0 < abs(cell) < 5e-3 else f"{cell:.3f}"


def _as_values(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    if tuple(columns) == ("result", "value"):
        return {str(name): value for name, value in rows}
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _jsonable(value: Any) -> Any:
    """Without numbers that JSON has no word for: they become null."""
    value = native(value)
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
