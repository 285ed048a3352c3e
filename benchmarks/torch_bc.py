"""The torch side of trainer_throughput.py; runs under the interpreter named by SIMSCALE_TORCH_PYTHON.

Trains interop's torch mirror of BehaviorCloning on the same random data, in memory, with AdamW, clipping and dropout.
Batches are drawn by indexing tensors, which is the fastest loader torch has for data in memory.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

MIRROR = Path(__file__).parents[1] / "simscaleai_jax" / "interop" / "torch_mirror.py"


def main() -> None:
    """Prints {"ms": [one number per repeat]} of one update; arguments: data file, batch size, updates, repeats."""
    data, batch_size, updates, repeats = sys.argv[1], *map(int, sys.argv[2:5])
    arrays = np.load(data)
    states, actions = torch.from_numpy(arrays["states"]), torch.from_numpy(arrays["actions"])
    sys.path.insert(0, str(MIRROR.parents[2]))
    from simscaleai_jax.interop.torch_mirror import BehaviorCloning

    model = BehaviorCloning().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-5)

    def run(count: int) -> None:
        order = torch.randperm(len(states))
        for i in range(count):
            start = i * batch_size % (len(states) - batch_size)
            rows = order[start : start + batch_size]
            loss = model({"observations": {"state": states[rows]}, "actions": actions[rows]})["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    run(10)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(updates)
        times.append((time.perf_counter() - start) / updates * 1e3)
    print(json.dumps({"ms": times, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
