"""`simscale plan` on this machine's devices; tests/plan/test_tpu.py is about TPUs."""

import json

import pytest

from simscaleai_jax.tools import cli
from simscaleai_jax.tools.commands.plan import is_rl

SMALL = "--ppo.hidden-dim 16 --ppo.num-envs 16 --ppo.n-steps 64 --ppo.num-minibatches 2 --ppo.n-epochs 3 --env.dt 0.01"


@pytest.mark.wide
def test_a_plan_of_ppo(capsys):
    assert cli.main(["plan", "rl", "--topology", "cpu:8", "--json", *SMALL.split()]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["run"], report["environments"], report["steps"]) == ("PPO on reach", 16, 4)
    update = report["programs"]["update"]
    assert update["collectives"]["count"] == 2 * 3 + 1, "one for each minibatch, and one for the statistics"
    assert "calls the host while it runs" in update["warnings"], "MuJoCo's engine"


@pytest.mark.wide
def test_a_plan_of_training(capsys):
    arguments = (
        "plan train --topology cpu:8 --programs update evaluate --model bc --model.hidden-dim 16 --batch-size 32"
    )
    assert cli.main(arguments.split()) == 0
    shown = capsys.readouterr().out
    assert "bc, 32 batch: update on cpu:8 (8 devices)" in shown
    assert "bc, 32 batch: evaluate on cpu:8" in shown
    assert "all-reduce" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rl --topology v9:4x4", "Unknown topology 'v9:4x4'. Available: a100:1"),
        ("--topology cpu:8", "Say what to plan"),
        ("ppo_reech --topology cpu:8", "Did you mean 'ppo_reach'"),
        (f"rl --topology cpu:8 --programs updat {SMALL}", "Did you mean 'update'"),
        (f"rl --topology cpu:8 --fit {SMALL}", "--fit needs a topology"),
        ("train --topology cpu:8 --model bc --batch-size 12", "nearest: 8 or 16"),
    ],
)
def test_what_cannot_be_planned_is_said(arguments, message, capsys):
    assert cli.main(["plan", *arguments.split()]) == 1
    assert message in capsys.readouterr().err


def test_a_preset_says_what_it_is_of():
    assert is_rl(["ppo_pick_place"])
    assert not is_rl(["bc_reach", "--lr", "1e-3"])
    assert is_rl(["rl", "--config", "missing.yaml"])
