"""SIGKILL at any moment: the final name is absent or whole, and a rerun completes it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.demonstrations.index import beside
from simscaleai_jax.training.data import TrajectoryDataset

from .demo_files import HERE, content, make_episode, make_writer

WRITE = """
import sys; sys.path.insert(0, {here!r})
from pathlib import Path
import demo_files
print("ready", flush=True)
writer = demo_files.make_writer(Path({path!r}), 40)
for number in writer.missing():
    writer.add(number, demo_files.make_episode(number, 30))
writer.finish()
"""

GENERATE = """
import sys; sys.path.insert(0, {here!r})
from toy import ToyEnv, toy_expert
from simscaleai_jax.datagen import generate_dataset
print("ready", flush=True)
options = dict(policy=toy_expert, policy_name="toy", env=ToyEnv(), num_envs=16, seed=5)
generate_dataset("toy", 400, {path!r}, "policy", **options)
"""


MERGE = """
from simscaleai_jax.datagen import merge_files
print("ready", flush=True)
merge_files({shards!r}, {path!r})
"""


def run_and_kill(code: str, path: Path, delay: float | None, number: int = signal.SIGKILL, **values) -> float:
    """Starts the run, kills it `delay` seconds after it is ready (None: lets it end); returns the seconds it ran."""
    code = code.format(here=HERE, path=str(path), **values)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    if delay is None:
        assert process.wait() == 0
    else:
        time.sleep(delay)
        process.send_signal(number)
        process.wait()
    process.stdout.close()
    return time.monotonic() - start


def kill_repeatedly(code: str, folder: Path, kills: int, num_episodes: int) -> None:
    duration = run_and_kill(code, folder / "whole.h5", None)
    seen_parts = set()
    for delay in np.random.default_rng(0).uniform(0.0, 1.05 * duration, kills):
        path = folder / f"killed-{delay:.4f}.h5"
        run_and_kill(code, path, delay)
        parts = path.with_name(path.name + ".parts")
        seen_parts.add(len(list(parts.glob("part-*.h5"))) if parts.exists() else -1)
        if path.exists():  # under its final name a file is whole, or it is not there
            assert len(DemonstrationFile(path).names) == num_episodes
        for leftover in parts.glob("*.h5*") if parts.exists() else []:
            if not is_whole(leftover, num_episodes):  # all but renamed
                with pytest.raises(ValueError, match=r"unfinished|holds no|not a readable|is cut|empty"):
                    DemonstrationFile(leftover)
        run_and_kill(code, path, None)
        assert content(path) == content(folder / "whole.h5")
        assert not parts.exists()
    assert len(seen_parts) > 1  # the kills struck at different stages


def is_whole(path, num_episodes):
    """Whether a file holds every episode of the run."""
    try:
        return len(DemonstrationFile(path).names) == num_episodes
    except ValueError:
        return False


@pytest.mark.slow
def test_killed_writer_is_never_read_as_complete(tmp_path):
    """C26."""
    kill_repeatedly(WRITE, tmp_path, 3, 40)


@pytest.mark.slow
def test_writer_killed_at_twenty_moments(tmp_path):
    kill_repeatedly(WRITE, tmp_path, 20, 40)


@pytest.mark.slow
def test_killed_generation_is_never_read_as_complete(tmp_path):
    kill_repeatedly(GENERATE, tmp_path, 4, 400)


@pytest.mark.slow
def test_killed_while_merging_a_file_is_whole_or_absent_and_the_shards_stay(tmp_path):
    count, kills, shards = 300, 20, []
    for shard in range(3):
        writer = make_writer(tmp_path / "data.h5", count, shard, 3)
        for number in writer.missing():
            writer.add(number, make_episode(number, 30))
        shards.append(str(writer.finish()))
    kept = [Path(shard).read_bytes() for shard in shards]
    duration = run_and_kill(MERGE, tmp_path / "whole.h5", None, shards=shards)
    whole, seen = content(tmp_path / "whole.h5"), set()
    for i, delay in enumerate(np.random.default_rng(0).uniform(0.2 * duration, 1.05 * duration, kills)):
        path = tmp_path / f"killed-{i}.h5"
        run_and_kill(MERGE, path, delay, signal.SIGTERM if i % 2 else signal.SIGKILL, shards=shards)
        seen.add(path.with_name(f".{path.name}.merging").exists())
        if not path.exists():
            run_and_kill(MERGE, path, None, shards=shards)
        assert content(path) == whole
        assert len(TrajectoryDataset(path)) == 30 * count
        assert {left.name for left in tmp_path.glob(f"*{path.name}*")} == {path.name, beside(path).name}
    assert True in seen, "no kill struck while merging"
    assert [Path(shard).read_bytes() for shard in shards] == kept
