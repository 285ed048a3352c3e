"""Runs over real processes: train together, save together, are killed, are started again and end the same."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simscaleai_jax.core import checkpoint, distributed, flat_tree
from simscaleai_jax.tools.commands.launch import LaunchOptions, free_port, launch

from .conftest import same

BC = [
    "train", "--distributed", "--max-steps", "600", "--save-every", "50", "--log-every", "50", "--warmup-steps", "5",
    "--model.hidden-dim", "16", "--model.n-layers", "1", "--keep-checkpoints", "2",
]  # fmt: skip
PPO = [
    "rl", "--distributed", "--env.dt", "0.01", "--ppo.num-envs", "16", "--ppo.n-steps", "128",
    "--ppo.num-minibatches", "2", "--ppo.n-epochs", "2", "--ppo.hidden-dim", "16", "--ppo.updates-per-dispatch", "1",
    "--total-steps", "7680", "--num-checkpoints", "30",
]  # fmt: skip
RUNS = {"bc": (BC, "--checkpoint-dir"), "ppo": (PPO, "--output")}
SECONDS = 480


# The programs are compiled anew in most processes and then run for seconds.
ENVIRONMENT = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """`simscale` with these arguments."""
    command = [sys.executable, "-m", "simscaleai_jax.tools.cli", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | ENVIRONMENT | environment, **pipes)


class Run:
    """`simscale launch` with two processes of two CPU devices each."""

    def __init__(self, kind: str, folder: Path) -> None:
        command, where = RUNS[kind]
        launcher = ["launch", "--num-processes", "2", "--devices-per-process", "2", "--"]
        self.folder = folder
        self.process = start(*launcher, *command, where, str(folder))

    def wait_for_checkpoints(self, count: int) -> None:
        """Returns when that many have been completed since the run began; a failed run is an error."""
        deadline = time.monotonic() + SECONDS
        before = {path.name for path in self.folder.glob("step_*")}
        names: set[str] = set()
        while len(names) < count:
            names |= {path.name for path in self.folder.glob("step_*") if (path / checkpoint.MANIFEST).is_file()}
            names -= before
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.process.communicate()[0])
            time.sleep(0.02)

    def children(self) -> list[int]:
        """Process ids of the two workers."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def finish(self) -> tuple[int, str]:
        """(status, everything printed)."""
        output = self.process.communicate(timeout=SECONDS)[0]
        return self.process.returncode, output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """kind -> folder of a run that nobody disturbed."""
    done = {}

    def get(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            status, output = Run(kind, folder).finish()
            assert status == 0, output
            done[kind] = folder
        return done[kind]

    return get


@pytest.fixture
def own_signals():
    """Gives back the signals that `launch` takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def newest(folder: Path) -> Path:
    return sorted(folder.glob("step_*"))[-1]


def assert_same_end(first: Path, second: Path) -> None:
    assert newest(first).name == newest(second).name
    trees = [flat_tree.host_arrays(checkpoint.load(newest(folder))[0]) for folder in (first, second)]
    assert list(trees[0]) == list(trees[1])
    different = [name for name in trees[0] if not same(trees[0][name], trees[1][name])]
    assert not different


@pytest.mark.wide
@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_was_killed_and_stopped_ends_like_one_that_was_not(kind, uninterrupted, tmp_path):
    folder = tmp_path / kind
    killed = Run(kind, folder)
    killed.wait_for_checkpoints(2)
    os.kill(killed.children()[1], signal.SIGKILL)
    status, output = killed.finish()
    assert status == 137
    assert re.search(r"process 1 ended with status -9; .* Start the same command again", output), output
    first = newest(folder).name
    assert first < newest(uninterrupted(kind)).name, "it was killed in the middle"

    stopped = Run(kind, folder)
    stopped.wait_for_checkpoints(2)
    stopped.process.send_signal(signal.SIGTERM)
    status, output = stopped.finish()
    assert status == 143, output
    assert len(re.findall(r"SIGTERM: saved .* Start the same command again", output)) == 2
    assert first < newest(folder).name < newest(uninterrupted(kind)).name, "it went on, and was stopped in the middle"

    status, output = Run(kind, folder).finish()
    assert status == 0, output
    assert_same_end(uninterrupted(kind), folder)


@pytest.mark.wide
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_peer_is_explained_without_a_launcher(victim, tmp_path):
    address = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2", "--lost-peer-seconds", "10"]
    command = [*BC, "--max-steps", "1000000", "--checkpoint-dir", str(tmp_path), *address]
    peers = [start(*command, "--process-id", str(index)) for index in range(2)]
    deadline = time.monotonic() + SECONDS
    while not list(tmp_path.glob("step_*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    peers[victim].kill()
    outputs = [peer.communicate(timeout=SECONDS)[0] for peer in peers]
    assert peers[1 - victim].returncode not in (0, 143)
    survivor = outputs[1 - victim]
    wanted = (
        r"simscale: Process {} (was ended|lost a peer).*Start all 2 processes again; the run continues from its last"
    )
    assert re.search(wanted.format(1 - victim), survivor), survivor
    assert re.search(wanted.format(victim), outputs[victim]), "one that was killed says so, too"


LATE = """
import time
import jax
import numpy as np
from simscaleai_jax.core import distributed, sharding

distributed.initialize()
mesh = sharding.make_mesh()
total = jax.shard_map(
    lambda x: jax.lax.psum(x.sum(), sharding.AXIS), mesh=mesh, in_specs=sharding.BATCH, out_specs=sharding.REPLICATED
)
rows = sharding.put_batch(np.arange(4.0, dtype=np.float32), mesh)
time.sleep(35 * jax.process_index())
print("total", int(distributed.compile_together(jax.jit(total).lower(rows))(rows)))
"""


@pytest.mark.wide
def test_a_process_that_compiles_longer_is_waited_for(capfd, monkeypatch, own_signals):
    """Gloo alone gives up after 30 s."""
    monkeypatch.setenv("XLA_FLAGS", "")
    status = launch(LaunchOptions(2, 2), [sys.executable, "-c", LATE])
    output = capfd.readouterr().out
    assert status == 0, output
    assert sorted(re.findall(r"\[(\d)\] total (\d+)", output)) == [("0", "6"), ("1", "6")]


PATIENT = """
import os, signal, sys
from simscaleai_jax.core import distributed

distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), lost_peer_seconds=10)
import jax
jax.devices()
if jax.process_index():
    os.kill(os.getpid(), signal.SIGKILL)
try:
    distributed.barrier("those that are done wait", 7 * 24 * 3600)
except distributed.PeerLostError as error:
    distributed.leave_broken_run(error)
"""


@pytest.mark.wide
def test_nobody_waits_for_a_dead_process_at_the_end():
    address = f"127.0.0.1:{free_port()}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command, environment = [sys.executable, "-c", PATIENT, address], os.environ | ENVIRONMENT
    peers = [subprocess.Popen([*command, str(index)], env=environment, **pipes) for index in range(2)]
    began = time.monotonic()
    survivor = peers[0].communicate(timeout=SECONDS)[0]
    peers[1].communicate()
    assert time.monotonic() - began < 90
    assert peers[0].returncode not in (0, 143)
    assert "Start all 2 processes again; the run continues from its last complete save" in survivor


@pytest.mark.parametrize("given", [{"coordinator": "a:1"}, {"num_processes": 2, "process_id": 0}])
def test_half_of_the_addresses_is_an_error(given):
    with pytest.raises(ValueError, match=r"is missing: give all of --coordinator, --num-processes, --process-id"):
        distributed.initialize(**given)


def test_launch_gives_each_process_its_place(capfd, own_signals):
    code = "import os; print(*(os.environ[n] for n in ('SIMSCALE_PROCESS_ID', 'SIMSCALE_NUM_PROCESSES', 'XLA_FLAGS')))"
    status = launch(LaunchOptions(2, 3, free_port()), [sys.executable, "-c", code])
    lines = sorted(capfd.readouterr().out.splitlines())
    assert status == 0
    assert [line[:7] for line in lines] == ["[0] 0 2", "[1] 1 2"]
    assert all(line.endswith("device_count=3") for line in lines)


def test_launch_needs_a_command_and_a_size():
    from simscaleai_jax.tools.commands.launch import main

    with pytest.raises(ValueError, match="No command"):
        main(["--num-processes", "2"])
    with pytest.raises(ValueError, match="must be at least 1"):
        LaunchOptions(num_processes=0)


def test_errors_of_a_dead_peer_are_recognised(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(distributed.PeerLostError, match="Start all 2 processes again"), distributed.peer_errors():
        raise RuntimeError("Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:3")
    with pytest.raises(ValueError, match="batch of 3"), distributed.peer_errors():
        raise ValueError("batch of 3 does not split")
