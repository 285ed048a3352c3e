"""What to say when the runtime ends this process.

When a peer dies, JAX's coordination service aborts the other processes, and no Python of theirs runs any more. A tiny
process beside each of them waits at a pipe for that moment: it tells the user what has happened and what to do.
"""

import atexit
import subprocess
import sys

_LISTEN = """
import sys
heard = sys.stdin.read().splitlines()
if heard and heard[-1] != ".":
    print(heard[-1], file=sys.stderr, flush=True)
"""


class AbortNotice:
    """Prints the latest line to stderr when this process ends without having called `withdraw`.

    A normal end, an uncaught exception included, withdraws it; SIGKILL and aborts do not.
    """

    def __init__(self) -> None:
        self._listener = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LISTEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C and signals to the group are not for it
        )
        self._is_open = True
        atexit.register(self.withdraw)

    def leave(self, line: str) -> None:
        """Sets what will be printed."""
        self._write(line + "\n")

    def withdraw(self) -> None:
        """Lets this process end without a word."""
        if self._is_open:
            self._is_open = False
            self._write(".\n")
            assert self._listener.stdin is not None
            self._listener.stdin.close()
            self._listener.wait()

    def _write(self, text: str) -> None:
        assert self._listener.stdin is not None
        try:
            self._listener.stdin.write(text.encode())
            self._listener.stdin.flush()
        except OSError:  # somebody has ended the listener: there is nobody to tell
            return
