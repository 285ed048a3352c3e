"""The custom task of examples/: one file, known to every command by --import."""

import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from simscaleai_jax.sim import list_envs
from simscaleai_jax.sim.tasks.expert import Expert

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_task.py"


def simscale(*arguments, cwd):
    command = [sys.executable, "-m", "simscaleai_jax.tools.cli", *map(str, arguments)]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_expert_of_a_custom_task_solves_it_on_the_host(monkeypatch):
    assert len(EXAMPLE.read_text().splitlines()) <= 100
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    import custom_task

    assert "sweep" in list_envs()
    assert isinstance(custom_task.EXPERT, Expert)
    assert custom_task.play(10) == 1.0


@pytest.mark.wide
def test_a_custom_task_is_listed(tmp_path):
    assert "sweep" in simscale("list-envs", "--import", EXAMPLE, cwd=tmp_path)


@pytest.mark.wide
def test_every_command_knows_a_custom_task(tmp_path):
    known = ("--import", EXAMPLE)
    shown = simscale("datagen", *known, "--env-name", "sweep", "--policy", "scripted", "--n-episodes", 4,
                     "--env.dt", 0.01, "--output", "sweep.h5", cwd=tmp_path)  # fmt: skip
    assert "success_rate" in shown
    with h5py.File(tmp_path / "sweep.h5") as file:
        assert all(demo.attrs["success"] for demo in file["data"].values())
        assert any("red cube" in demo.attrs["language"] for demo in file["data"].values())
    simscale("rl", *known, "--env-name", "sweep", "--env.dt", 0.01, "--ppo.num-envs", 16, "--ppo.n-steps", 128,
             "--ppo.num-minibatches", 2, "--total-steps", 256, "--output", "ppo", cwd=tmp_path)  # fmt: skip
    assert "success_rate" in simscale("eval", *known, "ppo", "--n-episodes", 2, "--max-episode-steps", 10, cwd=tmp_path)
