"""The shipped recipes on more devices than they have blocks, and a run that goes on on another number of them."""

import json
import math
import os
import subprocess
import sys

import pytest


def train(recipe, folder, devices, steps, *options):
    """The numbers of every update of `simscale rl` on `devices` CPU devices of a process of its own."""
    command = [sys.executable, "-m", "simscaleai_jax.tools.cli", "rl", recipe, "--output", str(folder)]
    command += ["--ppo.num-devices", str(devices), "--total-steps", str(steps), *options]
    environment = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling is most of it
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.wide
@pytest.mark.parametrize(("recipe", "steps"), [("ppo_reach", 8192), ("ppo_pick_place", 4096)])
def test_sixteen_devices_train_as_one_with_the_same_blocks_does_and_eight_go_on(recipe, steps, tmp_path):
    sixteen = train(recipe, tmp_path / "run", 16, 2 * steps)
    one = train(recipe, tmp_path / "one", 1, steps, "--ppo.num-env-blocks", "16")
    for name in ("policy_loss", "value_loss", "entropy", "explained_variance", "grad_norm"):
        assert sixteen[0][name] == pytest.approx(one[0][name], rel=1e-2, abs=1e-4), name
    rows = train(recipe, tmp_path / "run", 8, 4 * steps)
    assert [row["total_steps"] for row in rows] == [steps * (i + 1) for i in range(4)]
    assert rows[:2] == sixteen, "what was done is not done again"
    assert all(math.isfinite(row["policy_loss"]) and row["skipped_steps"] == 0 for row in rows)
