"""The torch side of model_throughput.py; run by an interpreter with torch, prints one line of JSON.

python model_throughput_torch.py '{"model": "bc", "kwargs": {}, "batch": 256, "threads": 2, ...}'
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch

from simscaleai_jax.interop.torch_mirror import MODELS


def main() -> None:
    """Times the default and the fused AdamW."""
    case = json.loads(sys.argv[1])
    torch.set_num_threads(case["threads"])
    times = {"torch": step_time(case, fused=False), "torch_fused_adamw": step_time(case, fused=True)}
    print(json.dumps(times))


def step_time(case: dict[str, Any], fused: bool) -> float:
    """Median milliseconds of a training step, after three to warm up."""
    model = MODELS[case["model"]](**case["kwargs"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    batch = make_batch(case)
    times = []
    for _ in range(3 + case["steps_per_dispatch"] * case["dispatches"]):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        model(batch)["loss"].backward()
        optimizer.step()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def make_batch(case: dict[str, Any]) -> dict[str, Any]:
    """Random inputs like those of the other side."""
    size, rows = case["kwargs"].get("image_size", 128), case["batch"]
    actions = 2.0 * torch.rand(rows, 4) - 1.0
    if case["model"] == "bc":
        return {"observations": {"state": 2.0 * torch.rand(rows, 20) - 1.0}, "actions": actions}
    image = torch.randint(0, 256, (rows, size, size, 3), dtype=torch.uint8)
    return {"observations": {"image": image}, "actions": actions, "language": torch.randint(0, 44, (rows, 64))}


if __name__ == "__main__":
    main()
