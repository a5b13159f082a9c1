"""Starts a program under the supervisor, and serves it and all its children until the last one ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.descriptors import Descriptors
from kvmvfio_emu.doors.supervisor import bpf
from kvmvfio_emu.doors.supervisor.calls import DescriptorCalls
from kvmvfio_emu.doors.supervisor.fileops import FileOperations
from kvmvfio_emu.doors.supervisor.hybrid import REQUESTS, RealKvm
from kvmvfio_emu.doors.supervisor.launcher import Launcher, Program, Refused
from kvmvfio_emu.doors.supervisor.loop import Loop
from kvmvfio_emu.doors.supervisor.notify import Listener, supported
from kvmvfio_emu.doors.supervisor.paths import PathCalls
from kvmvfio_emu.doors.supervisor.syscalls import architecture
from kvmvfio_emu.doors.supervisor.vfs import Vfs
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.tracer import Tracer

_NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 3, 1 << 5


class Supervisor:
    """One supervised program on one emulated kernel.

    `start` raises KvmVfioEmuError when the program cannot be supervised, before it runs; `serve` returns its exit
    status, or minus the signal that killed it.
    """

    def __init__(self, host: Host, *, real_kvm: bool = False) -> None:
        self.host = host
        self._real_kvm = RealKvm() if real_kvm else None
        if real_kvm:
            del host.nodes["/dev/kvm"]  # the name leads to the real one
        self.descriptors = Descriptors(host.poller, host.inodes, native=True)
        self.vfs = Vfs(host)
        paths = PathCalls(host, self.descriptors, self.vfs)
        # A guest of the real KVM reaches mapped registers by itself: for it they have to be memory.
        self._files = FileOperations(os.uname().machine, None if real_kvm else self._new_tracer)
        self._calls = {**DescriptorCalls(self._real_kvm).handlers, **self._files.handlers, **paths.handlers}
        if host.faults is not None and host.faults.reads_matter:  # else no read of any program is our business
            from kvmvfio_emu.doors.supervisor.eventreads import read_eventfd

            self._calls["read"] = read_eventfd
        self._loop: Loop | None = None
        self.killable = True  #: the host has WAIT_KILLABLE_RECV
        self._program: Program | None = None

    def start(self, argv: Sequence[str]) -> Loop:
        """Start the program, stopped at its exec until `serve`; returns the loop that will serve it."""
        machine = architecture()
        problem = supported(machine.seccomp)
        if problem:
            raise KvmVfioEmuError(problem)
        path = shutil.which(argv[0])
        if path is None:
            raise KvmVfioEmuError(f"{argv[0]}: no such program")
        code = bpf.build(machine, self._calls, None if self._real_kvm is None else REQUESTS)
        self._program, listener = self._launch(Launcher(machine.seccomp, code, path, argv))
        listening = Listener(listener)
        self._loop = Loop(self.host, self.descriptors, listening, machine.numbers, self._calls, killable=self.killable)
        return self._loop

    def serve(self, loop: Loop) -> int:
        """Let the program run; returns when it and all its children are gone, with its exit status."""
        program = self._program
        assert program is not None
        program.go()
        with _signals_to(program):
            loop.serve()
            if self._files.tracer is not None:
                self._files.tracer.finish()
            status = program.wait()
        # The listener hangs up before the last files are closed; a process that was waited for has closed them.
        self.descriptors.drain()
        if self._real_kvm is not None:
            self._real_kvm.release()
        self.host.settle()
        return status

    def kill(self) -> None:
        """End the program."""
        if self._program is not None:
            self._program.signal(signal.SIGKILL)

    def close(self) -> None:
        """Give everything back that is not the kernel's."""
        if self._program is not None:
            self._program.close()
        self.vfs.close()
        self.descriptors.close()

    def _new_tracer(self) -> Tracer:
        # Here: most programs map no registers, and start faster without it.
        from kvmvfio_emu.doors.supervisor.tracer import Tracer, instruction_set

        assert self._loop is not None
        return Tracer(self.host, instruction_set(), self._loop.watch, self._loop.unwatch)

    def _launch(self, launcher: Launcher) -> tuple[Program, int]:
        try:
            return launcher.start(_NEW_LISTENER | _WAIT_KILLABLE_RECV)
        except Refused as refused:
            if refused.error != errno.EINVAL:
                raise
        self.killable = False  # Linux before 5.19
        return launcher.start(_NEW_LISTENER)


class _signals_to:  # noqa: N801 - a context manager that reads like a phrase
    """While it lasts: the terminal's signals are the program's business, the others are passed on to it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT):
            self._before[number] = signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self._before[number] = signal.signal(number, self._pass)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass(self, number: int, frame: FrameType | None) -> None:
        self._program.signal(number)
