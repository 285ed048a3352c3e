"""SIGTERM, which schedulers send before they take a machine away, and Ctrl-C: save, say so, leave; a restart goes on.

In a run over several processes JAX's preemption service hears the signal and makes all of them stop at the same call of
`is_requested`, whichever of them got it.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

EXIT_STATUS = 128 + signal.SIGTERM
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Preempted(SystemExit):
    """Training was asked to stop and has saved; uncaught, it ends the program with status 143 (130 after Ctrl-C)."""

    def __init__(self, message: str, status: int = EXIT_STATUS) -> None:
        super().__init__(status)
        self.message = message

    def __str__(self) -> str:
        return self.message


class PreemptionWatch:
    """Watches for SIGTERM and Ctrl-C inside a `with` block. A second Ctrl-C is the usual KeyboardInterrupt."""

    def __init__(self) -> None:
        self._heard: int | None = None
        self._calls = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        import jax

        if threading.current_thread() is not threading.main_thread():  # the only one that may set handlers
            return self
        hear = self._hear if jax.process_count() == 1 else self._pass_on
        numbers = NAMES if jax.process_count() == 1 else [signal.SIGINT]  # the service has the other one
        self._before = {number: signal.signal(number, hear) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def is_requested(self) -> bool:
        """Whether to save and stop now; every process must call it equally often."""
        import jax

        if jax.process_count() == 1:
            return self._heard is not None
        from jax.experimental import multihost_utils

        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)

    def stop(self, where: str) -> Preempted:
        """Prints that the run was saved and how to start it again, and returns the exception to raise."""
        number = self._heard or signal.SIGTERM
        message = (
            f"{NAMES[signal.Signals(number)]}: saved {where} and stopped. Start the same command again to continue."
        )
        print(message, file=sys.stderr, flush=True)
        return Preempted(message, 128 + number)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT:
            if self._heard is not None:
                raise KeyboardInterrupt
            print("Ctrl-C: saving after this update. Once more leaves at once.", file=sys.stderr, flush=True)
        self._heard = signum

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
