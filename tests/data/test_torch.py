"""torch's DataLoader over our data sets, in the interpreter that SIMSCALE_TORCH_PYTHON names (torch, numpy, h5py)."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]

CODE = """
import sys
import numpy as np
import torch
from torch.utils.data import DataLoader, random_split
from simscaleai_jax.training.data.dataset import DummyTrajectoryDataset, TrajectoryDataset

path, workers = sys.argv[1], int(sys.argv[2])
dataset = TrajectoryDataset(path, seq_len=2, include_language=True)
seen = 0
for batch in DataLoader(dataset, batch_size=6, num_workers=workers):
    rows = range(seen, min(seen + 6, len(dataset)))
    assert isinstance(batch["actions"], torch.Tensor) and batch["actions"].dtype == torch.float32
    for key, value in batch["observations"].items():
        wanted = np.stack([dataset[i]["observations"][key] for i in rows])
        assert torch.equal(value, torch.from_numpy(wanted)), key
    assert batch["observations"]["image"].shape[1:] == (2, 3, 12, 12)
    assert batch["is_pad"].dtype == torch.bool
    assert list(batch["language"]) == [dataset[i]["language"] for i in rows]
    seen += len(batch["actions"])
assert seen == len(dataset) == 20
train, _ = random_split(DummyTrajectoryDataset(50, obs_dim=10, action_dim=3), [0.8, 0.2])
batch = next(iter(DataLoader(train, batch_size=8, shuffle=True, num_workers=workers)))
assert batch["observations"]["state"].shape == (8, 10) and batch["actions"].shape == (8, 3)
assert "jax" not in sys.modules
print("fine")
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_dataloader_batches_equal_the_items(image_demos, workers):
    python = os.environ["SIMSCALE_TORCH_PYTHON"]
    command = [python, "-W", "error", "-c", CODE, str(image_demos[0]), str(workers)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment)
    assert done.stdout.strip() == "fine", done.stderr
