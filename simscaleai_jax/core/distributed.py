"""One run over several processes: start, barriers with timeouts, and words for a peer that is gone.

TPU pods, Slurm, Kubernetes and Open MPI fill in who is who by themselves; `simscale launch` does it through environment
variables for processes of one machine; anything else says it with options. `initialize` must run before JAX is used.
"""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simscaleai_jax.core.abort_notice import AbortNotice

COORDINATOR, NUM_PROCESSES, PROCESS_ID = "SIMSCALE_COORDINATOR", "SIMSCALE_NUM_PROCESSES", "SIMSCALE_PROCESS_ID"
NUM_THREADS = "SIMSCALE_NUM_THREADS"  # that simulations of one process may use
CPU_COLLECTIVES = ("gloo", "mpi")
START_SECONDS = 120
LOST_PEER_SECONDS = 60
COMPILE_SECONDS = 3600
LOST_PEER_STATUS = 75  # EX_TEMPFAIL: starting the job again is the right answer

# What XLA, gloo, NCCL and the coordination service say when a process has died.
PEER_ERRORS = re.compile(
    r"gloo|nccl.*(remote|abort)|connection (reset|closed|refused)|broken pipe|socket closed|heartbeat|unavailable"
    r"|deadline.?exceeded|barrier|coordination service|preempted|peer",
    re.IGNORECASE,
)


_barriers = itertools.count()  # the service wants a new name for every barrier
_abort_notices: list[AbortNotice] = []  # of this process, once it has joined a run


class PeerLostError(RuntimeError):
    """Another process of this run has died or hangs; the run has to be started again and then resumes."""


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    backend: str = "auto",
    timeout_s: int = START_SECONDS,
    lost_peer_seconds: int = LOST_PEER_SECONDS,
) -> None:
    """Joins this process to the run; needs no argument where a scheduler or `simscale launch` started it.

    Args:
      coordinator: "host:port" of process 0, the same everywhere.
      num_processes: processes of the run.
      process_id: 0 to num_processes - 1.
      backend: "gloo" or "mpi" choose how CPUs exchange data; anything else leaves it to JAX.
      timeout_s: how long to wait for the other processes.
      lost_peer_seconds: how long a process may be silent before it counts as lost.
    Raises:
      ValueError: only some of the three are given, none can be found out, or JAX has been used before.
      PeerLostError: the other processes did not come in time.
    """
    import jax

    if jax.distributed.is_initialized():
        return
    given = _with_environment(coordinator, num_processes, process_id)
    if backend in CPU_COLLECTIVES:
        jax.config.update("jax_cpu_collectives_implementation", backend)
    notice = AbortNotice()
    try:
        jax.distributed.initialize(
            *given, initialization_timeout=timeout_s, heartbeat_timeout_seconds=lost_peer_seconds,
            shutdown_timeout_seconds=lost_peer_seconds,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(
            f"No cluster was found to join ({error}) Give --coordinator HOST:PORT --num-processes N --process-id I, or "
            "start the processes with `simscale launch`."
        ) from None
    except RuntimeError as error:
        if "before" in str(error) and "initialize" in str(error):
            raise ValueError("core.distributed.initialize must run before anything else uses JAX.") from error
        raise PeerLostError(
            f"The other processes did not join within {timeout_s} s at {given[0] or 'the coordinator'}. Are all of "
            f"them running, with the same address and num_processes? ({_first_line(error)})"
        ) from error
    notice.leave(
        f"simscale: Process {jax.process_index()} was ended. JAX does that when it has lost a peer; or something has "
        f"killed this process itself. {_what_to_do()}"
    )
    _abort_notices.append(notice)


def check_started() -> None:
    """Raises a ValueError where a run is configured as distributed and `initialize` has not been called."""
    import jax

    if not jax.distributed.is_initialized():
        raise ValueError(
            "TrainConfig.distributed is set, but this process has not joined a run: call "
            "simscaleai_jax.core.distributed.initialize() first of all, or use `simscale train --distributed`."
        )


def is_main() -> bool:
    """Whether this is process 0, the one that logs and writes."""
    import jax

    return jax.process_index() == 0


def barrier(name: str, timeout_s: float) -> None:
    """Waits for all processes; each must call it equally often.

    Raises:
      PeerLostError: some process did not arrive in time.
    """
    import jax

    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost

    try:
        sync = multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        sync(key=f"simscale {next(_barriers)}: {name}", timeout_ms=int(timeout_s * 1000))
    except Exception as error:
        if not _is_peer_error(error):
            raise
        raise lost_peer(f"not all {jax.process_count()} processes reached {name!r} within {timeout_s:g} s") from error


def agree(value: int) -> int:
    """Process 0's value, in every process."""
    import jax

    if jax.process_count() == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    halves = np.array(divmod(int(value), 2**31), np.int32)  # a run has more steps than an int32 can count
    high, low = multihost_utils.broadcast_one_to_all(halves)
    return int(high) * 2**31 + int(low)


def compile_together(lowered: Any) -> Any:
    """Compiles a program of all processes and returns when each of them has.

    Collectives give their peers only seconds to show up at the first call (gloo: 30), and one process may compile far
    longer than another: on CPUs, only process 0 finds the program in the persistent cache.
    """
    program = lowered.compile()
    barrier("compiled", COMPILE_SECONDS)
    return program


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turns what the runtime raises when a peer dies into a `PeerLostError`."""
    import jax

    try:
        yield
    except (RuntimeError, ValueError) as error:
        is_known = isinstance(error, PeerLostError)
        if is_known or jax.process_count() == 1 or not _is_peer_error(error):
            raise
        raise lost_peer(_first_line(error)) from error


def lost_peer(reason: str) -> PeerLostError:
    """The error that tells a user what happened and what to do."""
    import jax

    return PeerLostError(
        f"Process {jax.process_index()} lost a peer: {reason}. The run cannot go on without it. {_what_to_do()}"
    )


def _what_to_do() -> str:
    import jax

    return f"Start all {jax.process_count()} processes again; the run continues from its last complete save."


def leave_broken_run(error: PeerLostError) -> None:
    """Ends this process at once: a clean exit would wait for the dead peer."""
    import sys

    print(f"simscale: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    for notice in _abort_notices:
        notice.withdraw()
    os._exit(LOST_PEER_STATUS)


def _with_environment(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> tuple[str | None, int | None, int | None]:
    """Options, or what `simscale launch` has put into the environment; all three or none."""
    given = (coordinator, num_processes, process_id)
    if all(value is None for value in given) and COORDINATOR in os.environ:
        return os.environ[COORDINATOR], int(os.environ[NUM_PROCESSES]), int(os.environ[PROCESS_ID])
    if None in given and any(value is not None for value in given):
        names = ("--coordinator", "--num-processes", "--process-id")
        missing = [name for name, value in zip(names, given, strict=True) if value is None]
        raise ValueError(f"{' and '.join(missing)} is missing: give all of {', '.join(names)}, or none of them.")
    return given


def _is_peer_error(error: Exception) -> bool:
    return bool(PEER_ERRORS.search(str(error)))


def _first_line(error: Any) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:300]
