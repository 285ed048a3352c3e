"""Ctrl-C ends a command with one line wherever it strikes."""

import gc
import os
import signal
import subprocess
import sys
import time
import types

import jax
import pytest

from simscaleai_jax.tools import cli
from simscaleai_jax.tools.commands import bench
from simscaleai_jax.tools.commands.launch import LaunchOptions, launch

SECONDS = 60


def in_a_collection() -> None:
    def strike(*_: object) -> None:
        gc.callbacks.remove(strike)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(strike)
    gc.collect()


def in_a_destructor() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    Dying()


def in_a_callback_of_a_program() -> None:
    def strike(x):
        signal.raise_signal(signal.SIGINT)
        return x

    jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(strike, x, x))(1.0))


def while_an_error_is_handled() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise RuntimeError("the runtime's own error") from error


@pytest.fixture
def command(monkeypatch):
    """Makes a function the main of a command, and gives the command's name."""

    def make(main):
        monkeypatch.setitem(sys.modules, "works", types.SimpleNamespace(main=main))
        monkeypatch.setitem(cli.COMMANDS, "config", ("works", "", ""))
        return "config"

    return make


@pytest.mark.parametrize(
    "strike", [in_a_collection, in_a_destructor, in_a_callback_of_a_program, while_an_error_is_handled]
)
def test_it_ends_the_command(strike, command, capfd):
    def main(argv):
        strike()
        time.sleep(SECONDS)

    name = command(main)
    before = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    assert cli.main([name]) == 128 + signal.SIGINT
    output = capfd.readouterr()
    assert output.err.splitlines()[-1] == "simscale config: interrupted"
    assert "Traceback" not in output.out
    assert (sys.unraisablehook, signal.getsignal(signal.SIGINT)) == before


def test_another_error_is_not_taken_for_it(command):
    def main(argv):
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        cli.main([command(main)])


@pytest.mark.wide
def test_what_a_benchmark_started_ends_with_it(tmp_path):
    started = tmp_path / "started"
    inner = f"import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep({SECONDS})"
    outer = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', *sys.argv[1:]])"
    with pytest.raises(subprocess.TimeoutExpired):
        bench.run_group([sys.executable, "-S", "-c", outer, inner, str(started)], 3.0)
    assert started.exists()
    deadline = time.monotonic() + 10  # for the system to clear away what was killed
    while (left := [line for line in processes() if str(started) in line]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def processes() -> list[str]:
    """Command lines of everything that runs."""
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                lines.append(file.read())
        except OSError:
            continue
    return lines


def test_a_lost_process_is_named_rather_than_those_that_noticed(capfd):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    code = (
        "import os, time; late = os.environ['SIMSCALE_PROCESS_ID'] == '1'; "
        "time.sleep(0.3 * late); os._exit(3 if late else 75)"
    )
    try:
        status = launch(LaunchOptions(3, 1), [sys.executable, "-S", "-c", code])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert status == 3
    assert "process 1 ended with status 3" in capfd.readouterr().out
