"""SIGKILL at random moments of saving: the last complete checkpoint is always there."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.checkpoint_series import CheckpointSeries

WRITER = """
import sys
import numpy as np
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries

with CheckpointSeries(sys.argv[1], keep=2) as series:
    latest = series.latest()
    step = 0 if latest is None else int(latest.name[5:])
    while True:
        step += 1
        tree = {f"w{i}": np.full(20_000, step, np.float32) for i in range(20)}
        series.save(step, tree, Manifest("model", "bc", step=step))
        series.wait()
        print(step, flush=True)
"""


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path):
    delays, newest = random.Random(0), 0
    for _ in range(20):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
        assert writer.stdout is not None
        confirmed = int(writer.stdout.readline())
        assert confirmed > newest, "it went on from the newest one"
        time.sleep(delays.uniform(0.0, 0.3))
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0]
        confirmed = max([confirmed, *(int(line) for line in rest.splitlines())])
        with CheckpointSeries(tmp_path, keep=2) as series:
            latest = series.latest()
        assert latest is not None
        newest = int(latest.name.removeprefix("step_"))
        assert newest >= confirmed, "what was said to be saved is there"
        tree, manifest = checkpoint.load(latest)
        assert manifest.step == newest
        assert all(np.all(array == newest) for array in tree.values())
