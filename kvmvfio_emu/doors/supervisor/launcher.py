"""Starts the program: a child that installs the filter, tells of its listener, waits, and becomes the program.

A fork of the supervisor, since a second interpreter takes longer to start than our kernel to boot. Once the filter
is installed each open of the child waits for us while we wait for the child, so everything that may open a file is
done before the fork; what is left are system calls.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from kvmvfio_emu.kernel.errors import KvmVfioEmuError

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SET_MODE_FILTER = 1
_INSTRUCTION = 8  # bytes
_SYS_PIDFD_GETFD = 438
_FAILED = 125  #: exit status of a child that did not get as far as its exec
_REPORT = struct.Struct("ii")  #: errno, number of the listener; then the name of the call that failed
_ADVICE = {
    errno.EBUSY: "a supervisor is active already (a nested run, or a container that uses one); run outside of it",
    errno.EPERM: "forbidden here; a container needs a seccomp profile that allows seccomp(2) and pidfd_getfd(2)",
    errno.EACCES: "forbidden here; a container needs a seccomp profile that allows seccomp(2)",
    errno.ENOSYS: "the host's kernel has no seccomp filters",
}

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(KvmVfioEmuError):
    """The host forbids it: ``call`` failed with errno ``error``."""

    def __init__(self, call: str, error: int) -> None:
        super().__init__(f"{call}: {os.strerror(error)}: {_ADVICE.get(error, 'the program cannot be supervised here')}")
        self.error = error


class Program:
    """The process of the supervised program: `Launcher.start` made it, it waits for `go`."""

    def __init__(self, pid: int, gate: int) -> None:
        self._pid = pid
        self._gate = gate
        # Not the number: once it was waited for, that may be somebody else's.
        self.pidfd = os.pidfd_open(pid)

    def go(self) -> None:
        """Let it exec; from here on its calls come to the listener."""
        os.write(self._gate, b"g")

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def wait(self) -> int:
        """Its exit status, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def close(self) -> None:
        """Give our descriptors of it back."""
        os.close(self._gate)
        os.close(self.pidfd)


class Launcher:
    """Starts ``path`` with ``argv`` under the filter ``code``; ``seccomp`` is the number of that call here."""

    def __init__(self, seccomp: int, code: bytes, path: str, argv: Sequence[str]) -> None:
        self._seccomp = seccomp
        self._code = ctypes.create_string_buffer(code, len(code))
        self._filter = _Filter(len(code) // _INSTRUCTION, ctypes.addressof(self._code))
        self._path = path
        self._argv = list(argv)

    def start(self, flags: int) -> tuple[Program, int]:
        """Fork it, stopped before its exec. ``flags`` of seccomp(2). The program and its listener.

        Refused; KvmVfioEmuError when the child died.
        """
        told, tell = os.pipe()
        gate, go = os.pipe()
        gc.freeze()  # what is loaded stays loaded: no collection need copy its pages in the child, or look there again
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            os.close(go)
            self._become(tell, gate, parent, flags)
        os.close(tell)
        os.close(gate)
        message = os.read(told, 4096)
        os.close(told)
        program = Program(pid, go)
        try:
            return program, self._listener(program, message)
        except KvmVfioEmuError:
            program.close()
            program.wait()
            raise

    def _listener(self, program: Program, message: bytes) -> int:
        if not message:
            raise KvmVfioEmuError("the program could not be started under the supervisor")
        error, number = _REPORT.unpack_from(message)
        if error:
            raise Refused(message[_REPORT.size :].decode(), error)
        listener = _libc.syscall(_SYS_PIDFD_GETFD, program.pidfd, number, 0)
        if listener < 0:
            raise Refused("pidfd_getfd", ctypes.get_errno())
        return int(listener)

    # -- in the child -------------------------------------------------------------------------------------------

    def _become(self, tell: int, gate: int, parent: int, flags: int) -> NoReturn:
        try:
            os.write(tell, self._install(parent, flags))
            if os.read(gate, 1):
                self._exec()
        finally:
            os._exit(_FAILED)  # whatever happened: the supervisor's own way out is not the child's

    def _install(self, parent: int, flags: int) -> bytes:
        """Put on the filter; what to report. The listener closes with the exec."""
        # Our targets die with us: without a supervisor every open of theirs would fail.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(_FAILED)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return _REPORT.pack(ctypes.get_errno(), -1) + b"prctl(PR_SET_NO_NEW_PRIVS)"
        listener = _libc.syscall(self._seccomp, _SET_MODE_FILTER, flags, ctypes.byref(self._filter))
        if listener < 0:
            return _REPORT.pack(ctypes.get_errno(), -1) + b"seccomp"
        return _REPORT.pack(0, listener)

    def _exec(self) -> NoReturn:
        # Python ignores these two; the program should have them as our parent had them.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execv(self._path, self._argv)
        except OSError as error:
            os.write(2, f"kvmvfio-emu: {self._argv[0]}: {error.strerror}\n".encode())
            os._exit(127 if error.errno == errno.ENOENT else 126)


class _Filter(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))
