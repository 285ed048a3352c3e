"""`simscale launch`: start a command as several processes of this machine that work together."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Any, TextIO

from simscaleai_jax.core import distributed
from simscaleai_jax.tools.arguments import parse

DESCRIPTION = """Start a simscale command as several processes of this machine, for tests and for trying out a cluster's
command. Each process gets --devices-per-process virtual CPU devices unless --device of the command says otherwise.

Processes find each other by themselves; SIGTERM and Ctrl-C are passed on to all of them. When one dies the others are
ended, too: start the same command again to resume.

Examples:
  simscale launch --num-processes 2 -- train --distributed --dataset data/reach.h5
  simscale launch --num-processes 2 --devices-per-process 2 -- rl --distributed --config configs/ppo_reach.yaml
  simscale launch --num-processes 2 -- datagen --distributed --policy scripted --n-episodes 1000"""

PREEMPTED = 128 + signal.SIGTERM  # all have saved and are about to leave
SETTLE_SECONDS = 0.5  # for a process that others saw dying to be gone, so that it is named and not they
GRACE_SECONDS = 20.0  # for the others to notice that a process is gone, and to say so


@dataclasses.dataclass(frozen=True)
class LaunchOptions:
    """Options of `simscale launch`; the command follows, after "--" if you like.

    Attributes:
      num_processes: processes to start.
      devices_per_process: CPU devices of each.
      port: of process 0; default: a free one.
    """

    num_processes: int = 2
    devices_per_process: int = 1
    port: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_processes", "devices_per_process"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}.")


def main(argv: list[str]) -> None:
    """Splits the command line and runs the command."""
    own, command = split(argv)
    options = parse(LaunchOptions, own, "launch", DESCRIPTION)
    if not command:
        raise ValueError("No command: simscale launch --num-processes 2 -- train --distributed ...")
    if status := launch(options, [sys.executable, "-m", "simscaleai_jax.tools.cli", *command]):
        sys.exit(status)


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """(options of `launch`, the command): at "--", or without it where the name of a command stands."""
    from simscaleai_jax.tools.cli import COMMANDS

    if "--" in argv:
        at = argv.index("--")
        return argv[:at], argv[at + 1 :]
    at = next((i for i, word in enumerate(argv) if word in COMMANDS), len(argv))
    return argv[:at], argv[at:]


def launch(options: LaunchOptions, command: list[str]) -> int:
    """Runs `command` in every process until all have ended; returns the first status that is not 0."""
    port = options.port or free_port()
    processes = [_start(options, command, index, port) for index in range(options.num_processes)]
    printers = [printer for index, process in enumerate(processes) for printer in _print_lines(index, process)]
    _pass_signals_on(processes)
    status = _wait(processes)
    for printer in printers:
        printer.join()
    return status


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(options: LaunchOptions, command: list[str], index: int, port: int) -> subprocess.Popen:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={options.devices_per_process}"
    environment = os.environ | {
        distributed.COORDINATOR: f"127.0.0.1:{port}",
        distributed.NUM_PROCESSES: str(options.num_processes),
        distributed.PROCESS_ID: str(index),
        "XLA_FLAGS": flags.strip(),
        distributed.NUM_THREADS: _threads(options.num_processes),
    }
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A session of its own: Ctrl-C reaches it once, from here, and not a second time from the terminal.
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def _threads(num_processes: int) -> str:
    """What each process may use of the cores for simulations."""
    given = os.environ.get(distributed.NUM_THREADS)
    return given or str(max(1, (os.cpu_count() or 1) // num_processes))


def _print_lines(index: int, process: subprocess.Popen) -> list[threading.Thread]:
    """Passes both of a process's streams on, each line with its number."""

    def copy(stream: IO[str], to: TextIO) -> None:
        for line in stream:
            print(f"[{index}] {line}", end="", file=to, flush=True)

    streams = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    threads = [threading.Thread(target=copy, args=pair, daemon=True) for pair in streams]
    for thread in threads:
        thread.start()
    return threads


def _pass_signals_on(processes: list[subprocess.Popen]) -> None:
    def forward(signum: int, _: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signum)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)


def _wait(processes: list[subprocess.Popen]) -> int:
    """Waits for all; when one fails, gives the others some time and then ends them."""
    deadline, first = None, 0
    while None in [process.poll() for process in processes]:
        if deadline is None and _failures(processes):
            time.sleep(SETTLE_SECONDS)
            deadline = time.monotonic() + GRACE_SECONDS
            index, first = _failures(processes)[0]
            print(
                f"simscale launch: process {index} ended with status {first}; the others cannot go on without it and "
                f"end within {GRACE_SECONDS:g} s. Start the same command again: the run continues from its last "
                "complete save.",
                flush=True,
            )
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    failed = [status for _, status in _failures(processes)]
    first = first or next(iter(failed), max(process.returncode for process in processes))
    return 128 - first if first < 0 else first


def _failures(processes: list[subprocess.Popen]) -> list[tuple[int, int]]:
    """(process, status) of those that have failed so far; those that only left because they lost another come last."""
    ended = [(index, process.poll()) for index, process in enumerate(processes)]
    failed = [(index, status) for index, status in ended if status not in (None, 0, PREEMPTED)]
    return sorted(failed, key=lambda pair: pair[1] == distributed.LOST_PEER_STATUS)
