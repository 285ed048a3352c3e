"""The words that outlive their process."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal
from simscaleai_jax.core.abort_notice import AbortNotice

words = AbortNotice()
words.leave("not this")
words.leave("farewell")
{end}
"""


def stderr_of(end: str) -> str:
    result = subprocess.run([sys.executable, "-c", PROGRAM.format(end=end)], capture_output=True, text=True, timeout=60)
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()", "os._exit(1)"])
def test_they_are_heard_when_python_has_no_say(end):
    assert stderr_of(end) == "farewell\n"


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "words.withdraw(); os._exit(1)"])
def test_they_are_not_when_it_ends_by_itself(end):
    assert stderr_of(end) == ""


def test_an_exception_speaks_for_itself():
    assert "farewell" not in stderr_of("raise ValueError('wrong')")
