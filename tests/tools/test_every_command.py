"""Every command, as a program of its own: read in part, without a display, where nothing can be written, stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simscaleai_jax.tools import cli

SIMSCALE = (sys.executable, "-c", "import sys; from simscaleai_jax.tools import cli; sys.exit(cli.main())")
HIDDEN = {"DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"}
# What writes, with BLOCKED for a path below a file, where no folder can be made; CHECKPOINT and DATA exist.
WRITING = {
    "demo": ("--output", "BLOCKED"),
    "rl": ("ppo_reach", "--output", "BLOCKED"),
    "train": ("--dataset", "DATA", "--checkpoint-dir", "BLOCKED"),
    "recipe": ("bc_reach", "--folder", "BLOCKED"),
    "dagger": ("CHECKPOINT", "--output", "BLOCKED"),
    "launch": ("--num-processes", "1", "--", "rl", "ppo_reach", "--distributed", "--output", "BLOCKED"),
    "eval": ("CHECKPOINT", "--output", "BLOCKED.json"),
    "transfer": ("CHECKPOINT", "--output", "BLOCKED"),
    "datagen": ("--output", "BLOCKED.h5"),
    "merge": ("BLOCKED.h5", "DATA"),
    "export-dataset": ("DATA", "BLOCKED", "--to", "lerobot"),
    "viz-env": ("--save", "BLOCKED.png"),
    "viz-cameras": ("--save", "BLOCKED.png"),
    "viz-dataset": ("DATA", "--save", "BLOCKED.png"),
    "viz-trajectory": ("DATA", "--save", "BLOCKED.png"),
    "export": ("CHECKPOINT", "--output", "BLOCKED.safetensors"),
    "import": ("EXPORTED", "--output", "BLOCKED"),
}
# What works for longer than a moment, so that it can be stopped; the others read or print.
LONG = {
    "demo": ("--output", "NEW"),
    "rl": ("ppo_reach", "--output", "NEW"),
    "train": ("--dataset", "DATA", "--max-steps", "1000000", "--checkpoint-dir", "NEW"),
    "recipe": ("diffusion_pick_place", "--folder", "NEW"),
    "launch": ("--num-processes", "1", "--", "rl", "ppo_reach", "--distributed", "--output", "NEW"),
    "plan": ("ppo_reach", "--topology", "cpu:8"),
    "eval": ("CHECKPOINT", "--n-episodes", "100000", "--physics", "host"),
    "transfer": ("CHECKPOINT", "--n-episodes", "100000", "--output", "NEW"),
    "datagen": ("--n-episodes", "10000000", "--output", "NEW.h5"),
    "viz-env": ("--n-steps", "100000", "--save", "NEW.mp4"),
    "doctor": (),
    "bench": ("ppo_ablation", "--results", "NEW"),
}
QUIET = {"config": ("show", "rl"), "completion": ("bash",), "list-envs": (), "list-robots": (), "list-models": ()}
# These show a window or a page: test_viz_commands and test_view look at them.
SHOWING = ("view", "viz-live")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Paths by their names in the commands: a checkpoint, its export, demonstrations, a place that holds nothing."""
    folder = tmp_path_factory.mktemp("made")
    data, checkpoint, exported = folder / "data.h5", folder / "run", folder / "policy.safetensors"
    assert cli.main(["datagen", "--n-episodes", "4", "--max-steps", "10", "--output", str(data)]) == 0
    training = ("--max-steps", "2", "--batch-size", "8", "--checkpoint-dir", str(checkpoint))
    assert cli.main(["train", "--dataset", str(data), *training]) == 0
    assert cli.main(["export", str(checkpoint), "--output", str(exported)]) == 0
    (folder / "file").write_text("not a folder")
    names = {"DATA": data, "CHECKPOINT": checkpoint, "EXPORTED": exported, "BLOCKED": folder / "file" / "below"}
    return {name: str(path) for name, path in names.items()}


def start(name, words, paths, **options):
    """The command as a process, in a session of its own as a terminal would have it."""
    for mark, path in paths.items():
        words = [word.replace(mark, path) for word in words]
    hidden = {key: value for key, value in os.environ.items() if key not in HIDDEN}
    return subprocess.Popen(
        [*SIMSCALE, name, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=hidden,
        start_new_session=True, **options,
    )  # fmt: skip


def said(text: str) -> list[str]:
    """Lines of stderr that are the command's last word: neither progress nor libraries' notes."""
    return [line for line in text.splitlines() if line.removeprefix("[0] ").startswith(("simscale ", "Ctrl-C: saved"))]


def test_every_command_is_tried():
    assert {*WRITING, *LONG, *QUIET, *SHOWING} == set(cli.COMMANDS)


@pytest.mark.wide
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_may_be_read_in_part(name):
    process = start(name, ["--help"], {})
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == cli.BROKEN_PIPE
    assert errors == ""


@pytest.mark.wide
@pytest.mark.parametrize("name", QUIET)
def test_what_only_prints_works_without_a_display(name):
    process = start(name, QUIET[name], {})
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output


@pytest.mark.wide
@pytest.mark.parametrize("name", WRITING)
def test_a_folder_that_cannot_be_written_is_said_at_once(name, made, tmp_path):
    started = time.monotonic()
    process = start(name, WRITING[name], made, cwd=tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, output + errors
    lines = said(errors)
    assert lines, errors
    assert "Traceback" not in errors
    assert made["BLOCKED"].rsplit("/", 1)[0] in lines[-1], "the place is named"
    assert time.monotonic() - started < 60, "before anything expensive"


@pytest.mark.wide
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_ends_a_command_with_one_line(name, made, tmp_path):
    process = start(name, LONG[name], made | {"NEW": str(tmp_path / "new")}, cwd=tmp_path)
    time.sleep(8)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT, output + errors
    assert "Traceback" not in errors, errors
    assert len(said(errors)) == 1, errors
