"""Seconds from `python -c` to the first step of an environment, and of imports.

    python benchmarks/startup.py

Every figure is the median over processes of their own. The compile cache is a folder of this run: "first" is with the
empty one, "later" with what the first process left in it. `python` is an interpreter that does nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "startup.json"
HOST = """
from simscaleai_jax.sim import make_env
env = make_env({env!r}, cameras=[])
env.reset(seed=0)
env.step(env.action_space.sample())
"""
BATCH = """
from simscaleai_jax.core import compile_cache
compile_cache.enable()
import jax, jax.numpy as jnp
from simscaleai_jax.sim import make_batched_env
env = make_batched_env({env!r}, dt=0.01, cameras=[], impl={impl!r})
state = jax.jit(env.init)(jax.random.key(0), jnp.arange(1024))
state = jax.jit(env.step)(state, jnp.zeros((1024, env.action_size)))
jax.block_until_ready(state)
"""
IMPORTS = ("simscaleai_jax", "simscaleai_jax.sim", "simscaleai_jax.rl", "simscaleai_jax.models", "jax", "mujoco")


def main() -> None:
    """Measures, prints a line per case and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-names", nargs="+", default=["pick_place", "reach"])
    parser.add_argument("--impl", nargs="+", default=["c", "jax"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="pick and place on the first engine, twice")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.env_names, options.impl, options.repeats = options.env_names[:1], options.impl[:1], 2
    report: dict[str, Any] = {"benchmark": "startup", **stamp(), "quick": options.quick}
    report |= {"load_before": os.getloadavg()[0], "python": spread([seconds("") for _ in range(options.repeats)])}
    report["imports"] = {name: spread([seconds(f"import {name}") for _ in range(options.repeats)]) for name in IMPORTS}
    print(json.dumps(report["imports"]), flush=True)
    report["first_step"] = []
    for env in options.env_names:
        report["first_step"].append({"env_name": env, "what": "host"} | cached(HOST.format(env=env), options.repeats))
        for impl in options.impl:
            case = cached(BATCH.format(env=env, impl=impl), options.repeats)
            report["first_step"].append({"env_name": env, "what": f"1,024 copies on {impl}"} | case)
        print(json.dumps(report["first_step"]), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def cached(code: str, repeats: int) -> dict[str, Any]:
    """Seconds with an empty compile cache, and with a filled one."""
    first, later = [], []
    for _ in range(max(1, repeats // 2)):
        with tempfile.TemporaryDirectory() as folder:
            first.append(seconds(code, folder))
            later += [seconds(code, folder) for _ in range(2)]
    return {"first": spread(first), "later": spread(later)}


def seconds(code: str, cache: str | None = None) -> float:
    """Wall-clock of `python -c CODE`."""
    environment = dict(os.environ) | ({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {})
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


if __name__ == "__main__":
    main()
