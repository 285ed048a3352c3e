"""Data sets larger than the memory a process may use, and the speed of random access."""

import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from simscaleai_jax.core.demonstrations.layout import FORMAT_VERSION
from simscaleai_jax.training.data import TrajectoryDataset

ROWS, WIDTH, EPISODES = 25_000, 16, 84  # 1.6 MB per episode, 134 MB in all
LIMIT_MB = 60  # of private memory that the process may take beyond what its imports took

CODE = """
import resource, sys
import numpy as np
from simscaleai_jax.training.data.dataset import TrajectoryDataset

path, limit = sys.argv[1], int(sys.argv[2]) * 2**20
held = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (held + limit, held + limit))
try:
    np.ones(2 * limit, np.uint8)
except MemoryError:
    pass
else:
    sys.exit("the limit does not bind")
dataset = TrajectoryDataset(path)
assert dataset.nbytes > 2 * limit
total = 0.0
for index in np.random.default_rng(0).integers(0, len(dataset), 150):
    total += float(dataset[index]["observations"]["state"][0])
stats = dataset.stats()
print(stats["observations"]["state"]["mean"][0], stats["observations"]["state"]["q50"][0])
"""


def write_large(path, chunked: bool) -> None:
    """A file whose first column counts all rows from 0 to 1."""
    storage = {"chunks": (1000, WIDTH), "compression": "lzf"} if chunked else {}
    total = ROWS * EPISODES
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["format_version"] = FORMAT_VERSION
        data.attrs["num_episodes"] = EPISODES
        data.attrs["complete"] = True
        for episode in range(EPISODES):
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"] = ROWS
            state = np.zeros((ROWS, WIDTH), np.float32)
            state[:, 0] = (episode * ROWS + np.arange(ROWS)) / (total - 1)
            demo.create_dataset("obs/state", data=state, **storage)
            demo.create_dataset("actions", data=np.zeros((ROWS, 1), np.float32))


@pytest.mark.wide
@pytest.mark.parametrize("chunked", [False, True])
def test_larger_than_memory_streams(tmp_path, chunked):
    write_large(tmp_path / "large.h5", chunked)
    command = [sys.executable, "-c", CODE, str(tmp_path / "large.h5"), str(LIMIT_MB)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose([float(word) for word in done.stdout.split()], 0.5, atol=1e-6)


@pytest.mark.slow
def test_random_access_is_fast(tmp_path):
    """At least 5,000 samples of states for a second of the processor, the first touch of every episode included."""
    from demo_files import write_file

    write_file(tmp_path / "demos.h5", (80,) * 250)
    dataset = TrajectoryDataset(tmp_path / "demos.h5")
    order = np.random.default_rng(0).permutation(len(dataset))
    start = time.process_time()  # other processes do not count
    for index in order:
        dataset[index]
    assert len(order) / (time.process_time() - start) >= 5000
