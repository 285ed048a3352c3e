"""An environment step of MJX on one TPU chip, as the compiler estimates it: environments first, and along the lanes.

    python benchmarks/tpu_step.py                       # pick_place, 4,096 environments on a v5e chip
    python benchmarks/tpu_step.py --num-envs 512 4096

Needs libtpu (pip install 'simscaleai-jax[tpu]'), no TPU. A row takes minutes and is written at once. It also writes the
table of docs/performance.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
from pages import between
from stamp import stamp

from simscaleai_jax.core import sharding
from simscaleai_jax.core.ahead import Program, abstract
from simscaleai_jax.core.batch_last import compiled_for
from simscaleai_jax.plan.report import examine
from simscaleai_jax.plan.targets import find_target
from simscaleai_jax.sim import make_functional_env

LAYOUTS = {"first": "cpu", "lanes": "tpu"}  # name -> what MJX lays environments out for
NAMES = {"first": "first (`jax.vmap`)", "lanes": "along the lanes"}
PAGE = Path("docs/performance.md")
MARKS = ("<!-- step: written by benchmarks/tpu_step.py -->", "<!-- end of step -->")


def main() -> None:
    """Compiles every row that is missing, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results/tpu_step.json")
    parser.add_argument("--env-name", default="pick_place")
    parser.add_argument("--num-envs", nargs="+", type=int, default=[4096])
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--topology", default="v5e:1x1")
    parser.add_argument("--again", action="store_true", help="compile what there is already, too")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    path = Path(options.output)
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for num_envs in options.num_envs:
        for layout in options.layouts:
            key = {"env": options.env_name, "topology": options.topology, "num_envs": num_envs, "layout": layout}
            if options.again or not any(row.items() >= key.items() for row in rows):
                row = key | examine_step(options.env_name, num_envs, LAYOUTS[layout], options.topology)
                print(json.dumps(row), flush=True)
                rows = [other for other in rows if not other.items() >= key.items()] + [row]
                path.write_text(json.dumps(stamp() | {"rows": rows}, indent=1) + "\n")
                PAGE.write_text(between(PAGE.read_text(), MARKS, table(rows)))


def examine_step(env_name: str, num_envs: int, platform: str, topology: str) -> dict[str, Any]:
    """What a control step of the functional environment needs, without cameras and resets."""
    target = find_target(topology)
    env = make_functional_env(env_name, impl="jax", cameras=[])
    state = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((env.action_size,), "float32")
    arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_envs, *x.shape), x.dtype), (state, action))
    step = jax.jit(compiled_for(platform)(jax.vmap(env.step_state)))
    report = examine(Program(step, abstract(arguments, sharding.replicated(target.mesh))), target)
    return {
        "physics_steps": env.config.substeps,
        "seconds": report["seconds"],
        "memory": report["memory"],
        "bytes_moved": report["bytes_moved"],
        "cycles": {"total": report["cycles"]["total"], "parts": report["cycles"]["parts"]},
        "warnings": report["warnings"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A table of these rows."""
    lines = [
        "| environments | on | laid out | million cycles | MiB of temporaries | compile, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["env"], row["topology"], row["num_envs"], row["layout"])):
        lines.append(
            f"| {row['num_envs']:,} of {row['env']} | {row['topology']} | {NAMES[row['layout']]} "
            f"| {row['cycles']['total'] / 1e6:,.1f} | {row['memory']['temporaries'] / 2**20:,.0f} "
            f"| {row['seconds']['compile']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
