"""A child process that plays programs: one that dies or hangs is told with its program, and the next gets another."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from programs.model import Steps

#: No program takes as long: each KVM_RUN ends by a timer.
SECONDS = 60
IN_PROCESS = (sys.executable, str(Path(__file__).with_name("play.py")))


class Died(AssertionError):
    """The player did not answer."""


class Player:
    """Starts ``command`` when it is first needed, and again after it has died."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def play(self, program: Steps) -> list[str]:
        """The answers. `Died`."""
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(program.text.encode())
            child.stdin.flush()
            answers = self._answers(child.stdout.fileno())
        except BrokenPipeError:
            answers = None
        if answers is None:
            raise Died(self._post_mortem(program))
        return answers

    def close(self) -> int | None:
        """End it; its exit status."""
        child, self._child = self._child, None
        if child is None:
            return None
        child.communicate(timeout=SECONDS)
        self._said()
        return child.returncode

    def _start(self) -> subprocess.Popen[bytes]:
        pipe, self._errors = subprocess.PIPE, tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        environment = os.environ | {"PYTHONFAULTHANDLER": "1"}  # it says where it hangs when it is aborted
        self._child = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._errors, env=environment)
        return self._child

    @staticmethod
    def _answers(fd: int) -> list[str] | None:
        """Lines until an empty one; None: there will be none."""
        raw = b""
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while not raw.endswith(b"\n\n"):
                more = os.read(fd, 1 << 16) if selector.select(SECONDS) else b""
                if not more:
                    return None
                raw += more
        return raw.decode().splitlines()[:-1]

    def _post_mortem(self, program: Steps) -> str:
        child, self._child = self._child, None
        assert child is not None
        try:
            status = f"ended with {child.wait(1)}"
        except subprocess.TimeoutExpired:
            status = "hangs"
            child.send_signal(signal.SIGABRT)
        child.communicate()
        return f"the player {status}; it said:\n{self._said()[-4000:]}\nwhile it played:\n{program.text}"

    def _said(self) -> str:
        """What it wrote to standard error, which is then forgotten."""
        assert self._errors is not None
        with self._errors as errors:
            errors.seek(0)
            return errors.read().decode(errors="replace")
