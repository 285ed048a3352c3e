"""SIGTERM, which schedulers send before they take a machine away: save, say so, leave; a restart goes on.

In a run over several processes JAX's preemption service hears the signal and makes all of them stop at the same call of
`is_requested`, whichever of them got it.
"""

import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

EXIT_STATUS = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """Training was asked to stop and has saved; uncaught, it ends the program with status 143."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_STATUS)
        self.message = message

    def __str__(self) -> str:
        return self.message


class PreemptionWatch:
    """Watches for SIGTERM inside a `with` block."""

    def __init__(self) -> None:
        self._heard = False
        self._calls = 0
        self._before: Any = None
        self._is_installed = False

    def __enter__(self) -> Self:
        import jax

        is_main_thread = threading.current_thread() is threading.main_thread()  # the only one that may set handlers
        if jax.process_count() == 1 and is_main_thread:
            self._before = signal.signal(signal.SIGTERM, self._hear)
            self._is_installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGTERM, self._before)
            self._is_installed = False

    def is_requested(self) -> bool:
        """Whether to save and stop now; every process must call it equally often."""
        import jax

        if jax.process_count() == 1:
            return self._heard
        from jax.experimental import multihost_utils

        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self._heard = True


def stop(where: str, how: str = "") -> Preempted:
    """Prints that the run was saved and how to start it again, and returns the exception to raise."""
    message = f"SIGTERM: saved {where} and stopped. Start the same command again {how}to continue."
    print(message, file=sys.stderr, flush=True)
    return Preempted(message)
