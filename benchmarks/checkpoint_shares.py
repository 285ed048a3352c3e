"""What a checkpoint of 1e9 bytes costs each process of a run: memory, time that training waits, time until written.

    python benchmarks/checkpoint_shares.py

Two processes of four CPU devices each; a device holds an eighth of every array, so a process's share is half of the
checkpoint. The memory stated is what it took at most beyond what it held before (VmHWM of /proc); "gathered" is what
copying whole arrays to each process would take. Times are of one machine, whose cores and disk the processes share.
"""

import argparse
import ctypes
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from stamp import stamp

from simscaleai_jax.core import checkpoint, distributed, flat_tree, sharding
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.tools.commands.launch import LaunchOptions, launch

PROCESSES, DEVICES = 2, 4
ARRAYS, SHAPE = 10, (5_000, 5_000)  # float32: 1e9 bytes in all
TOTAL_BYTES = ARRAYS * SHAPE[0] * SHAPE[1] * 4
ALLOWED = 1.2  # of a share
RESULTS = Path("benchmarks/results/checkpoint_shares.json")


def main() -> None:
    """Starts the processes, joins what they say, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.saves)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", folder, "--saves", str(options.saves)]
        if status := launch(LaunchOptions(PROCESSES, DEVICES), command):
            sys.exit(status)
        found = [json.loads((Path(folder) / f"process-{index}.json").read_text()) for index in range(PROCESSES)]
    share = TOTAL_BYTES // PROCESSES
    report = stamp() | {"checkpoint_bytes": TOTAL_BYTES, "processes": PROCESSES, "devices_per_process": DEVICES}
    report |= {"share_bytes": share, "per_process": found}
    report["most_held_in_shares"] = {
        name: max(process[name]["bytes"] for process in found) / share for name in ("save", "load", "load_other_split")
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if max(report["most_held_in_shares"].values()) > ALLOWED:
        sys.exit(f"A process held more than {ALLOWED} of its share.")


def work(folder: Path, saves: int) -> None:
    """One process: saves, loads, and writes down what that took."""
    distributed.initialize()
    mesh = sharding.make_mesh()
    rows = NamedSharding(mesh, P(sharding.AXIS))
    distributed.barrier("started", 600)  # what this imports is no part of a save
    tree = {f"params/w{i}": make_array(i, rows) for i in range(ARRAYS)}
    blocked: list[float] = []
    written: list[float] = []
    with CheckpointSeries(folder / "run", keep=1) as series:
        series.hold()
        took = [measured(lambda step=step: save(series, step, tree, blocked, written)) for step in range(1, saves + 1)]
    path = folder / "run" / f"step_{saves:09d}"
    distributed.barrier("saved", 600)
    found = {
        "bytes_written": (path / "tree" / f"part-{jax.process_index():05d}.bin").stat().st_size,
        "save": {"bytes": max(took), "seconds_blocked": blocked, "seconds_until_written": written},
        "gathered": {"bytes": measured(lambda: flat_tree.host_arrays(tree))},
    }
    expected = {name: checksums(array) for name, array in tree.items()}
    found["load"] = load(path, rows, expected)
    del tree
    found["load_other_split"] = load(path, NamedSharding(mesh, P(None, sharding.AXIS)), None)
    (folder / f"process-{jax.process_index()}.json").write_text(json.dumps(found))
    distributed.barrier("measured", 600)


def save(series: CheckpointSeries, step: int, tree: Any, blocked: list[float], written: list[float]) -> None:
    """Saves once, and waits as a training loop would not."""
    distributed.barrier("save", 600)
    started = time.perf_counter()
    series.save(step, tree, Manifest("model", "bc", step=step))
    blocked.append(time.perf_counter() - started)
    series.wait()
    written.append(time.perf_counter() - started)


def load(path: Path, placement: NamedSharding, expected: dict[str, list[float]] | None) -> dict[str, float]:
    """Memory and seconds of a load; the numbers are compared where they lie as they did."""
    distributed.barrier("load", 600)
    target = {f"params/w{i}": jax.ShapeDtypeStruct(SHAPE, np.float32, sharding=placement) for i in range(ARRAYS)}
    loaded: list[Any] = []
    started = time.perf_counter()
    took = measured(lambda: loaded.append(jax.block_until_ready(checkpoint.load(path, target)[0])))
    seconds = time.perf_counter() - started
    if expected is not None and {name: checksums(array) for name, array in loaded[0].items()} != expected:
        raise ValueError(f"{path} does not hold what was saved.")
    return {"bytes": took, "seconds": seconds}


def make_array(number: int, placement: NamedSharding) -> jax.Array:
    """An array of which every process makes its own rows."""

    def rows(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(SHAPE[0])
        return np.random.default_rng((number, start)).random((stop - start, SHAPE[1]), np.float32)

    return jax.make_array_from_callback(SHAPE, placement, rows)


def checksums(array: jax.Array) -> list[float]:
    """One number per share of this process."""
    return [float(np.asarray(shard.data).view(np.uint32).sum(dtype=np.uint64)) for shard in array.addressable_shards]


def measured(run: Callable[[], Any]) -> int:
    """Bytes that this process takes at most while it does something, beyond what it held before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
    before = memory("VmRSS")
    run()
    return memory("VmHWM") - before


def memory(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
