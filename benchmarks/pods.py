"""What runs need on TPU pods, as `simscale plan` says: every program compiled for slices that are not there.

    python benchmarks/pods.py                     # all rows that benchmarks/results/pods.json lacks
    python benchmarks/pods.py --cases bc --again
    python benchmarks/pods.py --fits h100:1       # the most environments that fit, where pods.json lacks them
    python benchmarks/pods.py --cases --fits      # compiles nothing, writes the page anew

Needs libtpu (pip install 'simscaleai-jax[tpu]'), no TPU; GPUs need 'simscaleai-jax[plan-cuda]'. A row takes seconds to
minutes and is written at once, so the script may be stopped and started again. It also writes the tables of
docs/multi_host.md.
"""

import argparse
import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from pages import between
from stamp import stamp

from simscaleai_jax.models import create_model
from simscaleai_jax.tools.commands import train
from simscaleai_jax.tools.commands.plan import PlanOptions, plan

SLICES = (("v5e:2x2", 1), ("v5e:4x4", 1), ("v5e:8x8", 1), ("v5e:16x16", 1), ("v5e:16x16", 2))
VLA = "train --model vla --model.image-size 64 --model.scan-layers True"
LARGE = "--model.embed-dim 1024 --model.num-layers 16 --model.num-heads 16 --remat --fsdp"
CASES = {  # name -> (what it is, arguments of simscale plan, samples a chip in them)
    "bc": ("BC, 1,024 samples a chip", "train --model bc --batch-size {batch}", 1024),
    "vla": ("VLA small, 32 images a chip", VLA + " --batch-size {batch}", 32),
    "vla_fsdp": ("VLA small, --fsdp", VLA + " --fsdp --batch-size {batch}", 32),
    "diffusion": ("VLA small, diffusion head", VLA + " --model.action-head-type diffusion --batch-size {batch}", 32),
    "ppo_reach": ("PPO reach, 32,768 environments", "ppo_reach --ppo.num-envs 32768 --ppo.n-steps 524288", 0),
    "ppo_pick_place": ("PPO pick_place, 32,768", "ppo_pick_place --ppo.num-envs 32768 --ppo.n-steps 524288", 0),
    "vla_large": ("VLA large, --fsdp --remat", f"{VLA} {LARGE} --batch-size {{batch}}", 16),
    "vla_large_kept": (
        "VLA large, --fsdp --remat --keep-gathered",
        f"{VLA} {LARGE} --keep-gathered --batch-size {{batch}}",
        16,
    ),
}
FITS = {  # topology -> what is made as large as fits there; sizes to begin with near the answer
    "v5e:1x1": "ppo_pick_place --ppo.num-envs 262144 --ppo.n-steps 4194304",
    "h100:1": "ppo_pick_place --ppo.num-envs 2097152 --ppo.n-steps 33554432",
}
SENT = ("count", "bytes", "sent", "sent_between_slices")
PAGE = Path("docs/multi_host.md")
MARKS = ("<!-- pods: written by benchmarks/pods.py -->", "<!-- end of pods -->")
FIT_MARKS = ("<!-- fits: written by benchmarks/pods.py -->", "<!-- end of fits -->")


def main() -> None:
    """Compiles what is missing, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results/pods.json")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), help="default: all, or none with --fits")
    parser.add_argument("--chips", nargs="+", type=int, default=[4, 16, 64, 256, 512])
    parser.add_argument("--fits", nargs="*", choices=list(FITS), help="default: all, or none with --cases")
    parser.add_argument("--again", action="store_true", help="compile what there is already, too")
    options = parser.parse_args()
    if options.cases is None and options.fits is None:
        options.cases = options.fits = []
    cases = list(CASES) if options.cases == [] else options.cases or ()
    fits = list(FITS) if options.fits == [] else options.fits or ()
    path = Path(options.output)
    found = {"rows": [], "fits": []} | (json.loads(path.read_text()) if path.exists() else {})

    def add(kind: str, key: dict[str, Any], make: Callable[..., dict[str, Any]]) -> None:
        if options.again or not any(row.items() >= key.items() for row in found[kind]):
            row = make(**key)
            found[kind] = [other for other in found[kind] if not other.items() >= key.items()] + [row]
            path.write_text(json.dumps(stamp() | {name: found[name] for name in ("rows", "fits")}, indent=1) + "\n")
            write_page(found)

    for case in cases:
        for topology, slices in SLICES:
            if count(topology) * slices in options.chips:
                add("rows", {"case": case, "topology": topology, "slices": slices}, examine)
    for topology in fits:
        add("fits", {"topology": topology}, examine_fit)
    write_page(found)


def write_page(found: dict[str, Any]) -> None:
    """Puts the tables of these results into docs/multi_host.md."""
    page = between(PAGE.read_text(), MARKS, table(found["rows"]))
    PAGE.write_text(between(page, FIT_MARKS, table_of_fits(found["fits"])))


def examine(case: str, topology: str, slices: int) -> dict[str, Any]:
    """One row: what the update of a case needs."""
    _, arguments, each = CASES[case]
    arguments = arguments.format(batch=each * count(topology) * slices)
    found = plan(PlanOptions(topology, slices), arguments.split())["programs"]["update"]
    collectives, cycles = found["collectives"], found["cycles"]
    kinds: Counter[str] = Counter()
    for row in collectives["each"]:
        kinds[row["kind"]] += row["count"]
    more = f" --slices {slices}" if slices > 1 else ""
    row = {
        "case": case,
        "topology": topology,
        "slices": slices,
        "command": f"simscale plan {arguments} --topology {topology}{more}",
        "chips": found["devices"],
        "seconds": {name: round(value, 1) for name, value in found["seconds"].items()},
        "memory": found["memory"],
        "flops": found["flops"],
        "collectives": {name: collectives[name] for name in SENT} | {"kinds": dict(kinds)},
        "cycles": {"total": cycles["total"], "parts": cycles["parts"]},
        "estimate": found["estimate"],
        "warnings": found["warnings"],
    }
    print(json.dumps({name: row[name] for name in ("case", "chips", "seconds", "collectives")}), flush=True)
    return row


def examine_fit(topology: str) -> dict[str, Any]:
    """One row of a machine: the most environments that fit, and twice as many, which do not."""
    found = plan(PlanOptions(topology, fit=True), FITS[topology].split())
    return {
        "topology": topology,
        "command": f"simscale plan {FITS[topology]} --topology {topology} --fit",
        "environments": found["environments"],
        "tried": found["tried"],
        "memory": found["programs"]["update"]["memory"],
        "seconds": found["programs"]["update"]["seconds"],
    }


def count(topology: str) -> int:
    """Chips of a flat slice."""
    first, second = topology.partition(":")[2].split("x")
    return int(first) * int(second)


def ideal(row: dict[str, Any]) -> float | None:
    """Bytes that a chip must send within its slice to scatter a model's gradients once and gather its parameters once,
    on a ring and in bfloat16, in which models exchange them; None for PPO.
    """
    arguments = CASES[row["case"]][1].format(batch=1).split()
    if arguments[0] != "train":
        return None
    chips = row["chips"] // row["slices"]
    return 2 * 2 * parameters(" ".join(arguments[1:])) * (chips - 1) / chips


@functools.cache
def parameters(arguments: str) -> int:
    """Numbers that the model of these arguments of `simscale train` learns."""
    options = train.parse_options(arguments.split())
    model = nnx.eval_shape(lambda: create_model(options.model_name, **options.model_kwargs))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def table(rows: list[dict[str, Any]]) -> str:
    """A table of these rows."""
    order = {case: i for i, case in enumerate(CASES)}
    lines = [
        "| program | v5e chips | compile, s | MiB a chip: arguments / temporaries / in all | exchanges an update "
        "| sent by a chip | of the ideal | estimated ms: links / instructions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (order[row["case"]], row["chips"])):
        mib = " / ".join(f"{row['memory'][name] / 2**20:,.1f}" for name in ("arguments", "temporaries", "needed"))
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(row["collectives"]["kinds"].items()))
        chips = f"{row['chips']}" + (f" in {row['slices']} slices" if row["slices"] > 1 else "")
        sent = f"{row['collectives']['sent']:,.0f} B"
        if row["slices"] > 1:
            sent += f", {row['collectives']['sent_between_slices']:,.0f} B to the other slice"
        share = ideal(row)
        says = f"{row['collectives']['sent'] / share:.2f}" if share else ""
        estimate = " / ".join(f"{1e3 * row['estimate'][name]:,.2f}" for name in ("links", "cycles"))
        cells = (CASES[row["case"]][0], chips, f"{row['seconds']['compile']:.0f}", mib, kinds, sent, says, estimate)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *growth(rows)]) + "\n"


def growth(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table: every case on the fewest and on the most chips of one slice."""
    lines = [
        "From the fewest to the most chips of one slice:",
        "",
        "| program | v5e chips | exchanges an update | MiB a chip: arguments | in all | million cycles |",
        "|---|---|---|---|---|---|",
    ]
    for case, (name, _, _) in CASES.items():
        found = sorted(
            (row for row in rows if row["case"] == case and row["slices"] == 1), key=lambda row: row["chips"]
        )
        if len(found) < 2:
            continue
        first, last = found[0], found[-1]
        memory = [
            f"{first['memory'][part] / 2**20:,.1f} -> {last['memory'][part] / 2**20:,.1f}"
            for part in ("arguments", "needed")
        ]
        counts = f"{first['collectives']['count']:,} -> {last['collectives']['count']:,}"
        cycles = [row["cycles"]["total"] / 1e6 for row in (first, last)]
        times = f"{cycles[0]:,.1f} -> {cycles[1]:,.1f} ({cycles[0] / cycles[1]:.1f} times fewer)"
        lines.append(f"| {name} | {first['chips']} -> {last['chips']} | {counts} | {' | '.join(memory)} | {times} |")
    return lines


def table_of_fits(fits: list[dict[str, Any]]) -> str:
    """A table of the largest sizes that fit, or a line that says that there is none yet."""
    if not fits:
        return "Not carried through yet.\n"
    lines = ["| command | fits | needs, MiB a chip | does not fit | because |", "|---|---|---|---|---|"]
    for row in fits:
        needed = {size["size"]: size["needed"] for size in row["tried"]}
        most = row["environments"]
        error = next(size["error"] for size in row["tried"] if size["size"] == 2 * most)
        because = error.split(": ", 1)[-1]
        lines.append(f"| `{row['command']}` | {most:,} | {needed[most] / 2**20:,.0f} | {2 * most:,} | {because} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
