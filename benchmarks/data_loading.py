"""Batches per second from data sets of many episodes, what a run waits for before its first step, and frame storages.

    python benchmarks/data_loading.py FOLDER --make      writes the files there (2 GB; minutes), measures nothing
    python benchmarks/data_loading.py FOLDER             measures and writes results/data_loading.json

States: pick and place shapes (28 numbers, 4 actions, 42 steps on average), batches of 256 in random order, each case in
a process of its own, whose peak memory is stated (mapped pages of the file included, and without them). Of the 100,000
episodes all but 64 are hard links in the HDF5 file, which is not read here; its index, which is, has all of them.
Images: two cameras of 64x64; frames per second through the loader, and of single frames at random from every storage.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from stamp import stamp
from synthetic_demos import make_episodes, write_demos, write_index

from simscaleai_jax.core.demonstrations.index import Index, beside

RESULTS = Path(__file__).parent / "results" / "data_loading.json"
BATCH = 256
CAMERAS = ("front", "wrist")
FILES = {"states_10000": (10_000, ()), "states_100000": (100_000, ()), "images_2000": (2_000, CAMERAS)}
LINKED = 50_000  # more episodes than that are hard links
STORED_FRAMES = 4_000  # copied into every storage that is compared
READS = 2_000
REPEATS = 5


def main() -> None:
    """Makes the files, or measures and writes JSON; as a child, measures one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child.split(":")[0]](options.folder, float(options.child.split(":")[1]))))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.make:
        record = options.folder / "made.json"
        for name in FILES:
            made = json.loads(record.read_text()) if record.exists() else {}
            if name not in made:
                record.write_text(json.dumps(made | {name: make(options.folder, name)}))
        return
    report: dict[str, Any] = {"benchmark": "data_loading", **stamp(), "batch": BATCH, "load_before": os.getloadavg()[0]}
    report["making"] = json.loads((options.folder / "made.json").read_text())
    for name, (_, cameras) in FILES.items():
        cases = ("stream",) if cameras else ("stream", "resident", "first_step")
        report[name] = {case: child(options.folder / f"{name}.h5", case) for case in cases}
    report["frame_storages"] = frame_storages(options.folder)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def make(folder: Path, name: str) -> dict[str, float]:
    """Writes one file, unless it is there, and its index; seconds and sizes."""
    path, (episodes, cameras) = folder / f"{name}.h5", FILES[name]
    made = make_episodes(cameras)
    start = time.perf_counter()
    if not path.exists():
        write_demos(path, made, episodes, is_linked=episodes > LINKED)
    written = time.perf_counter()
    write_index(path, made, episodes)
    return {
        "steps": len(Index(beside(path)).table),
        "write_seconds": written - start,
        "index_seconds": time.perf_counter() - written,
        "file_mb": path.stat().st_size / 2**20,
        "index_mb": beside(path).stat().st_size / 2**20,
    }


def child(path: Path, case: str) -> dict[str, float]:
    """Runs a case in a process of its own."""
    command = [sys.executable, __file__, str(path), "--child", f"{case}:{time.time()}"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def stream(path: Path, _: float, device_resident: bool = False) -> dict[str, float]:
    """Batches per second of the loader, and this process's memory."""
    import jax

    from simscaleai_jax.training.data import TrajectoryDataset, make_loader

    dataset = TrajectoryDataset(path, split="train")
    loader = make_loader(dataset, BATCH, device_resident=device_resident, num_workers=os.cpu_count() or 1)
    frames = BATCH * len(dataset.image_keys)
    count = 100 if frames else 2_000
    speeds = []
    jax.block_until_ready(next(loader))
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(count // REPEATS):
            batch = next(loader)
        jax.block_until_ready(batch)
        speeds.append(count / REPEATS / (time.perf_counter() - start))
    result = {"batches_per_second": statistics.median(speeds), "slowest": min(speeds), "fastest": max(speeds)}
    result |= {"frames_per_second": frames * result["batches_per_second"]} if frames else {}
    return result | memory()


def resident(path: Path, started: float) -> dict[str, float]:
    """The same of a data set that lives on the device."""
    return stream(path, started, True)


def first_step(path: Path, started: float) -> dict[str, float]:
    """Seconds from the start of the process to the end of the first update, streaming, with stored statistics."""
    import jax

    from simscaleai_jax.core import compile_cache
    from simscaleai_jax.models import create_model
    from simscaleai_jax.training import feeding
    from simscaleai_jax.training.data import TrajectoryDataset, make_loader
    from simscaleai_jax.training.setup import data_spec, dataset_statistics, model_arguments
    from simscaleai_jax.training.trainer import TrainConfig, Trainer

    imported = time.time()
    compile_cache.enable()
    dataset = TrajectoryDataset(path, split="train")
    numbers = dataset_statistics(dataset)
    loader = make_loader(dataset, BATCH, device_mb=0)
    opened = time.time()
    model = create_model("bc", **model_arguments("bc", data_spec(dataset), {}))
    config = TrainConfig(checkpoint_dir=str(path.parent / "run"), max_steps=1, warmup_steps=0, device="cpu")
    trainer = Trainer(model, loader, config, statistics=numbers, progress=False)
    batch = feeding.prepare(next(loader), trainer.model, trainer.mesh)
    trainer.accept(batch)
    state = trainer.programs.run_one(trainer.state, trainer.programs.zero_metrics(), batch)[0]
    jax.block_until_ready(state.params)
    seconds = {"imports": imported - started, "data": opened - imported, "model_and_compiling": time.time() - opened}
    return {
        "seconds": time.time() - started,
        **{f"{name}_seconds": value for name, value in seconds.items()},
    } | memory()


CHILDREN: dict[str, Callable[[Path, float], dict[str, float]]] = {
    "stream": stream,
    "resident": resident,
    "first_step": first_step,
}


def memory() -> dict[str, float]:
    """Peak resident memory of this process in MB, and what of the present one is no mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}
    return {"peak_mb": found["VmHWM"], "without_mapped_files_mb": found["RssAnon"]}


def frame_storages(folder: Path) -> dict[str, dict[str, float]]:
    """Microseconds per random frame and bytes per frame, one thread; pages are in memory for all of them."""
    from simscaleai_jax.training.data import TrajectoryDataset

    dataset = TrajectoryDataset(folder / "images_2000.h5", obs_keys=["image_front"], raw_images=True)
    rows = np.random.default_rng(1).permutation(STORED_FRAMES)
    pixels = dataset.batch(np.arange(STORED_FRAMES))["observations"]["image_front"]
    work = folder / "storages"
    work.mkdir(exist_ok=True)
    readers = {
        "hdf5_gzip1_frame_by_index": lambda chosen: dataset.gather(chosen)["frames"]["image_front"],
        "hdf5_gzip1_frame_by_h5py": _h5py_reader(work, pixels),
        "raw_memory_map": _memmap_reader(work, pixels),
        "array_record_gzip1": _array_record_reader(work, pixels),
    }
    sizes = {
        "hdf5_gzip1_frame_by_index": (work / "h5py").stat().st_size,
        "hdf5_gzip1_frame_by_h5py": (work / "h5py").stat().st_size,
        "raw_memory_map": (work / "raw").stat().st_size,
        "array_record_gzip1": (work / "records").stat().st_size,
    }
    result = {}
    for name, read in readers.items():
        np.testing.assert_array_equal(read(rows[:8]), pixels[rows[:8]])
        start = time.perf_counter()
        for first in range(0, READS, BATCH):
            read(rows[first : first + BATCH])
        seconds = time.perf_counter() - start
        count = min(len(rows), -(-READS // BATCH) * BATCH)
        result[name] = {"us_per_frame": seconds / count * 1e6, "bytes_per_frame": sizes[name] / STORED_FRAMES}
    shutil.rmtree(work)
    return result


def _h5py_reader(folder: Path, pixels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    options: dict[str, Any] = {"chunks": (1, *pixels.shape[1:]), "compression": "gzip", "compression_opts": 1}
    with h5py.File(folder / "h5py", "w") as file:
        file.create_dataset("x", data=pixels, **options)
    dataset: Any = h5py.File(folder / "h5py", "r")["x"]
    return lambda rows: np.stack([dataset[row] for row in rows])


def _memmap_reader(folder: Path, pixels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    pixels.tofile(folder / "raw")
    mapped = np.memmap(folder / "raw", np.uint8, "r", 0, pixels.shape)
    return lambda rows: mapped[rows]


def _array_record_reader(folder: Path, pixels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    import zlib

    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    writer = ArrayRecordWriter(str(folder / "records"), "group_size:1,uncompressed")
    for frame in pixels:
        writer.write(zlib.compress(frame.tobytes(), 1))
    writer.close()
    reader = ArrayRecordReader(str(folder / "records"), "readahead_buffer_size:0")

    def read(rows: np.ndarray) -> np.ndarray:
        records = reader.read(rows.tolist())
        return np.stack([np.frombuffer(zlib.decompress(r), np.uint8).reshape(pixels.shape[1:]) for r in records])

    return read


if __name__ == "__main__":
    main()
