"""How a handler says no: an errno for the caller, a reason for whoever reads the trace."""

from __future__ import annotations

import errno as _errno
import os


class KvmVfioEmuError(Exception):
    """Root of the package's own errors: a wrong use of the emulator, never an answer of the emulated kernel."""


class KernelError(Exception):
    """The emulated kernel answers a call with ``-errno``.

    ``errno`` (int) is what the caller sees; ``reason`` (str) names the clause that was broken and goes to the
    trace. A door turns this into its own form of failure: `oserror` in process, a negative result elsewhere.
    """

    def __init__(self, errno: int, reason: str) -> None:
        super().__init__(errno, reason)
        self.errno = errno
        self.reason = reason

    def oserror(self) -> OSError:
        """The same answer as Python callers of a real kernel get it, with the reason as a note."""
        error = OSError(self.errno, os.strerror(self.errno))  # OSError picks FileExistsError and the like
        error.add_note(f"emulated kernel: {self.reason}")
        return error

    def __str__(self) -> str:
        return f"{_errno.errorcode.get(self.errno, self.errno)}: {self.reason}"
