"""benchmarks/gpu.sh goes on after a failure and where it was stopped, within its time; its steps know their options.

The steps themselves run in `make rehearse-gpu`; here the interpreter is one that only notes what it is asked.
"""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
NOTING = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
[[ "$*" == *"$BROKEN"* ]] && exit 7
exit 0
"""


@pytest.fixture
def run(tmp_path):
    python = tmp_path / "python"
    python.write_text(NOTING)
    python.chmod(0o755)
    calls = tmp_path / "calls"

    def run(broken: str = "nothing", **more: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        calls.write_text("")
        settings = {"SIMSCALE_GPU_PYTHON": str(python), "CALLS": str(calls), "BROKEN": broken} | more
        command = ["bash", str(SCRIPT), str(tmp_path / "out")]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
        return done, calls.read_text().splitlines()

    return run


def test_it_goes_on_after_a_failure_and_then_runs_only_what_is_missing(run):
    first, calls = run(broken="render_throughput.py")
    assert first.returncode == 1
    assert "render: failed with status 7" in first.stdout
    assert any("time_shares.py" in call for call in calls)  # after the broken one
    engines = [call for call in calls if "ppo_runs.py configs/ppo_pick_place_gpu.yaml" in call]
    assert [re.findall(r"--engine (\w+)", call)[0] for call in engines] == ["warp", "jax", "c"]
    second, calls = run()
    assert second.returncode == 0, second.stdout
    assert len(calls) == 1
    assert "render_throughput.py" in calls[0]


def test_nothing_starts_when_time_is_over(run):
    done, calls = run(SIMSCALE_GPU_MINUTES="0")
    assert done.returncode == 1
    assert calls == []
    assert "no time left" in done.stdout


@pytest.mark.parametrize("rehearsal", ["", "1"])
def test_every_script_takes_the_options_that_it_is_given(run, rehearsal):
    _, calls = run(SIMSCALE_GPU_REHEARSAL=rehearsal)
    assert len(calls) >= 10
    for call in calls:
        script, *arguments = call.split()
        if script == "-m":
            continue
        source = (ROOT / script).read_text()
        known = set(re.findall(r'"(--[a-z-]+)"', source))
        known |= {f"--{field.replace('_', '-')}" for field in _fields(source)} | {"--no-ppo"}
        given = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
        assert given - {"--ppo.total-timesteps"} <= known, (script, given - known)


def _fields(source: str) -> list[str]:
    """Fields of a script's Options."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Options"]
    return [item.target.id for node in classes for item in node.body if isinstance(item, ast.AnnAssign)]
