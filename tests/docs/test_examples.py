"""The scripts of examples/ run at a small size, and stay short."""

import subprocess
import sys

import pytest

from .pages import READER, ROOT
from .test_pages import scenes

MJCF = ROOT / "docs" / "custom_mjcf.md"
SMALL = {
    "train_ppo": ["--total-steps", "8192", "--episodes", "2"],
    "many_environments": ["--num-envs", "16", "--steps", "5"],
    "gymnasium_expert": ["--env-name", "reach", "--episodes", "1"],
    "imitate": ["--demonstrations", "6", "--updates", "10", "--episodes", "2"],
    "own_arm": ["arm.xml", "--total-steps", "8192"],
    "batched_cameras": ["--num-envs", "4", "--side", "32"],
}
SAID = {
    "train_ppo": "MuJoCo at dt 0.002:", "many_environments": "env steps/s on the 'c' engine", "imitate": "for torch:",
    "gymnasium_expert": "episode 0: success", "own_arm": "film: outputs/own_arm.mp4",
    "batched_cameras": "pictures: outputs/cameras.png",
}  # fmt: skip


def test_there_is_a_small_size_for_every_example():
    found = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
    assert set(found) - {"custom_task"} == set(SMALL) == set(SAID), "custom_task: tests/sim/test_example.py"
    assert all(len(found[name].read_text().splitlines()) <= 60 for name in SMALL)


@pytest.mark.wide
@pytest.mark.parametrize("name", SMALL)
def test_an_example_runs(name, tmp_path):
    for scene, text in scenes(MJCF):
        (tmp_path / scene).write_text(text)
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *SMALL[name]]
    done = subprocess.run(command, cwd=tmp_path, env=READER, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert SAID[name] in done.stdout
