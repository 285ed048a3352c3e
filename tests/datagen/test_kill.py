"""SIGKILL at any moment: the final name is absent or whole, and a rerun completes it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simscaleai_jax.core.demonstrations import DemonstrationFile

from .test_writer import HERE, content

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


def run_and_kill(code: str, path: Path, delay: float | None) -> float:
    """Starts the run, kills it `delay` seconds after it is ready (None: lets it end); returns the seconds it ran."""
    process = subprocess.Popen(
        [sys.executable, "-c", code.format(here=HERE, path=str(path))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    if delay is None:
        assert process.wait() == 0
    else:
        time.sleep(delay)
        process.kill()
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


def test_killed_writer_is_never_read_as_complete(tmp_path):
    """C26."""
    kill_repeatedly(WRITE, tmp_path, 3, 40)


@pytest.mark.slow
def test_writer_killed_at_twenty_moments(tmp_path):
    kill_repeatedly(WRITE, tmp_path, 20, 40)


@pytest.mark.slow
def test_killed_generation_is_never_read_as_complete(tmp_path):
    kill_repeatedly(GENERATE, tmp_path, 4, 400)
