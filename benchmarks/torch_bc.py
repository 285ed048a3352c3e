"""The torch side of trainer_throughput.py; runs under the interpreter named by SIMSCALE_TORCH_PYTHON.

Trains interop's torch mirror of BehaviorCloning on the same random data, in memory, with AdamW, clipping and dropout.
Its DataLoader draws whole batches by indexing tensors, which is the fastest way it has for data in memory.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

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

    dataset = TensorDataset(states, actions)
    batches = BatchSampler(RandomSampler(dataset), batch_size, drop_last=True)
    loader = DataLoader(dataset, sampler=batches, batch_size=None)

    def run(count: int) -> None:
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))
        for state, action in itertools.islice(epochs, count):
            loss = model({"observations": {"state": state}, "actions": action})["loss"]
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
