"""SIGKILL at any moment: the final name is absent or whole, and a rerun completes it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.demonstrations.index import beside
from simscaleai_jax.datagen import generate_dataset, merge_files
from simscaleai_jax.training.data import TrajectoryDataset

from .demo_files import content, make_episode, make_writer
from .toy import ToyEnv, toy_expert

SECONDS = 120


def write(path: Path) -> None:
    writer = make_writer(path, 40)
    for number in writer.missing():
        writer.add(number, make_episode(number, 30))
    writer.finish()


def generate(path: Path) -> None:
    options: dict[str, Any] = {"policy": toy_expert, "policy_name": "toy", "env": ToyEnv(), "num_envs": 16, "seed": 5}
    generate_dataset("toy", 400, str(path), "policy", **options)


def merge(path: Path, shards: list[str]) -> None:
    merge_files(shards, path)


def when_ready(ready: Any, work: Callable[..., None], *arguments: Any) -> None:
    ready.set()
    work(*arguments)


def run_and_kill(
    context: Any, work: Callable[..., None], delay: float | None, *arguments: Any, number: int = signal.SIGKILL
) -> float:
    """Starts the work, kills it `delay` seconds after it began (None: lets it end); returns the seconds it ran."""
    ready = context.Event()
    process = context.Process(target=when_ready, args=(ready, work, *arguments), daemon=True)
    process.start()
    assert process.pid is not None
    assert ready.wait(SECONDS)
    start = time.monotonic()
    if delay is not None:
        time.sleep(delay)
        if process.is_alive():
            os.kill(process.pid, number)
    process.join(SECONDS)
    assert process.exitcode in ((0,) if delay is None else (0, -number)), "it failed by itself, or hangs"
    return time.monotonic() - start


def kill_repeatedly(context: Any, work: Callable[..., None], folder: Path, kills: int, num_episodes: int) -> None:
    duration = run_and_kill(context, work, None, folder / "whole.h5")
    seen_parts = set()
    for delay in np.random.default_rng(0).uniform(0.0, 1.05 * duration, kills):
        path = folder / f"killed-{delay:.4f}.h5"
        run_and_kill(context, work, delay, path)
        parts = path.with_name(path.name + ".parts")
        seen_parts.add(len(list(parts.glob("part-*.h5"))) if parts.exists() else -1)
        if path.exists():  # under its final name a file is whole, or it is not there
            assert len(DemonstrationFile(path).names) == num_episodes
        for leftover in parts.glob("*.h5*") if parts.exists() else []:
            if not is_whole(leftover, num_episodes):  # all but renamed
                with pytest.raises(ValueError, match=r"unfinished|holds no|not a readable|is cut|empty"):
                    DemonstrationFile(leftover)
        run_and_kill(context, work, None, path)
        assert content(path) == content(folder / "whole.h5")
        assert not parts.exists()
    assert len(seen_parts) > 1  # the kills struck at different stages


def is_whole(path, num_episodes):
    """Whether a file holds every episode of the run."""
    try:
        return len(DemonstrationFile(path).names) == num_episodes
    except ValueError:
        return False


@pytest.mark.wide
def test_a_killed_writer_is_never_read_as_complete(context, tmp_path):
    """C26."""
    kill_repeatedly(context, write, tmp_path, 20, 40)


@pytest.mark.wide
def test_killed_generation_is_never_read_as_complete(context, tmp_path):
    kill_repeatedly(context, generate, tmp_path, 4, 400)


@pytest.mark.wide
def test_killed_while_merging_a_file_is_whole_or_absent_and_the_shards_stay(context, tmp_path):
    count, kills, shards = 300, 20, []
    for shard in range(3):
        writer = make_writer(tmp_path / "data.h5", count, shard, 3)
        for number in writer.missing():
            writer.add(number, make_episode(number, 30))
        shards.append(str(writer.finish()))
    kept = [Path(shard).read_bytes() for shard in shards]
    duration = run_and_kill(context, merge, None, tmp_path / "whole.h5", shards)
    whole, seen = content(tmp_path / "whole.h5"), set()
    for i, delay in enumerate(np.random.default_rng(0).uniform(0.2 * duration, 1.05 * duration, kills)):
        path = tmp_path / f"killed-{i}.h5"
        run_and_kill(context, merge, delay, path, shards, number=signal.SIGTERM if i % 2 else signal.SIGKILL)
        seen.add(path.with_name(f".{path.name}.merging").exists())
        if not path.exists():
            run_and_kill(context, merge, None, path, shards)
        assert content(path) == whole
        assert len(TrajectoryDataset(path)) == 30 * count
        assert {left.name for left in tmp_path.glob(f"*{path.name}*")} == {path.name, beside(path).name}
    assert True in seen, "no kill struck while merging"
    assert [Path(shard).read_bytes() for shard in shards] == kept
