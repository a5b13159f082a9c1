"""Traces the programs that have device registers mapped, and performs their accesses to them one by one.

A program is traced from its first mapping of registers on, with all its threads and children, each until it execs.
Whatever else stops a thread meanwhile goes on as if nobody were there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor import ptrace, threads
from kvmvfio_emu.doors.supervisor.arm64 import Arm64
from kvmvfio_emu.doors.supervisor.place import Place, Places
from kvmvfio_emu.doors.supervisor.ptrace import Stop
from kvmvfio_emu.doors.supervisor.stepping import Performer
from kvmvfio_emu.doors.supervisor.trial import BUS_ADRERR, Interrupted
from kvmvfio_emu.doors.supervisor.x86 import X86
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.isa import InstructionSet
    from kvmvfio_emu.kernel.host import Host

#: Stops that are handled before trapped calls get their turn again.
_AT_ONCE = 16
_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_SIGINFO_SIZE = 128
_SIGSET_WORDS = 16
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class _Tracee:
    """One traced thread."""

    __slots__ = ("memory", "missed", "running", "tgid", "tid")

    def __init__(self, tid: int, *, running: bool) -> None:
        self.tid = tid
        self.running = running
        self.memory = UserMemory(tid)
        self.tgid = 0  #: looked up when it is needed
        self.missed: list[int] = []  #: signals that came during a step


class Tracer:
    """``watch`` and ``unwatch`` are the event loop's; everything happens in the thread that made it."""

    def __init__(
        self,
        host: Host,
        isa: InstructionSet,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
    ) -> None:
        self.failures = 0  #: accesses at which a device model failed
        self._host = host
        self._places = Places(host)
        self._performer = Performer(isa, self._find, self._places.address, self._held, self._missed)
        self._tracees: dict[int, _Tracee] = {}
        self._stops: deque[Stop] = deque()
        self._unwatch = unwatch
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._news = _signalfd(signal.SIGCHLD)
        watch(self._news, self.serve)
        self._handlers: dict[int, Callable[[_Tracee, Stop], None]] = {
            0: self._signal,
            ptrace.EVENT_CLONE: self._child,
            ptrace.EVENT_FORK: self._child,
            ptrace.EVENT_VFORK: self._child,
            ptrace.EVENT_EXEC: self._exec,
            ptrace.EVENT_STOP: self._stop,
        }

    # -- beginning and end ----------------------------------------------------------------------------------------

    def attach(self, tgid: int) -> bool:
        """Trace process ``tgid``. False when that cannot be, since somebody else does."""
        self._places.forget(tgid)
        while True:  # until no thread appears that a thread not traced yet has made
            fresh = [tid for tid in threads.of(tgid) if tid not in self._tracees]
            if not sum(self._seize(tid) for tid in fresh):
                return all(threads.state(tid) in "ZX" for tid in fresh)

    def mapping_changes(self, tgid: int) -> None:
        """The process maps a file: what is known of its addresses may be wrong from now on."""
        self._places.forget(tgid)

    def finish(self) -> None:
        """The programs have ended: hear of it, so that those who wait for them do, too, and give everything back."""
        for tid in list(self._tracees):
            while tid in self._tracees and not threads.is_our_child(tid):
                stop = ptrace.wait(tid, block=True)
                if stop is not None:
                    self._handle(stop)
        self._tracees.clear()
        self._unwatch(self._news)
        os.close(self._news)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _seize(self, tid: int) -> bool:
        try:
            ptrace.seize(tid)
        except (ProcessLookupError, PermissionError):
            return False
        self._tracees[tid] = _Tracee(tid, running=True)
        return True

    # -- stops ------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Deal with what the threads have to tell."""
        with suppress(BlockingIOError):
            os.read(self._news, 8 * _SIGINFO_SIZE)
        for _ in range(_AT_ONCE):
            stop = self._next()
            if stop is None:
                return
            self._handle(stop)
        signal.raise_signal(signal.SIGCHLD)  # there may be more, in the next turn

    def _next(self) -> Stop | None:
        if self._stops:
            return self._stops.popleft()
        found = ptrace.waiting()
        if found is None:
            return None
        tid, ended = found
        if not ended:
            return ptrace.wait(tid)
        if tid in self._tracees and not threads.is_our_child(tid):
            return ptrace.wait(tid)
        # That end is for somebody else to hear, and hides what others have to tell.
        self._tracees.pop(tid, None)
        for other in self._tracees:
            stop = ptrace.wait(other)
            if stop is not None:
                return stop
        return None

    def _handle(self, stop: Stop) -> None:
        if not stop.signal:
            self._gone(stop.tid)
            return
        tracee = self._tracees.get(stop.tid)
        if tracee is None:  # born traced
            tracee = self._tracees[stop.tid] = _Tracee(stop.tid, running=False)
        tracee.running = False
        with suppress(ProcessLookupError):
            self._handlers[stop.event](tracee, stop)

    def _gone(self, tid: int) -> None:
        tracee = self._tracees.pop(tid, None)
        if tracee is not None and not any(other.tgid == tracee.tgid for other in self._tracees.values()):
            self._places.forget(tracee.tgid)

    def _resume(self, tracee: _Tracee, number: int = 0) -> None:
        tracee.running = True
        ptrace.resume(tracee.tid, number)

    def _stop(self, tracee: _Tracee, stop: Stop) -> None:
        if stop.signal in _STOP_SIGNALS:
            ptrace.listen(tracee.tid)
        else:
            self._resume(tracee)

    def _child(self, tracee: _Tracee, stop: Stop) -> None:
        """It is traced, too, and tells so itself; known from now on, since that may come later."""
        tid = ptrace.event_message(tracee.tid)
        self._tracees.setdefault(tid, _Tracee(tid, running=True))
        self._resume(tracee)

    def _exec(self, tracee: _Tracee, stop: Stop) -> None:
        """Its mappings are gone, and so is the reason to trace it."""
        former = ptrace.event_message(tracee.tid)
        self._tracees.pop(former, None)
        self._tracees.pop(tracee.tid, None)
        self._places.forget(tracee.tgid or tracee.tid)
        ptrace.detach(tracee.tid)

    def _signal(self, tracee: _Tracee, stop: Stop) -> None:
        number = stop.signal
        if number == signal.SIGBUS:
            fault = ptrace.fault(tracee.tid)
            if fault.code == BUS_ADRERR:
                place = self._find(tracee.tid, fault.address)
                if place is not None:
                    number = self._access(tracee, fault.address, place)
        for missed in tracee.missed:
            _send(self._tgid(tracee), tracee.tid, missed)
        self._resume(tracee, number)
        if tracee.missed:
            tracee.missed.clear()
            ptrace.interrupt(tracee.tid)  # it may belong into a group stop now

    # -- accesses -----------------------------------------------------------------------------------------------------

    def _access(self, tracee: _Tracee, address: int, place: Place) -> int:
        """The signal that the program gets: 0 when the access was done."""
        try:
            self._performer.perform(tracee.tid, tracee.memory, address, place)
        except Interrupted as interrupted:
            return interrupted.number
        except KernelError:
            return signal.SIGBUS
        except ProcessLookupError:
            raise
        except Exception:
            self.failures += 1
            print(f"kvmvfio-emu: thread {tracee.tid}: access to {address:#x} failed:", file=sys.stderr)
            traceback.print_exc()
            return signal.SIGBUS
        finally:
            if self._host.work.waiting:
                self._host.settle()
        return 0

    def _find(self, tid: int, address: int) -> Place | None:
        tracee = self._tracees[tid]
        return self._places.find(self._tgid(tracee), tid, address)

    @staticmethod
    def _tgid(tracee: _Tracee) -> int:
        if not tracee.tgid:
            tracee.tgid = threads.tgid_of(tracee.tid)
        return tracee.tgid

    @contextmanager
    def _held(self, tid: int) -> Iterator[None]:
        """No other thread executes anything of its program; what they stopped for is dealt with afterwards."""
        others = [tracee for tracee in self._tracees.values() if tracee.running and tracee.tid != tid]
        for tracee in others:
            with suppress(ProcessLookupError):
                ptrace.interrupt(tracee.tid)
        for tracee in others:
            self._await_stop(tracee)
        try:
            yield
        finally:
            if self._stops:
                signal.raise_signal(signal.SIGCHLD)

    def _await_stop(self, tracee: _Tracee) -> None:
        while True:
            stop = ptrace.wait(tracee.tid)
            if stop is not None:
                tracee.running = False
                self._stops.append(stop)
                return
            # Not in its program, and it cannot get there without stopping: as good as stopped.
            if threads.state(tracee.tid) in "DZX":
                return
            os.sched_yield()

    def _missed(self, tid: int, number: int) -> None:
        self._tracees[tid].missed.append(number)


def instruction_set() -> InstructionSet:
    """This machine's."""
    return Arm64() if os.uname().machine == "aarch64" else X86()


def _signalfd(number: int) -> int:
    wanted = (ctypes.c_uint64 * _SIGSET_WORDS)(1 << number - 1)
    fd: int = _libc.signalfd(-1, ctypes.byref(wanted), _NONBLOCK_CLOEXEC)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return fd


def _send(tgid: int, tid: int, number: int) -> None:
    """Send a signal again that a step has swallowed."""
    if number == signal.SIGSTOP:
        os.kill(tgid, number)
    elif number:
        _libc.tgkill(tgid, tid, number)
