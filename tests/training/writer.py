"""A process that saves one checkpoint after the other until somebody kills it."""

from multiprocessing.connection import Connection

import numpy as np

from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries


def save_forever(folder: str, told: Connection) -> None:
    """Goes on after the newest complete checkpoint; tells (step, False) before each save and (step, True) after it."""
    with CheckpointSeries(folder, keep=2) as series:
        latest = series.latest()
        step = 0 if latest is None else int(latest.name.removeprefix("step_"))
        while True:
            step += 1
            told.send((step, False))
            tree = {f"w{i}": np.full(20_000, step, np.float32) for i in range(8)}
            series.save(step, tree, Manifest("model", "bc", step=step), 1.0 / step)
            series.wait()
            told.send((step, True))
