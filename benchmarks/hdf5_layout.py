"""Why demonstration files store states contiguous and images one frame per chunk under gzip 1.

    python benchmarks/hdf5_layout.py DEMOS.h5    a file of simscale datagen --env.cameras front_cam --env.image-size 64

For every way of storing the same episodes: milliseconds to write an episode, bytes per episode and their share of the
raw arrays, and microseconds per random read of one step (states: all keys of the step; images: one frame).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from stamp import stamp

from simscaleai_jax.core.demonstrations import DemonstrationFile

RESULTS = Path(__file__).parent / "results" / "hdf5_layout.json"
COPIES = 8  # the data set is written several times over, so that times are long enough to measure
READS = 2000
STATE_STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "lzf": {"compression": "lzf"},
    "gzip 1 + shuffle": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "gzip 4 + shuffle": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
}
IMAGE_STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "lzf, 1 frame": {"compression": "lzf", "frames": 1},
    "gzip 1, 1 frame": {"compression": "gzip", "compression_opts": 1, "frames": 1},
    "gzip 4, 1 frame": {"compression": "gzip", "compression_opts": 4, "frames": 1},
    "gzip 1, 8 frames": {"compression": "gzip", "compression_opts": 1, "frames": 8},
    "gzip 1 + shuffle, 1 frame": {"compression": "gzip", "compression_opts": 1, "shuffle": True, "frames": 1},
}


def main() -> None:
    """Measures every storage, prints a line for each and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    demos = DemonstrationFile(options.demos)
    states, images = [], []
    for index in range(len(demos.names)):
        arrays = {key: demos.read(index, key) for key in demos.specs}
        states.append({key.replace("/", "_"): value for key, value in arrays.items() if value.ndim < 4})
        images.append({key.replace("/", "_"): value for key, value in arrays.items() if value.ndim == 4})
    cases = [{"arrays": "states", "storage": n, **measure(states, kw)} for n, kw in STATE_STORAGE.items()]
    if images[0]:
        cases += [{"arrays": "images", "storage": n, **measure(images, kw)} for n, kw in IMAGE_STORAGE.items()]
    for case in cases:
        print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in case.items()}))
    head = stamp()
    report = {
        "benchmark": "hdf5_layout",
        **head,
        "versions": head["versions"] | {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version},
        "episodes": len(states),
        "steps": int(demos.lengths.sum()),
        "cases": cases,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(episodes: list[dict[str, np.ndarray]], storage: dict[str, Any]) -> dict[str, float]:
    """Writes and reads the episodes with one storage."""
    count = COPIES * len(episodes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        start = time.perf_counter()
        with h5py.File(path, "w", libver="latest") as file:
            for number in range(count):
                _write(file.create_group(f"demo_{number}"), episodes[number % len(episodes)], storage)
        written = time.perf_counter() - start
        size = path.stat().st_size
        with h5py.File(path, "r") as file:
            read = _random_reads(file, count)
    raw = sum(value.nbytes for episode in episodes for value in episode.values()) / len(episodes)
    return {
        "write_ms_per_episode": written / count * 1e3,
        "bytes_per_episode": size / count,
        "share_of_raw": size / count / raw,
        "read_us_per_step": read * 1e6,
    }


def _write(group: Any, arrays: dict[str, np.ndarray], storage: dict[str, Any]) -> None:
    options = {name: value for name, value in storage.items() if name != "frames"}
    for key, value in arrays.items():
        chunks = (min(storage["frames"], len(value)), *value.shape[1:]) if "frames" in storage else None
        group.create_dataset(key, data=value, chunks=chunks, **options)


def _random_reads(file: Any, count: int) -> float:
    """Seconds per read of one random step, data sets already open."""
    rng = np.random.default_rng(0)
    opened = [list(file[f"demo_{number}"].values()) for number in range(count)]
    start = time.perf_counter()
    for number in rng.integers(0, count, READS):
        datasets = opened[number]
        step = int(rng.integers(len(datasets[0])))
        for dataset in datasets:
            dataset[step]
    return (time.perf_counter() - start) / READS


if __name__ == "__main__":
    main()
