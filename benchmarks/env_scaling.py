"""Environment steps per second against the number of environments, 1 to 16,384, with compile seconds and memory.

    python benchmarks/env_scaling.py [--env-names pick_place reach] [--impl c jax] [--quick]

Every size is a process of its own, so that its memory and its first calls are its own: `start_seconds` is compiling and
running the first reset, `first_call_seconds` the same for the loop of steps, without a compile cache; `megabytes` is
the most that the process held, `idle_megabytes` what it held before it made the environment. The rate is the median of
blocks. `saturates_at` is the smallest number of environments with 90% of the highest rate.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "env_scaling.json"
SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
QUICK_SIZES = (1, 64, 1024)
LARGEST = {"jax": 4096}  # on a CPU, where a step of more environments takes seconds
SATURATED = 0.9
DT, CONTROL_DT = 0.01, 0.05


def main() -> None:
    """Measures every size, prints a line for each and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-names", nargs="+", default=["pick_place", "reach"])
    parser.add_argument("--impl", nargs="+", default=["c", "jax"])
    parser.add_argument("--num-envs", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="pick and place on the first engine, few sizes")
    parser.add_argument("--on-gpu", action="store_true", help="no smaller largest size for MJX")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(**json.loads(options.child))))
        return
    if options.quick:
        options.env_names, options.impl = options.env_names[:1], options.impl[:1]
        options.num_envs, options.repeats = list(QUICK_SIZES), 2
    report: dict[str, Any] = {"benchmark": "env_scaling", **stamp(), "quick": options.quick}
    report |= {"load_before": os.getloadavg()[0], "physics_steps": round(CONTROL_DT / DT), "curves": []}
    for env_name in options.env_names:
        for impl in options.impl:
            curve: dict[str, Any] = {"env_name": env_name, "impl": impl, "points": []}
            report["curves"].append(curve)
            for count in options.num_envs:
                if options.on_gpu or count <= LARGEST.get(impl, count):
                    curve["points"].append(child(env_name, impl, count, options.repeats))
                    print(env_name, impl, json.dumps(curve["points"][-1]), flush=True)
                    curve["saturates_at"] = saturation(curve["points"])
                    write(options.output, report)


def write(path: Path, report: dict[str, Any]) -> None:
    """The JSON file as far as it is known."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def child(env_name: str, impl: str, num_envs: int, repeats: int) -> dict[str, Any]:
    """One size in a process of its own; what ends it becomes part of the report."""
    wanted = {"env_name": env_name, "impl": impl, "num_envs": num_envs, "repeats": repeats}
    command = [sys.executable, __file__, "--child", json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return {"num_envs": num_envs, "failed": last}
    return json.loads(done.stdout.splitlines()[-1])


def measure(env_name: str, impl: str, num_envs: int, repeats: int) -> dict[str, Any]:
    """A size: rate, first calls, memory."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    from simscaleai_jax.sim import make_batched_env

    jax.block_until_ready(jax.numpy.zeros(1))
    idle = held()
    env = make_batched_env(env_name, dt=DT, cameras=[], impl=impl)
    start = time.perf_counter()
    state = jax.block_until_ready(jax.jit(env.init)(jax.random.key(0), jax.numpy.arange(num_envs)))
    started = time.perf_counter()
    run = make_loop(env, num_envs)
    state = jax.block_until_ready(run(state, 1))
    first = time.perf_counter()
    count = 1
    while True:  # as many steps as make a block of half a second or more
        began = time.perf_counter()
        state = jax.block_until_ready(run(state, count))
        seconds = time.perf_counter() - began
        if seconds > 0.5 or count > 100_000:
            break
        count *= 2
    blocks = []
    for _ in range(repeats):
        began = time.perf_counter()
        state = jax.block_until_ready(run(state, count))
        blocks.append(count * num_envs / (time.perf_counter() - began))
    rate = statistics.median(blocks)
    return {
        "num_envs": num_envs,
        "steps_per_second": rate,
        "physics_steps_per_second": rate * env.functional.config.substeps,
        "start_seconds": started - start,
        "first_call_seconds": first - started,
        "megabytes": held(),
        "idle_megabytes": idle,
        "blocks": blocks,
    }


def make_loop(env: Any, num_envs: int) -> Any:
    """run(state, count): so many steps under random actions, as one program for every count."""
    import jax

    def steps(state: Any, count: jax.Array) -> Any:
        def body(i: jax.Array, state: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(1), i)
            return env.step(state, jax.random.uniform(key, (num_envs, env.action_size), minval=-1.0))

        return jax.lax.fori_loop(0, count, body, state)

    return jax.jit(steps, donate_argnums=0)


def held() -> float:
    """The most that this process has held, in MiB; on an accelerator that of its memory."""
    import jax

    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def saturation(points: list[dict[str, Any]]) -> int | None:
    """The smallest number of environments with SATURATED of the highest rate."""
    known = [point for point in points if "failed" not in point]
    if not known:
        return None
    highest = max(point["steps_per_second"] for point in known)
    return next(point["num_envs"] for point in known if point["steps_per_second"] >= SATURATED * highest)


if __name__ == "__main__":
    main()
