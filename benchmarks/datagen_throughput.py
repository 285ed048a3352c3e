"""Episodes per second of data generation, end to end: rollout, transfer, HDF5, statistics, file under its final name.

    python benchmarks/datagen_throughput.py                     the claims: scripted experts, states only, dt 0.01
    python benchmarks/datagen_throughput.py --impl c jax                                              beside MJX
    python benchmarks/datagen_throughput.py --num-envs 32 128 512 --dt 0.01 0.002 --image-size 0 64   every combination

Each case generates two shards of the same size with one compiled rollout. The first one pays for tracing and compiling;
the figure is the second one's, from the moment the first file got its final name to the return of `generate_dataset`.
`cpu_seconds` is what the process used meanwhile (and for joining the first shard), `load_average` that of the machine.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
from stamp import stamp

from simscaleai_jax.datagen import generate_dataset

RESULTS = Path(__file__).parent / "results" / "datagen_throughput.json"
TARGETS = {"reach": 100.0, "pick_place": 100.0}  # episodes/s, states only, dt 0.01, 2 CPU cores


def main() -> None:
    """Runs the cases, prints a line for each and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-names", nargs="+", default=["reach", "pick_place"])
    parser.add_argument("--impl", nargs="+", default=["c"], help="physics engines")
    parser.add_argument("--num-envs", nargs="+", type=int, default=[256])
    parser.add_argument("--dt", nargs="+", type=float, default=[0.01])
    parser.add_argument("--image-size", nargs="+", type=int, default=[0])
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of episodes")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    cases = []
    for name, impl, dt, size, num_envs in itertools.product(
        options.env_names, options.impl, options.dt, options.image_size, options.num_envs
    ):
        cases.append(measure(name, impl, num_envs, dt, _episodes(name, num_envs, dt, size, options.scale), size))
        shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in cases[-1].items()}
        print(json.dumps(shown), flush=True)
    report = {
        "benchmark": "datagen_throughput",
        **_stamp(),
        "targets": TARGETS,
        "cases": _merged(options.output, cases),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(env_name: str, impl: str, num_envs: int, dt: float, n_episodes: int, image_size: int) -> dict[str, Any]:
    """Generates `n_episodes` per shard and times the second shard."""
    cameras = [{"name": "front_cam", "width": image_size, "height": image_size}] if image_size else []
    cpu_marks: list[float] = []

    def watch(done: int, wanted: int) -> None:
        if done == n_episodes:
            cpu_marks.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        summary = generate_dataset(
            env_name,
            2 * n_episodes,
            f"{folder}/demos.h5",
            "scripted",
            domain_randomization=False,
            seed=0,
            num_envs=num_envs,
            dt=dt,
            cameras=cameras,
            shards=2,
            env_options={"impl": impl},
            progress_fn=watch,
        )
        end = time.time()
        cpu_seconds = time.process_time() - cpu_marks[0]
        first = Path(summary["paths"][0]).stat().st_mtime
        megabytes = Path(summary["paths"][1]).stat().st_size / 2**20
    return {
        "env_name": env_name,
        "impl": impl,
        "num_envs": num_envs,
        "dt": dt,
        "image_size": image_size,
        "episodes": n_episodes,
        "seconds": end - first,
        "episodes_per_second": n_episodes / (end - first),
        "cpu_seconds": cpu_seconds,
        "load_average": os.getloadavg()[0],
        "success_rate": summary["success_rate"],
        "mean_episode_length": summary["mean_episode_length"],
        "megabytes": megabytes,
        "first_shard_seconds_with_compiling": first - start,
    }


def _episodes(env_name: str, num_envs: int, dt: float, image_size: int, scale: float) -> int:
    """Enough episodes for some ten seconds, and for every environment to play three."""
    size = {"reach": 2000, "pick_place": 500}[env_name]
    size = max(size * min(dt / 0.01, 1.0) / (10 if image_size else 1), 3 * num_envs)
    return max(int(size * scale), 16)


def _merged(path: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Earlier cases that were not run again stay, each with the commit it was measured at."""
    identity = ("env_name", "impl", "num_envs", "dt", "image_size")
    commit = stamp()["commit"]
    fresh = [case | {"commit": commit} for case in cases]
    known = {tuple(case[key] for key in identity) for case in fresh}
    earlier = json.loads(path.read_text())["cases"] if path.exists() else []
    return [case for case in earlier if tuple(case.get(key) for key in identity) not in known] + fresh


def _stamp() -> dict[str, Any]:
    """Where and with what this was measured."""
    head = stamp()
    return head | {"versions": head["versions"] | {"h5py": h5py.__version__}}


if __name__ == "__main__":
    main()
