"""A stand-in for training that costs nothing and whose every bit depends on all steps before."""

import numpy as np

from simscaleai_jax.core import checkpoint, preemption
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.core.runs.folder import RunFolder, RunRules

RULES = RunRules(may_change=("lr",), origins=("resume_from",))


def start() -> dict[str, np.ndarray]:
    return {f"w{i}": np.full(5_000, i + 1, np.uint64) for i in range(4)}


def step_once(state: dict, step: int) -> dict:
    return {name: x * np.uint64(6364136223846793005) + np.uint64(step) for name, x in state.items()}


def run(folder: str, steps: int, *, resume_from: str | None = None, lr: float = 1.0, every: int = 1, told=None) -> int:
    """Trains to `steps`, from where the folder stands, else from `resume_from`; returns where it began."""
    series = CheckpointSeries(folder, keep=2)
    settings = {"lr": lr, "width": 5_000, "resume_from": resume_from}
    with RunFolder(series, "model", settings, RULES) as mine, preemption.PreemptionWatch() as watch:
        newest = mine.open() or resume_from
        state, step = start(), 0
        if newest is not None:
            state, manifest = checkpoint.load(newest, state)
            step = manifest.step
        began = step
        mine.record(step)
        if told is not None:
            told(began)
        while step < steps:
            step += 1
            state = step_once(state, step)
            is_stopped = watch.is_requested()
            if step % every == 0 or step == steps or is_stopped:
                series.save(step, state, Manifest("model", "bc", step=step), 1.0 / step)
            if is_stopped and step < steps:
                series.wait()
                raise watch.stop(f"step {step}")
    return began


def run_and_tell(folder: str, steps: int, resume_from: str | None, gate, told) -> None:
    """For a process of its own: waits at the gate, then tells how it went."""
    from simscaleai_jax.core.runs.lock import FolderInUseError

    if gate is not None:
        gate.wait()
    try:
        run(folder, steps, resume_from=resume_from, told=told.send)
    except FolderInUseError as error:
        told.send(str(error))
