"""Starts the program: a child that installs the filter, hands its listener over, waits, and becomes the program.

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
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from kvmvfio_emu.kernel.errors import KvmVfioEmuError

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SET_MODE_FILTER = 1
_INSTRUCTION = 8  # bytes
_FAILED = 125  #: exit status of a child that did not get as far as its exec
_ERROR = struct.Struct("i")

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The host did not let the child install its filter: ``call`` failed with errno ``error``."""

    def __init__(self, error: int, call: str) -> None:
        super().__init__(call)
        self.error = error
        self.call = call


class Program:
    """The process of the supervised program: `Launcher.start` made it, it waits for `go`."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self._pid = pid
        self._channel = channel
        # Not the number: once it was waited for, that may be somebody else's.
        self._handle = os.pidfd_open(pid)

    def go(self) -> None:
        """Let it exec; from here on its calls come to the listener."""
        self._channel.send(b"g")
        self._channel.close()

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def wait(self) -> int:
        """Its exit status, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def close(self) -> None:
        """Give our descriptors of it back."""
        self._channel.close()
        os.close(self._handle)


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

        Refused; KvmVfioEmuError when the child died."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gc.freeze()  # what is loaded stays loaded: no collection need copy its pages in the child, or look there again
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            ours.close()
            self._become(theirs, parent, flags)
        theirs.close()
        message, fds, _, _ = socket.recv_fds(ours, 4096, 1)
        if not fds:
            ours.close()
            os.waitpid(pid, 0)
            if not message:
                raise KvmVfioEmuError("the program could not be started under the supervisor")
            raise Refused(_ERROR.unpack_from(message)[0], message[_ERROR.size :].decode())
        return Program(pid, ours), fds[0]

    # -- in the child -------------------------------------------------------------------------------------------

    def _become(self, channel: socket.socket, parent: int, flags: int) -> NoReturn:
        try:
            self._install(channel, parent, flags)
            if channel.recv(1):
                self._exec()
        finally:
            os._exit(_FAILED)  # whatever happened: the supervisor's own way out is not the child's

    def _install(self, channel: socket.socket, parent: int, flags: int) -> None:
        # Our targets die with us: without a supervisor every open of theirs would fail.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(_FAILED)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            self._fail(channel, "prctl(PR_SET_NO_NEW_PRIVS)")
        listener = _libc.syscall(self._seccomp, _SET_MODE_FILTER, flags, ctypes.byref(self._filter))
        if listener < 0:
            self._fail(channel, "seccomp")
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _ERROR.pack(listener))
        channel.sendmsg([_ERROR.pack(0)], [rights])
        os.close(listener)

    def _fail(self, channel: socket.socket, call: str) -> NoReturn:
        channel.send(_ERROR.pack(ctypes.get_errno()) + call.encode())
        os._exit(_FAILED)

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
