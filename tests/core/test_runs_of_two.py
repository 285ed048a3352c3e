"""A run of two processes is killed at random moments, one or both of them, and ends as one that nobody disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simscaleai_jax.core import checkpoint, flat_tree

SECONDS = 480
LAUNCH = "from simscaleai_jax.tools.commands.launch import *; sys.exit(launch(LaunchOptions(2, 2), sys.argv[1:]))"


def start(folder: Path, steps: int, origin: Path | None) -> subprocess.Popen:
    command = [sys.executable, "-c", LAUNCH, sys.executable, "-m", "tests.core.pair", str(folder), str(steps)]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    arguments = [] if origin is None else [str(origin)]
    return subprocess.Popen([*command, *arguments], env=environment, cwd=Path(__file__).parents[2], **pipes)


def complete(folder: Path) -> list[str]:
    return [path.name for path in checkpoint.complete_steps(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    tree, _ = checkpoint.load(checkpoint.complete_steps(folder)[-1])
    return {name: array.tobytes() for name, array in flat_tree.host_arrays(tree).items()}


def strike(process: subprocess.Popen, number: int) -> None:
    """SIGTERM to all every other time; else SIGKILL to the first, the second or both."""
    if number % 2:
        process.send_signal(signal.SIGTERM)
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in {0: children[:1], 2: children[1:], 4: children}[number % 6]:
        os.kill(int(child), signal.SIGKILL)


def kill_at_random(folder: Path, steps: int, most: int, origin: Path | None = None) -> int:
    """Starts the run over and over, and strikes at most so often; returns how often that met it alive."""
    moments = random.Random(1)
    for struck in range(most + 1):
        before, process = complete(folder), start(folder, steps, origin)
        deadline = time.monotonic() + SECONDS
        while complete(folder)[-1:] == before[-1:] and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if struck < most:
            time.sleep(moments.uniform(0.0, 0.3))
            if process.poll() is None:
                strike(process, struck)
        output, _ = process.communicate(timeout=SECONDS)
        assert complete(folder)[-1:] >= before[-1:], "nothing complete was lost"
        if process.returncode == 0:
            return struck
        assert process.returncode in (137, 143), output
    raise AssertionError("it never ends")


@pytest.mark.wide
def test_killed_at_twenty_moments_it_ends_with_the_same_bits(tmp_path):
    """Alone and from elsewhere."""
    struck = kill_at_random(tmp_path / "whole", 1000, 0)
    assert struck == 0
    struck += kill_at_random(tmp_path / "own", 1000, 14)
    kill_at_random(tmp_path / "a", 3, 0)
    struck += kill_at_random(tmp_path / "b", 1000, 10, tmp_path / "a" / "step_000000003")
    assert struck >= 20
    for name in ("own", "b"):
        assert complete(tmp_path / name)[-1] == "step_000001000"
        assert contents(tmp_path / name) == contents(tmp_path / "whole")
        assert not list((tmp_path / name).glob(".*")), "nothing unfinished is left"
