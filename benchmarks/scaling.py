"""How training would scale: work per device and bytes all-reduced per update, counted in the compiled program.

    python benchmarks/scaling.py

Devices are faked on a CPU to compile the program, so nothing is timed there. The prediction is a model, not a
measurement: an update takes FLOPs / (peak x utilization) and the ring all-reduce 2 (n - 1) / n x bytes / link speed,
without overlap. Speeds of chips and links are the published ones named in CHIPS.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

DEVICES = 8
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from stamp import stamp  # noqa: E402

from simscaleai_jax.core import sharding  # noqa: E402
from simscaleai_jax.models import create_model  # noqa: E402
from simscaleai_jax.models.specs import fake_batch  # noqa: E402
from simscaleai_jax.training.setup import split_model  # noqa: E402
from simscaleai_jax.training.step import init_state, make_loss_fn, make_update  # noqa: E402
from simscaleai_jax.training.trainer import TrainConfig  # noqa: E402

UTILIZATION = 0.3  # of the peak, assumed
CHIPS = {  # peak bfloat16 FLOP/s, bytes/s per chip into the all-reduce
    "TPU v5e": {"flops": 197e12, "link": 200e9},  # 1,600 Gbit/s of interconnect per chip
    "H100 SXM": {"flops": 989e12, "link": 50e9},  # 400 Gbit/s InfiniBand per GPU between machines
}
CASES = {
    "bc": ({}, 4096),
    "vla": ({"image_size": 64, "patch_size": 16, "state_dim": 20}, 512),
}
ALL_REDUCE = re.compile(r"= \(?([^=]*?)\)? all-reduce(?:-start)?\(")
SHAPE = re.compile(r"(f32|bf16|s32|u32|pred)\[([\d,]*)\]")
SIZES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1}


def main() -> None:
    """Reports every case and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="benchmarks/results/scaling.json")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    report = stamp() | {"assumed_utilization": UTILIZATION, "chips": CHIPS}
    report["cases"] = {name: examine(name, *CASES[name]) for name in options.cases}
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def examine(name: str, model_kwargs: dict[str, Any], per_device: int) -> dict[str, Any]:
    """Counts one model's update at `per_device` samples on every device, and predicts efficiencies."""
    model = create_model(name, **model_kwargs)
    config = TrainConfig()
    graph, _, params = split_model(model, config)
    update = jax.jit(make_update(make_loss_fn(graph, None), config), donate_argnums=0)
    mesh = sharding.make_mesh(jax.devices()[:DEVICES])
    state = sharding.put_replicated(init_state(params, config), mesh)
    batch = sharding.put_batch(fake_batch(model.input_spec(DEVICES * per_device)), mesh)
    program = update.lower(state, batch).compile()
    flops = float((program.cost_analysis() or {})["flops"])
    size = reduced_bytes(program.as_text() or "")
    result: dict[str, Any] = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "samples_per_device": per_device,
        "flops_per_device": flops,
        "bytes_all_reduced": size,
        "predicted_efficiency": {chip: predict(flops, size, **speeds) for chip, speeds in CHIPS.items()},
    }
    if jax.devices()[0].platform != "cpu" and len(jax.devices()) > 1:
        result["measured"] = measure(update, state, batch)
    return result


def reduced_bytes(text: str) -> int:
    """Bytes of all all-reduces in a compiled program without loops."""
    total = 0
    for shapes in ALL_REDUCE.findall(text):
        for kind, sizes in SHAPE.findall(shapes):
            total += SIZES[kind] * int(np.prod([int(size) for size in sizes.split(",") if size], dtype=np.int64))
    return total


def predict(flops: float, size: int, *, link: float, **chip: float) -> dict[str, float]:
    """Share of an update that is not spent waiting for the all-reduce, by number of chips."""
    compute = flops / (chip["flops"] * UTILIZATION)
    return {str(n): compute / (compute + 2 * (n - 1) / n * size / link) for n in (8, 256)}


def measure(update: Any, state: Any, batch: Any, count: int = 20) -> dict[str, float]:
    """Seconds per update on real devices."""
    state, _ = update(state, batch)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(count):
        state, _ = update(state, batch)
    jax.block_until_ready(state)
    return {"seconds_per_update": (time.perf_counter() - start) / count, "devices": len(jax.devices())}


if __name__ == "__main__":
    main()
