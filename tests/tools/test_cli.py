"""The `simscale` command: help, options and errors."""

import dataclasses
import errno
import importlib
import math
import re
import resource
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tyro

import simscaleai_jax
from simscaleai_jax.core import apply_overrides, load_yaml
from simscaleai_jax.core.checkpoint import Manifest, save
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.models import list_models
from simscaleai_jax.rl.agents.ppo import PPOConfig
from simscaleai_jax.rl.ppo.envs import env_record
from simscaleai_jax.sim.factory import make_functional_env
from simscaleai_jax.sim.randomization import PRESETS
from simscaleai_jax.sim.registry import find_task
from simscaleai_jax.tools import cli
from simscaleai_jax.tools.commands import datagen, rl, transfer
from simscaleai_jax.tools.env_options import EnvOptions
from simscaleai_jax.tools.model_options import MEANINGS, model_options_class
from simscaleai_jax.tools.output import print_table


def test_help_and_version_are_instant_and_import_nothing_heavy():
    code = "import sys; from simscaleai_jax.tools import cli; cli.main(['--help']); print('jax' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.5  # seconds of work, whatever else runs
    assert result.stdout.rstrip().endswith("False")
    assert result.stderr == ""
    for name in cli.COMMANDS:
        assert name in result.stdout


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"simscale {simscaleai_jax.__version__}"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"simscale {name}" in capsys.readouterr().out


def test_modules_are_imported_before_a_command_reads_its_options(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first_words.py").write_text("print('first')")
    (tmp_path / "second_words.py").write_text("print('second')")
    assert cli.main(["list-models", "--import", "first_words", "--import=second_words.py"]) == 0
    assert capsys.readouterr().out.startswith("first\nsecond\n")


def test_imports_behind_two_dashes_belong_to_the_other_command():
    assert cli.take_imports(["--import", "a", "-x", "--", "rl", "--import", "b"]) == (
        ["-x", "--", "rl", "--import", "b"],
        ["a"],
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--import"], "--import: wanted a module or a Python file, got nothing"),
        (["--import", "--help"], "--import: wanted a module or a Python file, got --help"),
        (["--import", "no/such.py"], "--import no/such.py: no such file"),
        (["--import", "no_such_module"], "No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_imported_ends_in_one_line(argv, message, capsys):
    assert cli.main(["list-models", *argv]) == 1
    assert capsys.readouterr().err == f"simscale list-models: {message}\n"


def test_documented_options_keep_their_names(tmp_path):
    argv = ["--env-name", "reach", "--total-steps", "5000", "--lr", "1e-3", "--save-path", "here"]
    argv += ["--seed", "3", "--ppo.gamma", "0.9"]
    options = rl.parse_options(argv)
    assert (options.env_name, options.output) == ("reach", "here")
    ppo = options.ppo
    assert (ppo.total_timesteps, ppo.lr, ppo.seed, ppo.gamma) == (5000, 1e-3, 3, 0.9)
    assert rl.parse_options([]).ppo.total_timesteps == 100_000
    assert isinstance(ppo, PPOConfig)


def test_options_win_over_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("ppo: {lr: 5e-4, gamma: 0.8}\nenv: {dt: 0.01}\n")
    options = rl.parse_options(["--config", str(path), "--lr", "2e-3"])
    assert (options.ppo.lr, options.ppo.gamma, options.env.dt) == (2e-3, 0.8, 0.01)
    assert apply_overrides(load_yaml(path, rl.RLOptions), {"ppo.lr": 1e-2}).ppo.lr == 1e-2


def test_task_settings_come_from_the_file_and_may_be_changed(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("env_name: pick_place\nenv: {task: {curriculum_share: 0.5, area_low: [0.45, -0.1]}}\n")
    options = rl.parse_options(["--config", str(path), "--env.task.curriculum-share", "0.25"])
    assert options.env.task == {"curriculum_share": 0.25, "area_low": [0.45, -0.1]}
    env = rl.make_training_env(options)
    task = env.functional.task.config
    assert (task.curriculum_share, task.area_low, task.area_high) == (0.25, (0.45, -0.1), (0.65, 0.2))
    recorded = env_record(env, "pick_place")["config"]
    assert make_functional_env("pick_place", **recorded).task.config == task


def test_task_settings_need_no_file():
    words = "--env.task.curriculum-share .5 --env.task.area-low 0.45 -0.1 --seed 3 --env.task.area_high=[0.6,0.1]"
    words += " --env.task.relative-observations --env.task.reach-weight 1e-1 --env-name pick_place"
    options = rl.parse_options(words.split())
    assert (options.env_name, options.ppo.seed) == ("pick_place", 3)
    task = rl.make_training_env(options).functional.task.config
    assert (task.curriculum_share, task.area_low, task.area_high) == (0.5, (0.45, -0.1), (0.6, 0.1))
    assert (task.relative_observations, task.reach_weight) == (True, 0.1)
    off = rl.parse_options(["--env.task.no-relative-observations"])
    assert off.env.task == {"relative_observations": False}
    with pytest.raises(ValueError, match=r"--env.task.area-low \[0.4: wanted numbers"):
        rl.parse_options(["--env.task.area-low", "[0.4"])


def test_an_environment_may_have_a_scene_and_a_randomization_of_its_own(tmp_path):
    assets = Path(find_task("reach").xml_path).parent
    shutil.copy(assets / "panda.xml", tmp_path)
    path = tmp_path / "mine.xml"
    path.write_text((assets / "reach.xml").read_text().replace('size=".05"', 'size=".07"'))
    words = ["--env.xml-path", str(path), "--env.randomization", "heavy"]
    env = rl.make_training_env(rl.parse_options(words)).functional
    assert env.physics.host_model.geom("target").size[0] == 0.07
    assert env_record(env)["config"]["xml_path"] == str(path), "the checkpoint knows it"
    assert (env.config.domain_randomization, env.config.randomization) == (True, PRESETS["heavy"])
    options = rl.parse_options(["--env.randomization", "light", "--env.domain-randomization", "False"])
    assert not rl.make_training_env(options).functional.config.domain_randomization, "what is said outright holds"


def test_an_unknown_task_setting_names_the_nearest(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("env_name: pick_place\nenv: {task: {curiculum_share: 0.5}}\n")
    assert cli.main(["rl", "--config", str(path), "--save-path", str(tmp_path / "run")]) == 1
    assert (
        "Unknown PickPlaceConfig field 'curiculum_share'. Did you mean 'curriculum_share'?" in capsys.readouterr().err
    )
    unfiled = ["--env-name", "reach", "--env.task.succes-distance", "0.1", "--save-path", str(tmp_path / "run")]
    assert cli.main(["rl", *unfiled]) == 1
    assert "Unknown ReachConfig field 'succes_distance'. Did you mean 'success_distance'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["rl", "--env.randomization", "heavey", "--save-path", str(tmp_path / "run")])
    assert "heavy" in capsys.readouterr().err.replace("heavey", "")


@pytest.fixture
def used(tmp_path):
    """A folder with a run's checkpoint, metrics and videos in `used`, and a checkpoint that names no environment."""
    manifest = Manifest(kind="ppo", model_name="actor_critic")
    with CheckpointSeries(tmp_path / "used") as series:
        other = Manifest(kind="ppo", model_name="actor_critic", env={"name": "pick_place"})
        series.save(80, {"a": np.zeros(3)}, other, 0.5)
    (tmp_path / "used" / "metrics.jsonl").write_text('{"total_steps": 80.0}\n')
    (tmp_path / "notes.txt").write_text("mine")
    save(tmp_path / "nameless", {"a": np.zeros(3)}, manifest)
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


UNEVEN = ["--ppo.n-steps", "100", "--ppo.num-envs", "64"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rll"], "Did you mean 'rl'?"),
        (["rl", "--env-name", "raech"], "Unknown env 'raech'. Available: "),
        (["rl", "--config", "missing.yaml"], "Config file 'missing.yaml' does not exist"),
        (["rl", *UNEVEN, "--save-path", "{tmp}/run"], "nearest: 64 or 128"),
        (["rl", *UNEVEN, "--save-path", "{tmp}/used"], "nearest: 64 or 128"),
        (["rl", "--no-resume", "--save-path", "{tmp}/used"], "is not to be continued; take another --output"),
        (["rl", "--save-path", "{tmp}/used"], "env_name is 'pick_place' there and 'reach' here"),
        (["rl", "--output", "nowhere://a"], "nowhere"),
        (["rl", "ppo_raech"], "Unknown preset 'ppo_raech'"),
        (["config", "show", "{tmp}"], "no run's folder"),
        (["rl", "--device", "tpu", "--save-path", "{tmp}/run"], "No 'tpu' device"),
        (["eval", "{tmp}/none"], "does not exist"),
        (["eval", "{tmp}"], "holds no checkpoint"),
        (["eval", "{tmp}/nameless"], "The checkpoint names no environment; give --env-name"),
        (["transfer", "{tmp}/nameless"], "The checkpoint names no environment; give --env-name"),
        (["datagen", "--checkpoint", "{tmp}/nameless"], "The checkpoint names no environment; give --env-name"),
    ],
)
def test_wrong_calls_end_in_one_clear_line(argv, message, used, capsys):
    before = contents(used)
    assert cli.main([word.format(tmp=used) for word in argv]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert contents(used) == before, "nothing written, nothing lost"


@pytest.mark.parametrize(("option", "value"), [("--log.trackers", "wandbb"), ("--ppo.lr", "fast"), ("--ppo.lrr", "1")])
def test_options_that_do_not_parse_end_with_status_2(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["rl", option, value])
    assert stop.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "run/metrics.jsonl"), "No space left on device: 'run/metri"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "run"), "Not a directory"),
        (ExpectedError("no usable OpenGL"), "simscale list-envs: no usable OpenGL\n"),
    ],
)
def test_failures_that_are_no_defects_are_told_in_one_line(error, message, monkeypatch, capsys):
    def fail(argv):
        raise error

    monkeypatch.setattr("simscaleai_jax.tools.commands.list_envs.main", fail)
    assert cli.main(["list-envs"]) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    error = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["list-envs"])


def test_the_best_checkpoint_is_chosen_by_many_starts_that_no_curriculum_eased(monkeypatch):
    """One lucky update says less than ten, also where the run was stopped among them."""
    monkeypatch.setattr("simscaleai_jax.rl.ppo.storage.make_manifest", lambda agent: None)
    rates = [0.25, math.nan, 1.0, *[0.5] * 17]

    def play(rates, first, earlier=()):
        saved = []
        series = types.SimpleNamespace(save=lambda step, state, manifest, metric: saved.append((step // 64, metric)))
        watch = types.SimpleNamespace(is_requested=lambda: False)
        callback = rl._saver(series, PPOConfig(n_steps=64, total_timesteps=20 * 64), 20, watch, earlier)
        for number, plain in enumerate(rates, first):
            agent = types.SimpleNamespace(total_steps=64 * number, state=None)
            row = {"total_steps": 64 * number, "success_rate": 1.0, "plain_success_rate": plain}
            assert callback(agent, row)
        return saved

    saved = play(rates, 1)
    assert saved[:3] == [(1, 0.25), (2, 0.25), (3, 0.62)]
    assert play([0.9993], 1, [0.9993] * 9) == play([0.9975], 1, [0.9975] * 9), "chance: the newer one is the best"
    assert saved[-1] == (20, 0.5)
    assert play(rates[12:], 13, rates[:12]) == saved[12:]
    assert play([math.nan], 1) == [(1, None)]


def test_a_preset_and_the_configuration_that_it_makes(tmp_path, capsys):
    options = rl.parse_options(["ppo_pick_place", "--ppo.lr", "1e-3"])
    assert (options.env_name, options.ppo.lr, options.ppo.num_envs) == ("pick_place", 1e-3, 256)
    assert cli.main(["config", "show", "rl", "ppo_pick_place", "--ppo.lr", "1e-3"]) == 0
    path = tmp_path / "shown.yaml"
    path.write_text(capsys.readouterr().out)
    shown = rl.parse_options(["--config", str(path)])
    assert dataclasses.replace(shown, config=options.config) == options, "every setting is in it"
    assert cli.main(["config", "show"]) == 0
    assert "ppo_reach: " in capsys.readouterr().out


def test_old_names_are_taken_with_a_note(capsys):
    wanted = rl.parse_options(["--ppo.n-steps", "64", "--lr", "1e-3", "--seed", "2", "--output", "a"])
    assert capsys.readouterr().err == "", "documented names are no old ones"
    assert rl.parse_options(["--n-steps", "64", "--lr=1e-3", "--seed", "2", "--save_path", "a"]) == wanted
    assert capsys.readouterr().err.count("--n-steps is now --ppo.n-steps") == 1
    options = datagen.parse_options(["--dt", "0.01", "--max-steps", "9", "--randomize"])
    assert options.env == EnvOptions(dt=0.01, max_episode_steps=9, domain_randomization=True)


def options_of(name):
    """(class, defaults) that a command hands to tyro."""
    seen = {}

    def stop(cls, **given):
        seen.update(given, cls=cls)
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tyro, "cli", stop)
        with pytest.raises(SystemExit):
            importlib.import_module(cli.COMMANDS[name][0]).main([])
    return seen["cls"], seen.get("default")


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "config"])
@pytest.mark.filterwarnings("ignore:get_parser")
def test_every_option_has_help(name):
    cls, default = options_of(name)
    actions = tyro.extras.get_parser(cls, default=default)._actions
    blank = [
        action.option_strings for action in actions if not re.sub(r"\((default|required|optional).*", "", action.help)
    ]
    assert not blank
    assert len(actions) > {"rl": 60, "train": 60, "datagen": 30}.get(name, 0), "all of them were looked at"


@pytest.mark.parametrize("name", list_models())
def test_every_argument_of_a_model_has_help(name):
    assert {field.name for field in dataclasses.fields(model_options_class(name))} <= set(MEANINGS)


def test_a_table_in_a_file_cuts_no_word(capsys):
    names = [f"a_rather_long_column_name_{i}" for i in range(6)]
    print_table("title", ["condition", *names], [["actuator_gain 0.75", *range(6)]])
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*names, "actuator_gain 0.75"])


def test_lost_contacts_are_told_once(capsys):
    warn = rl._warner()
    agent = types.SimpleNamespace(config=PPOConfig(n_steps=64))
    for steps, count in ((64, 0), (128, 3), (192, 5)):
        warn(agent, {"total_steps": steps, "overflow_count": count})
    shown = capsys.readouterr().err
    assert "3 of the 64 steps" in shown
    assert shown.count("lost contacts") == 1


def test_an_evaluation_says_how_many_episodes_their_physics_spoilt(monkeypatch, capsys):
    clean = dict.fromkeys(("dt", "success_rate", "mean_reward", "std_reward", "mean_length"), 0.0)
    clean |= {"min_reward": 0.0, "max_reward": 0.0, "success_low": 0.0, "success_high": 0.3}
    results = {"c": clean | {"nan_episodes": 0, "overflow_episodes": 0}, "host": clean}
    monkeypatch.setattr("simscaleai_jax.tools.commands.eval.evaluate", lambda options: results)
    assert cli.main(["eval", "run", "--n-episodes", "9"]) == 0
    assert capsys.readouterr().err == ""
    results["c"] |= {"nan_episodes": 2, "overflow_episodes": 3}
    assert cli.main(["eval", "run", "--n-episodes", "9"]) == 0
    nan, overflow = capsys.readouterr().err.splitlines()
    assert nan == "simscale eval: 2 of 9 episodes on c ended because their state was not finite."
    assert overflow.startswith("simscale eval: 3 of 9 episodes on c may have lost contacts")


def test_transfer_executes_chunks_as_it_is_told(used, monkeypatch):
    asked = {}
    monkeypatch.setattr("simscaleai_jax.policy.load_policy", lambda path, **options: asked.update(options) or 1 / 0)
    options = ["--env-name", "reach", "--execute-steps", "2", "--language", "reach"]
    with pytest.raises(ZeroDivisionError):
        cli.main(["transfer", str(used / "nameless"), *options])
    assert asked == {"execute_steps": 2, "language": "reach", "ensemble": None}


def test_a_narrow_terminal_loses_nothing_of_a_transfer_report(monkeypatch, capsys):
    monkeypatch.setattr("simscaleai_jax.tools.output.FILE_WIDTH", 80)
    row = ("camera_position=0.0133", 1.0, 0.5, 0.9, -123.456, 200.0, 0, 3)
    print_table("report", list(transfer.COLUMNS.values()), [row])
    shown = capsys.readouterr().out
    assert "…" not in shown
    for word in ("success", "-123.456", "200.000", "lost"):
        assert word in shown
