"""How training would scale: work per device and bytes all-reduced per update, counted in the compiled program.

Updates of the trainer (bc, vla) and minibatch steps of PPO.

    python benchmarks/scaling.py

Devices are faked on a CPU to compile the program, so nothing is timed there; where there are several accelerators, the
same work per device is also timed on one and on all of them. The prediction is a model, not a
measurement: an update takes FLOPs / (peak x utilization) and the ring all-reduce 2 (n - 1) / n x bytes / link speed,
without overlap. Speeds of chips and links are the published ones named in CHIPS.

Bytes are those of the CPU's program, which sums in float32. A TPU's sums the gradients of models of demonstrations in
bfloat16, half the bytes, and those of PPO in float32, too: benchmarks/pods.py compiles them.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from stamp import stamp

from simscaleai_jax.core import sharding
from simscaleai_jax.models import create_model
from simscaleai_jax.models.specs import fake_batch
from simscaleai_jax.rl.ppo.config import PPOConfig
from simscaleai_jax.rl.ppo.state import init_training_state, make_learner
from simscaleai_jax.rl.ppo.update import Batch, minibatch_step
from simscaleai_jax.training.setup import split_model
from simscaleai_jax.training.step import init_state, make_loss_fn, make_update
from simscaleai_jax.training.trainer import TrainConfig

DEVICES = 8
UTILIZATION = 0.3  # of the peak, assumed
CHIPS = {  # peak bfloat16 FLOP/s, bytes/s per chip into the all-reduce
    "TPU v5e": {"flops": 197e12, "link": 200e9},  # 1,600 Gbit/s of interconnect per chip
    "H100 SXM": {"flops": 989e12, "link": 50e9},  # 400 Gbit/s InfiniBand per GPU between machines
}
BYTES = (
    "float32, as on a CPU; a TPU sums gradients of bc and vla in bfloat16, half of them (benchmarks/results/pods.json)"
)
CASES = {
    "bc": ({}, 4096),
    "vla": ({"image_size": 64, "patch_size": 16, "state_dim": 20}, 512),
    "ppo": ({"obs_dim": 20, "action_dim": 4, "hidden_dim": 256, "n_layers": 2}, 16_384),  # a minibatch of reach
}
COMMENT = re.compile(r"/\*.*?\*/")
ALL_REDUCE = re.compile(r"= \(?([^=]*?)\)? all-reduce(?:-start)?\(")
SHAPE = re.compile(r"(f32|bf16|s32|u32|pred)\[([\d,]*)\]")
SIZES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1}


def main() -> None:
    """Reports every case and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="benchmarks/results/scaling.json")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    report = stamp() | {"assumed_utilization": UTILIZATION, "chips": CHIPS, "bytes": BYTES}
    report["cases"] = {name: examine(name, *CASES[name]) for name in options.cases}
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def examine(name: str, settings: dict[str, Any], per_device: int) -> dict[str, Any]:
    """Counts one model's update at `per_device` samples on every device, and predicts efficiencies."""
    update, state, batch = prepare(name, settings, per_device, jax.devices("cpu")[:DEVICES])
    program = update.lower(state, batch).compile()
    flops = float((program.cost_analysis() or {})["flops"])
    size = reduced_bytes(program.as_text() or "")
    result: dict[str, Any] = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "samples_per_device": per_device,
        "flops_per_device": flops,
        "bytes_all_reduced": size,
        "predicted_efficiency": {chip: predict(flops, size, speeds) for chip, speeds in CHIPS.items()},
    }
    devices = jax.devices()
    if devices[0].platform != "cpu" and len(devices) > 1:
        counts = (1, len(devices))
        seconds = [measure(*prepare(name, settings, per_device, devices[:count])) for count in counts]
        result["measured"] = {"devices": counts, "seconds_per_update": seconds, "efficiency": seconds[0] / seconds[1]}
    return result


def prepare(name: str, settings: dict[str, Any], per_device: int, devices: list[Any]) -> tuple[Any, Any, Any]:
    """(jitted update, its state, a batch) on these devices."""
    build = ppo_step if name == "ppo" else trainer_update
    return build(name, settings, len(devices) * per_device, sharding.make_mesh(devices))


def trainer_update(name: str, settings: dict[str, Any], batch_size: int, mesh: Any) -> tuple[Any, Any, Any]:
    """(jitted update of the trainer, its state, a batch) of a model."""
    model, config = create_model(name, **settings), TrainConfig()
    graph, _, params = split_model(model, config)
    update = jax.jit(make_update(make_loss_fn(graph, None), config), donate_argnums=0)
    state = sharding.put_replicated(init_state(params, config), mesh)
    return update, state, sharding.put_batch(fake_batch(model.input_spec(batch_size)), mesh)


def ppo_step(name: str, settings: dict[str, Any], batch_size: int, mesh: Any) -> tuple[Any, Any, Any]:
    """(jitted minibatch step of PPO, its state, a minibatch); rollouts, which need no exchange, are not counted."""
    learner, params = make_learner(PPOConfig(), settings)
    state = sharding.put_replicated(init_training_state(learner, params), mesh)
    rows = np.zeros(batch_size, np.float32)
    states, actions = (np.zeros((batch_size, settings[key]), np.float32) for key in ("obs_dim", "action_dim"))
    batch = sharding.put_batch(Batch({"state": states}, actions, rows, rows, rows, rows), mesh)

    def step(state: Any, batch: Any) -> Any:
        return minibatch_step(learner, state, batch, sharding.AXIS)

    specs = (sharding.REPLICATED, sharding.BATCH)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=sharding.REPLICATED, check_vma=False)
    return jax.jit(mapped, donate_argnums=0), state, batch


def reduced_bytes(text: str) -> int:
    """Bytes of all all-reduces in a compiled program without loops."""
    total = 0
    for shapes in ALL_REDUCE.findall(COMMENT.sub("", text)):
        for kind, sizes in SHAPE.findall(shapes):
            total += SIZES[kind] * int(np.prod([int(size) for size in sizes.split(",") if size], dtype=np.int64))
    if not total:
        raise ValueError("The compiled update holds no all-reduce: it is not data-parallel, or its text has changed.")
    return total


def predict(flops: float, size: int, chip: dict[str, float]) -> dict[str, float]:
    """Share of an update that is not spent waiting for the all-reduce, by number of chips."""
    compute = flops / (chip["flops"] * UTILIZATION)
    return {str(n): compute / (compute + 2 * (n - 1) / n * size / chip["link"]) for n in (8, 256)}


def measure(update: Any, state: Any, batch: Any, count: int = 20) -> float:
    """Seconds per update."""
    state, _ = update(state, batch)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(count):
        state, _ = update(state, batch)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
