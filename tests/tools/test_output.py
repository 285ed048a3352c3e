"""What commands say, and how: JSON, tracebacks, a reader that leaves, no display, and what this machine has."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from simscaleai_jax.core import jax_settings
from simscaleai_jax.tools import cli, output
from simscaleai_jax.tools.commands import completion, doctor, launch
from simscaleai_jax.tools.env_options import EnvOptions
from simscaleai_jax.tools.output import print_table, shown
from tests.params import others_wide

SIMSCALE = [sys.executable, "-m", "simscaleai_jax.tools.cli"]


def test_tables_become_one_json_value_and_all_else_goes_to_stderr(capsys):
    assert cli.main(["list-models", "--json"]) == 0
    captured = capsys.readouterr()
    assert {"name", "description"} == set(json.loads(captured.out)[0])
    with output.as_json(sys.stdout):
        print("said on the way")
        print_table("A", ("result", "value"), [("loss", 0.5), ("diverged", float("nan")), ("run", Path("a"))])
        print_table("B", ("name", "size"), [("x", 1)])
        print_table("C", ("result", "c: MuJoCo"), [("success", "0.5 [0.1, 0.9]")], {"c": {"success": 0.5}})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == [
        {"loss": 0.5, "diverged": None, "run": "a"}, [{"name": "x", "size": 1}], {"c": {"success": 0.5}},
    ]  # fmt: skip
    assert captured.err == "said on the way\n"


def test_json_of_a_command_without_tables_is_refused_and_an_error_prints_none(capsys):
    assert cli.main(["merge", "--json"]) == 1
    assert "this command prints no table" in capsys.readouterr().err
    assert cli.main(["eval", "nowhere", "--json"]) == 1
    assert capsys.readouterr().out == ""


def test_every_command_that_prints_a_table_takes_json():
    folder = Path(cli.__file__).parent / "commands"
    named = {name for name, (module, _, _) in cli.COMMANDS.items() if prints(folder, module)}
    assert named | {"demo"} == set(cli.WITH_TABLES), "demo prints that of eval"


def prints(folder, module):
    text = (folder / f"{module.rpartition('.')[2]}.py").read_text()
    return "print_table(" in text or "print_report(" in text


def test_small_numbers_keep_their_digits():
    assert [shown(x) for x in (3e-4, 0.0, -1.25e-5, 0.0123, 12.3456, 7, "x")] == [
        "0.0003", "0.000", "-1.25e-05", "0.012", "12.346", "7", "x",
    ]  # fmt: skip


def test_an_error_in_the_users_own_code_names_the_line_and_its_traceback_is_to_be_had(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text("def fail():\n    raise ValueError('my mistake')\n\nfail()\n")
    assert cli.main(["list-models", "--import", str(mine)]) == 1
    assert capsys.readouterr().err.endswith(f"my mistake ({mine}, line 2; --traceback shows the way there)\n")
    assert cli.main(["list-models", "--import", str(mine), "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_our_own_messages_name_no_line(capsys):
    script = "import sys; from simscaleai_jax.tools import cli; sys.exit(cli.main(['eval', 'nowhere']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "--traceback" not in done.stderr


@pytest.mark.parametrize(
    "argv", others_wide([["--help"], ["list-models", "--help"], ["config", "show", "rl"]], ["--help"])
)
def test_a_reader_that_leaves_is_no_error(argv):
    process = subprocess.Popen([*SIMSCALE, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert process.returncode == cli.BROKEN_PIPE
    assert "roken" not in said


def test_flags_behind_two_dashes_belong_to_the_other_command():
    assert cli.take_flags(["--json", "a", "--", "--json"]) == (["a", "--", "--json"], {"--json"})


@pytest.mark.wide
def test_a_figure_without_a_display_goes_to_a_file_that_is_named(tmp_path):
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [*SIMSCALE, "viz-env", "--n-steps", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "Wrote outputs/viz-env.png, because there is no display" in done.stdout
    assert (tmp_path / "outputs" / "viz-env.png").stat().st_size > 1_000


def test_launch_finds_the_command_without_two_dashes():
    own, command = ["--num-processes", "2"], ["train", "--dataset", "x"]
    assert launch.split([*own, *command]) == launch.split([*own, "--", *command]) == (own, command)
    assert launch.split(own) == (own, [])


@pytest.mark.parametrize("name", ["image_size", "image_fov"])
def test_a_look_of_pictures_that_no_camera_takes_is_refused(name):
    for cameras in (None, ()):
        with pytest.raises(ValueError, match=f"{name} is set, but no cameras"):
            EnvOptions(cameras=cameras, **{name: 64}).settings()
    assert EnvOptions(cameras=("front_cam",), **{name: 64}).settings()["cameras"][0]["name"] == "front_cam"


@pytest.mark.wide
def test_the_doctor_measures_an_engine_and_finds_what_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "MEASURED_SECONDS", 0.2)
    monkeypatch.setattr(doctor, "MEASURED_ENVS", 8)
    with jax.numpy_rank_promotion("raise"):
        assert cli.main(["doctor", "--no-measure"]) == 1
    assert capsys.readouterr().err.endswith("to be mended (marked with '!'): JAX's settings\n")
    monkeypatch.setattr(jax_settings, "REFUSED", {})  # what these tests run under
    assert cli.main(["doctor", "--impl", "c", "--json"]) == 0
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(doctor.CHECKS) | {"engine c"} == set(found)
    assert int(found["engine c"]["found"].split(" ")[0].replace(",", "")) > 100
    assert "mujoco 4" in found["packages"]["found"]

    versions = {"jax": "0.10.1", "jaxlib": "0.10.1"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "1.0"))
    assert cli.main(["doctor", "--no-measure"]) == 1
    captured = capsys.readouterr()
    assert "MJX gives wrong physics on CPUs below 0.11.2" in captured.out
    assert captured.err.endswith("to be mended (marked with '!'): packages\n")


def test_a_check_of_the_doctor_that_fails_costs_none_of_the_others():
    def look():
        raise RuntimeError("no driver")
        yield

    assert doctor._safely(look) == [("RuntimeError: no driver", "! see the message")]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_every_command(shell, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["completion", shell])
    assert end.value.code in (0, None)
    script = capsys.readouterr().out
    assert all(command in script for command in completion.option_classes())
    assert "--n-episodes" in script
    assert set(cli.COMMANDS) - set(completion.option_classes()) == {"config"}
    assert all(dataclasses.is_dataclass(options) for options in completion.option_classes().values())
