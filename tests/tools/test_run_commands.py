"""A run from training to evaluation, by the `simscale` command."""

import json
import shutil
import types

import numpy as np
import pytest

from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.core.runs.folder import read_run
from simscaleai_jax.rl.agents.ppo import load_policy
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.sim.factory import make_functional_env
from simscaleai_jax.tools import cli

SMALL = "--ppo.hidden-dim 16 --ppo.num-envs 8 --ppo.n-steps 64 --ppo.num-minibatches 2 --ppo.n-epochs 1"
SMALL += " --total-steps 128 --env.dt 0.01"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a very short run on reach."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(["rl", *SMALL.split(), "--save-path", str(folder), "--env.max-episode-steps", "8"]) == 0
    return folder


def evaluate(run, tmp_path, *options):
    results = tmp_path / "results.json"
    assert cli.main(["eval", str(run), "--n-episodes", "2", "--output", str(results), *options]) == 0
    return json.loads(results.read_text())


@pytest.mark.wide
def test_a_run_writes_its_curve_and_its_metrics(run):
    assert read_run(run)["settings"]["ppo.n_steps"] == 64
    assert (run / "metrics.csv").read_text().count("\n") == 3
    assert not list(run.glob(".*"))
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["total_steps"] for row in rows] == [64, 128]
    terms = {name for name in rows[0] if name.startswith("reward/")}
    assert terms == {"reward/distance", "reward/success", "reward/arrival", "reward/action"}


@pytest.mark.wide
def test_a_run_goes_on_by_the_same_command(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    words = ["rl", *SMALL.split(), "--save-path", str(folder), "--env.max-episode-steps", "8"]
    assert cli.main(words) == 0
    assert "Nothing to do" in capsys.readouterr().out
    for other, message in (
        (["--ppo.n-steps", "128"], "ppo.n_steps is 64 there and 128 here"),
        (["--env.max-episode-steps", "9"], "env.max_episode_steps is 8 there and 9 here"),
        (["--env-name", "pick_place"], "env_name is 'reach' there and 'pick_place' here"),
    ):
        assert cli.main([*words, *other]) == 1
        assert message in capsys.readouterr().err
    assert cli.main([*words, "--total-steps", "192", "--lr", "1e-5"]) == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["total_steps"] for row in rows] == [64, 128, 192]
    np.testing.assert_allclose([row["learning_rate"] for row in rows], [3e-4, 3e-4, 1e-5], rtol=1e-6)
    assert {change["name"] for change in read_run(folder)["changes"]} >= {"ppo.lr", "ppo.total_timesteps"}
    assert cli.main(["config", "show", str(folder)]) == 0
    assert "# since step 128 " in capsys.readouterr().out


@pytest.mark.wide
def test_trackers_get_the_results_and_films_of_a_run(run, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    told = []
    sink = types.SimpleNamespace(
        write=lambda step, row: told.append(step),
        video=lambda step, name, path: told.append((name, path.stat().st_size > 500)),
        table=lambda step, name, columns, rows: told.append((name, dict(rows)["steps in all"])),
        close=lambda: told.append("closed"),
    )
    monkeypatch.setattr("simscaleai_jax.core.runs.trackers.open_trackers", lambda config, about: [sink])
    words = [*SMALL.split(), "--output", str(folder), "--env.max-episode-steps", "8"]
    assert cli.main(["rl", *words, "--log.videos", "1", "--total-steps", "192"]) == 0
    assert told == [192, ("videos/episode_000", True), ("results", 192), "closed"]
    assert cli.main(["rl", *words, "--log.videos", "1", "--output", "memory://runs/filmed"]) == 1
    assert "(log.videos) must lie on a local or mounted disk" in capsys.readouterr().err


@pytest.mark.wide
def test_a_run_is_evaluated_and_filmed_on_the_host_without_flags(run, tmp_path, capsys):
    options = ("--physics", "host", "--save-videos", "--video-dir", str(tmp_path / "videos"))
    results = evaluate(run, tmp_path, *options)
    assert {name: result["dt"] for name, result in results.items()} == {"host": 0.002}
    assert results["host"]["mean_length"] <= 8, "the environment's settings travel in the checkpoint"
    failures = results["host"]["failures"]
    assert len(failures) == round((1 - results["host"]["success_rate"]) * 2)
    named = {f"{'failure' if number in failures else 'success'}_{number:03d}.mp4" for number in range(2)}
    assert {path.name for path in (tmp_path / "videos").iterdir()} == named
    assert all(path.stat().st_size > 500 for path in (tmp_path / "videos").iterdir())
    assert "success_rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host-dt", "0.003"], "control_dt must be a multiple of dt"),
        (["--output", "{tmp}/file/results.json"], "file"),
        (["--output", "{tmp}"], "Is a directory"),
    ],
)
def test_an_evaluation_is_refused_before_anything_is_played(run, options, message, tmp_path, monkeypatch, capsys):
    played = []
    monkeypatch.setattr("simscaleai_jax.rl.evaluator.evaluate_episodes", lambda *given: played.append(given))
    (tmp_path / "file").write_text("")
    assert cli.main(["eval", str(run), *[word.format(tmp=tmp_path) for word in options]]) == 1
    assert message in capsys.readouterr().err
    assert not played
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.wide
def test_a_run_is_evaluated_on_both_physics(run, tmp_path):
    results = evaluate(run, tmp_path)
    assert {name: result["dt"] for name, result in results.items()} == {"c": 0.01, "host": 0.002}
    assert results["c"]["mean_length"] <= 8


@pytest.mark.wide
def test_batched_episodes_are_filmed_and_repeat_with_their_seed(run, tmp_path):
    env = make_functional_env("reach", dt=0.01, cameras=[], max_episode_steps=4)
    policy = load_policy(run)
    config = EvalConfig(n_episodes=3, save_videos=True, max_videos=1, video_dir=str(tmp_path))
    first = evaluate_policy(env, policy, config)
    assert first == evaluate_policy(env, policy, config)
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000.mp4"]
    assert first["mean_length"] <= 4
    with pytest.raises(ValueError, match=r"pure policy\(obs, key\)"):
        evaluate_policy(env, lambda obs: obs["ee_pos"])


@pytest.mark.wide
def test_a_run_is_tried_under_other_physics(run, tmp_path, capsys):
    folder = tmp_path / "report"
    options = ["--parameters", "joint_damping", "--levels", "1", "--n-episodes", "2", "--output", str(folder)]
    assert cli.main(["transfer", str(run), *options]) == 0
    written = json.loads((folder / "transfer.json").read_text())
    names = [row["condition"] for row in written["conditions"]]
    assert names == ["clean", "light", "default", "heavy", "joint_damping=0.3", "joint_damping=3"]
    assert all(row["mean_length"] <= 8 for row in written["conditions"])
    assert (folder / "transfer.png").read_bytes().startswith(b"\x89PNG")
    assert "joint_damping=0.3" in capsys.readouterr().out
    assert cli.main(["transfer", str(run), "--parameters", "object_mass", "--output", str(folder)]) == 1
    assert "Unknown parameter of reach 'object_mass'" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_learned_on_one_engine_works_on_the_others(tmp_path):
    """Reach: the 95% intervals on the C engine, on MJX and on the host at dt 0.002 have a rate in common."""
    assert cli.main(["rl", "ppo_reach", "--env.impl", "c", "--output", str(tmp_path / "run")]) == 0
    results = {}
    for options in (["--impl", "c"], ["--impl", "jax", "--physics", "batched"]):
        results |= evaluate(tmp_path / "run", tmp_path, "--n-episodes", "100", "--seed", "1", *options)
    assert set(results) == {"c", "host", "jax"}
    assert all(result["success_rate"] >= 0.95 for result in results.values())
    intervals = [wilson(result["success_rate"], 100) for result in results.values()]
    assert max(low for low, _ in intervals) <= min(high for _, high in intervals)
