"""ptrace(2) by ctypes: what is needed to perform single instructions of a program in its place.

All functions raise ProcessLookupError when the thread is gone or killed: then nobody waits for what was to be done.
"""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

_CONT, _SINGLESTEP, _DETACH = 7, 9, 17
_SETOPTIONS, _GETEVENTMSG, _GETSIGINFO = 0x4200, 0x4201, 0x4202
_GETREGSET, _SETREGSET = 0x4204, 0x4205
_SEIZE, _INTERRUPT, _LISTEN = 0x4206, 0x4207, 0x4208
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B

EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_STOP = 1, 2, 3, 4, 128
#: Children and threads are traced from birth, an exec stops, and all die with us.
_OPTIONS = 1 << EVENT_FORK | 1 << EVENT_VFORK | 1 << EVENT_CLONE | 1 << EVENT_EXEC | 0x100000

#: Register sets (elf.h): the general registers; floating point and vectors as far as every machine has them.
GENERAL, VECTORS, EXTENDED = 1, 2, 0x202

_WALL = 0x40000000
_P_ALL = 0
_SIGSET_BYTES = 8

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _call(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _ptrace(request, tid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))  # ESRCH becomes a ProcessLookupError


def seize(tid: int) -> None:
    """Trace a thread without stopping it. PermissionError when somebody else does, or when it is dead."""
    _call(_SEIZE, tid, 0, _OPTIONS)


def interrupt(tid: int) -> None:
    """Have it stop as soon as it may: EVENT_STOP."""
    _call(_INTERRUPT, tid)


def resume(tid: int, signal: int = 0) -> None:
    """Let a stopped thread go on, with that signal."""
    _call(_CONT, tid, 0, signal)


def step(tid: int) -> None:
    """Let it execute one instruction."""
    _call(_SINGLESTEP, tid)


def listen(tid: int) -> None:
    """Leave it in the group stop that it is in, but hear when that ends."""
    _call(_LISTEN, tid)


def detach(tid: int) -> None:
    """Trace it no more; it goes on."""
    _call(_DETACH, tid)


def event_message(tid: int) -> int:
    """What an event is about: the number of the new thread, the former number of one that execs."""
    message = ctypes.c_ulong()
    _call(_GETEVENTMSG, tid, 0, ctypes.addressof(message))
    return message.value


class Fault(NamedTuple):
    """Of the signal that a thread stopped with: its si_code and si_addr."""

    code: int
    address: int


class _SigInfo(ctypes.Structure):
    _fields_ = (
        ("signo", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("address", ctypes.c_uint64),
        ("rest", ctypes.c_char * 104),
    )


_siginfo = _SigInfo()


def fault(tid: int) -> Fault:
    """The signal of a signal-delivery-stop."""
    _call(_GETSIGINFO, tid, 0, ctypes.addressof(_siginfo))
    return Fault(_siginfo.code, _siginfo.address)


class RegisterSet:
    """Space for one register set of up to ``words`` 64-bit words: `fetch` fills it, `store` gives it back."""

    def __init__(self, which: int, words: int) -> None:
        self.words = (ctypes.c_uint64 * words)()
        self._which = which
        self._vector = _Iovec(ctypes.addressof(self.words), ctypes.sizeof(self.words))
        self._address = ctypes.addressof(self._vector)

    def fetch(self, tid: int) -> None:
        """OSError EINVAL, ENODEV: this machine has no such set."""
        self._vector.length = ctypes.sizeof(self.words)
        _call(_GETREGSET, tid, self._which, self._address)

    def store(self, tid: int) -> None:
        """As long as what was fetched."""
        _call(_SETREGSET, tid, self._which, self._address)

    def image(self) -> bytes:
        """All of it, to compare or to keep."""
        return bytes(memoryview(self.words).cast("B")[: self._vector.length])

    def restore(self, image: bytes) -> None:
        """What `image` gave."""
        ctypes.memmove(self.words, image, len(image))
        self._vector.length = len(image)


def blocked_signals(tid: int) -> int:
    """The thread's signal mask; bit 0 is signal 1."""
    mask = ctypes.c_uint64()
    _call(_GETSIGMASK, tid, _SIGSET_BYTES, ctypes.addressof(mask))
    return mask.value


def block_signals(tid: int, mask: int) -> None:
    """Replace it."""
    value = ctypes.c_uint64(mask)
    _call(_SETSIGMASK, tid, _SIGSET_BYTES, ctypes.addressof(value))


# -- waiting ----------------------------------------------------------------------------------------------------


class Stop(NamedTuple):
    """What a wait told of a thread: it stopped with ``signal`` (and ``event``), or (both 0) it is gone."""

    tid: int
    signal: int
    event: int


def waiting() -> tuple[int, bool] | None:
    """(some thread that has something to tell, whether it is its end), without hearing it; None if there is none."""
    try:
        found = os.waitid(_P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return None
    return None if found is None else (found.si_pid, found.si_code != os.CLD_TRAPPED)


def wait(tid: int, *, block: bool = False) -> Stop | None:
    """What that thread has to tell; None if it has nothing, and ``block`` does not wait for it."""
    try:
        found, status = os.waitpid(tid, _WALL if block else _WALL | os.WNOHANG)
    except ChildProcessError:
        return Stop(tid, 0, 0)
    if not found:
        return None
    if not os.WIFSTOPPED(status):
        return Stop(tid, 0, 0)
    return Stop(tid, status >> 8 & 0xFF, status >> 16)
