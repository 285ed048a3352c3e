"""Fills figures of README.md and docs in from benchmarks/results/, so that none is ever typed, and draws their plots.

    python benchmarks/figures.py            writes docs/benchmarks.md with its plots, and what stands between marks in
                                            README.md and in docs/performance.md, clients.md, ppo.md, imitation.md and
                                            language.md
    python benchmarks/figures.py --check    exits with 1 where a page or a plot says something else

A result is benchmarks/results/NAME.json, or where that is not there benchmarks/results/quick/NAME.json, which the page
says. What has not been measured is said to be so.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import figure_tables as tables
import plots
from claims import SECTIONS, Claim, Section, Table
from client_figures import client_tables
from pages import between

ROOT = Path(__file__).parent.parent
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
README, PAGE, PERFORMANCE = ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "performance.md"
CLIENTS, PPO = ROOT / "docs" / "clients.md", ROOT / "docs" / "ppo.md"
IMITATION, LANGUAGE = ROOT / "docs" / "imitation.md", ROOT / "docs" / "language.md"
MARKS = ("<!-- figures: written by benchmarks/figures.py -->", "<!-- end of figures -->")
HEAD = "| what | figure | command |\n|---|---|---|\n"
PROGRAMS = ("ppo_update", "env_step", "pictures", "vla_step")

Result = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Writes the pages and plots, or compares them."""
    wanted = {
        README: between(README.read_text(), MARKS, readme()),
        PAGE: page(),
        PERFORMANCE: between(PERFORMANCE.read_text(), MARKS, performance()),
        CLIENTS: between(CLIENTS.read_text(), MARKS, clients()),
        PPO: between(PPO.read_text(), MARKS, ppo()),
        IMITATION: between(IMITATION.read_text(), MARKS, imitation()),
        LANGUAGE: between(LANGUAGE.read_text(), MARKS, language()),
    }
    pictures = {IMAGES / f"{name}.png": name for name in drawable(plots.PLOTS)}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    undrawn = [path for path, name in pictures.items() if plots.drawn_from(path) != plots.digest(source_of(name))]
    if "--check" not in argv:
        for path in stale:
            path.write_text(wanted[path])
        for path in undrawn:
            plots.draw(pictures[path], source_of(pictures[path]), path)
        return 0
    for path in (*stale, *undrawn):
        said = f"{path.name} does not say what benchmarks/results/ says; run python benchmarks/figures.py"
        print(said, file=sys.stderr)
    return bool(stale or undrawn)


def readme() -> str:
    """The README's table."""
    rows = [
        row(dataclasses.replace(claim, what=f"{section.title}: {claim.what.removeprefix('... ')}"))
        for section in SECTIONS
        for claim in section.claims
        if claim.in_readme
    ]
    return HEAD + "".join(rows)


def page() -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n\n"
        "Written by `python benchmarks/figures.py` from the JSON files under `benchmarks/results/`; a test fails\n"
        "where the two differ. Every file names the machine, the versions and the commit. Rates of different\n"
        "sections come from different days and loads; ratios within a line come from one run. No GPU or TPU has\n"
        "been measured.\n\n"
        "`simscale bench` lists what can be measured, `simscale bench NAME` measures one, `simscale bench all\n"
        "--quick` all of them at small sizes within 20 minutes on two cores; `make bench-peers` installs what is\n"
        "compared with. [Where the time goes](performance.md) has the limits that these figures stand beside.\n"
    ]
    return "\n".join(parts + [section_text(section) for section in SECTIONS])


def section_text(section: Section) -> str:
    """A section: text, what is not equal, tables, plots, and where each file of results comes from."""
    parts = [f"## {section.title}\n\n{section.text}\n"]
    if section.unequal:
        parts.append(f"Not equal: {section.unequal}\n")
    if section.claims:
        parts.append(HEAD + "".join(row(claim) for claim in section.claims))
    parts += [table_text(table) for table in section.tables]
    parts += [f"![{name.replace('_', ' ')}](images/{name}.png)\n" for name in drawable(section.plots)]
    sources = sorted({each.source for each in (*section.claims, *section.tables)})
    parts.append("".join(f"- `{name}.json`: {stamped(name)}\n" for name in sources))
    return "\n".join(parts)


def row(claim: Claim) -> str:
    """A line of a table."""
    result = load(claim.source)
    figure = "not measured yet" if result is None else claim.figure(result)
    return f"| {claim.what} | {figure} | `{claim.command}` |\n"


def table_text(table: Table) -> str:
    """A whole table with its command."""
    result = load(table.source)
    if result is None:
        return f"Not measured yet: `{table.command}`\n"
    return f"`{table.command}`\n\n{markdown(*table.rows(result))}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def clients() -> str:
    """The tables of docs/clients.md."""
    result = load("clients")
    if result is None:
        return "Not measured yet: `python benchmarks/clients.py`\n"
    return f"{client_tables(result['clients'])}\nMeasured on {stamped('clients')}.\n"


def ppo() -> str:
    """The table of docs/ppo.md."""
    return measured("ppo_ablation", tables.ablation)


def imitation() -> str:
    """The tables and the plot of docs/imitation.md."""
    plot = "" if load("imitation") is None else "\n![success against demonstrations](images/imitation.png)\n"
    parts = (
        ("What the recipes reach", measured("recipes", tables.recipes)),
        ("Success against demonstrations", measured("imitation", tables.demonstrations) + plot),
        ("Success against labels of an expert that corrects", measured("dagger", tables.labels)),
    )
    return "\n".join(f"### {title}\n\n{part}" for title, part in parts)


def language() -> str:
    """The table of docs/language.md."""
    return measured("recipes", tables.told)


def measured(name: str, table: Callable[[Result], tables.Table]) -> str:
    """The table of benchmarks/NAME.py, and where it comes from."""
    result, command = load(name), f"`python benchmarks/{name}.py`"
    if result is None:
        return f"Not measured yet: {command}\n"
    return f"{markdown(*table(result))}\nMeasured by {command}: {stamped(name)}.\n"


def performance() -> str:
    """The tables of docs/performance.md."""
    result = load("time_shares")
    if result is None:
        return "Not measured yet: `python benchmarks/time_shares.py`\n"
    titles = {
        "ppo_update": "One PPO update on pick and place (recipe `ppo_pick_place`)",
        "env_step": "One step of 128 environments of pick and place, random actions",
        "pictures": "256 pictures of 64x64 with colour, depth and segmentation",
        "vla_step": "One training step of a VLA, 64x64 pixels, batch 32",
    }
    parts = [f"### {titles[name]}\n\n{markdown(*tables.program(name, result))}" for name in PROGRAMS]
    parts.append(f"### Beside the machine's limits\n\n{markdown(*tables.limits(result))}")
    parts.append(f"- `time_shares.json`, `python benchmarks/time_shares.py`: {stamped('time_shares')}\n")
    return "\n".join(parts)


def drawable(names: Iterable[str]) -> list[str]:
    """The plots of these whose results are there."""
    return [name for name in names if load(plots.PLOTS[name][0]) is not None]


def source_of(plot: str) -> Result:
    """The results that a plot shows."""
    result = load(plots.PLOTS[plot][0])
    assert result is not None
    return result


def path_of(name: str) -> Path:
    """A file of results: the full one, else the quick one."""
    full = RESULTS / f"{name}.json"
    return full if full.exists() else RESULTS / "quick" / f"{name}.json"


def load(name: str) -> Result | None:
    """A file of results; None without one."""
    path = path_of(name)
    return json.loads(path.read_text()) if path.exists() else None


def stamped(name: str) -> str:
    """When and on what something was measured."""
    result = load(name)
    if result is None:
        return "not measured yet"
    hardware, versions = result["hardware"], result["versions"]
    machine = f"{hardware['cores']} cores of an {hardware['cpu']}"
    if hardware["device"] != "cpu":
        machine += f" and an {hardware['device']}"
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    quick = "quick sizes; " if path_of(name).parent.name == "quick" else ""
    runs = result.get("runs")
    if isinstance(runs, dict) and all("commit" in run for run in runs.values()):
        return f"date and commit of each run are in `{name}.json`; {machine}; {libraries}"
    return f"{quick}{result['date']}, commit {result['commit']}, {machine}; {libraries}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
