"""SIGKILL at random moments of saving: the last complete checkpoint is always there."""

import os
import random
import signal
import time
from multiprocessing.connection import Connection

import numpy as np
import pytest

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.checkpoint_series import CheckpointSeries

from .writer import save_forever

KILLS, SECONDS = 20, 60


def heard(told: Connection) -> list[tuple[int, bool]]:
    """Everything that a dead process has said."""
    messages = []
    while True:
        try:
            messages.append(told.recv())
        except (EOFError, OSError):
            return messages


def kill_while_saving(context, folder: str, delay: float) -> list[tuple[int, bool]]:
    """Starts the writer and kills it `delay` seconds after its second save has begun; returns what it said."""
    told, mouth = context.Pipe(duplex=False)
    writer = context.Process(target=save_forever, args=(folder, mouth), daemon=True)
    writer.start()
    mouth.close()
    messages = []
    while [is_done for _, is_done in messages] != [False, True, False]:
        assert told.poll(SECONDS), "the writer is stuck"
        messages.append(told.recv())
    time.sleep(delay)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(SECONDS)
    assert writer.exitcode == -signal.SIGKILL
    return messages + heard(told)


@pytest.mark.wide
def test_twenty_kills_lose_nothing(context, tmp_path):
    moments, newest, interrupted = random.Random(0), 0, 0
    for _ in range(KILLS):
        messages = kill_while_saving(context, str(tmp_path), moments.uniform(0.0, 0.1))
        confirmed = max(step for step, is_done in messages if is_done)
        assert messages[0][0] == newest + 1, "it went on from the newest one"
        interrupted += not messages[-1][1]
        with CheckpointSeries(tmp_path, keep=2) as series:
            latest = series.latest()
        assert latest is not None
        newest = int(latest.name.removeprefix("step_"))
        assert newest >= confirmed, "what was said to be saved is there"
        tree, manifest = checkpoint.load(latest)
        assert manifest.step == newest
        assert len(tree) == 8
        assert all(np.all(array == newest) for array in tree.values())
        assert checkpoint.resolve(tmp_path).name == "step_000000001", "so is the best one"
        checkpoint.load(tmp_path)
    assert interrupted >= KILLS * 3 // 4, "most kills came while something was being written"
