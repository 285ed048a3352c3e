"""Updates per second of BehaviorCloning in Trainer, against the torch mirror; and what checkpoints cost.

    SIMSCALE_TORCH_PYTHON=.venv-torch/bin/python python benchmarks/trainer_throughput.py

Both sides: 10,000 random samples in memory, state only, default model with dropout, float32, AdamW, clipping.
Repeats of the two sides alternate; the medians are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from stamp import stamp

from simscaleai_jax.core import compile_cache
from simscaleai_jax.models import create_model
from simscaleai_jax.training.data import DummyTrajectoryDataset, make_loader
from simscaleai_jax.training.trainer import TrainConfig, Trainer

NUM_SAMPLES = 10_000
UPDATES = {256: 200, 32: 600}


def main() -> None:
    """Measures and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="benchmarks/results/trainer_throughput.json")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    compile_cache.enable()
    cases = {str(size): compare(size, count, options.repeats) for size, count in UPDATES.items()}
    report = stamp() | {
        "load_before": os.getloadavg()[0],
        "batch": cases,
        "checkpoints": checkpoint_cost(4 * options.repeats),
    }
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def compare(batch_size: int, updates: int, repeats: int) -> dict[str, Any]:
    """Milliseconds per update of both sides."""
    dataset = DummyTrajectoryDataset(NUM_SAMPLES)
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, states=dataset.states, actions=dataset.actions)
        trainer = make_trainer(folder, batch_size, 10**9)
        advance(trainer, 20)
        for _ in range(repeats):
            start = time.perf_counter()
            advance(trainer, updates)
            ours.append((time.perf_counter() - start) / updates * 1e3)
            theirs += torch_times(data, batch_size, updates)
    result: dict[str, Any] = {"jax_ms": ours, "torch_ms": theirs}
    if theirs:
        result["speedup"] = statistics.median(theirs) / statistics.median(ours)
    return result


def make_trainer(folder: str, batch_size: int, max_steps: int, save_every: int = 10**9) -> Trainer:
    """A trainer of the default model with the default settings."""
    loader = make_loader(DummyTrajectoryDataset(NUM_SAMPLES), batch_size)
    config = TrainConfig(checkpoint_dir=folder, max_steps=max_steps, save_every=save_every, device="cpu")
    return Trainer(create_model("bc"), loader, config, progress=False)


def advance(trainer: Trainer, count: int) -> None:
    """Makes updates as `Trainer.train` does between two rows of the log, and waits for them."""
    programs, loader, data = trainer.programs, trainer.train_loader, trainer.resident_data
    if not programs.is_compiled:
        programs.compile_many(trainer.state, programs.zero_metrics(), loader.batch_at, data)
    trainer.state, totals = programs.run_many(trainer.state, programs.zero_metrics(), loader.step, count, data)
    loader.step += count
    totals["loss"].block_until_ready()


def torch_times(data: Path, batch_size: int, updates: int) -> list[float]:
    """One repeat of the torch side; nothing without an interpreter that has torch."""
    python = os.environ.get("SIMSCALE_TORCH_PYTHON")
    if not python:
        return []
    command = [python, str(Path(__file__).with_name("torch_bc.py")), str(data), str(batch_size), str(updates), "1"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["ms"]


def checkpoint_cost(pairs: int, every: int = 1000, batch_size: int = 256) -> dict[str, Any]:
    """Seconds of `every` updates, in turn with a checkpoint that is written meanwhile and without; medians compared."""
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, batch_size, 10**9)
        advance(trainer, every)
        trainer.save_checkpoint(0)
        for pair in range(pairs):
            for name, values in seconds.items():
                trainer.series.wait()
                start = time.perf_counter()
                if name == "with":
                    trainer.save_checkpoint((pair + 1) * every)
                advance(trainer, every)
                values.append(time.perf_counter() - start)
        trainer.series.wait()
    overhead = statistics.median(seconds["with"]) / statistics.median(seconds["without"]) - 1
    return {"seconds": seconds, "updates": every, "overhead": overhead}


if __name__ == "__main__":
    main()
