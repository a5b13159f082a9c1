"""Fuzzes the supervisor's handling of notifications: any trapped call, with any arguments, of threads that may be gone.

Whatever comes, no handler fails, each notification is answered exactly once, the memory and the thread may go away at
any access, and when the program is gone nothing of it is left: no file, no descriptor, no contradiction.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cache

from fuzz.memory import Fence
from fuzz.program import NAMES, NUMBERS, Program
from fuzz.taken import Taken
from kvmvfio_emu import uapi
from kvmvfio_emu.doors.descriptors import Descriptors
from kvmvfio_emu.doors.supervisor.calls import DescriptorCalls
from kvmvfio_emu.doors.supervisor.eventreads import read_eventfd
from kvmvfio_emu.doors.supervisor.fileops import FileOperations
from kvmvfio_emu.doors.supervisor.loop import Loop
from kvmvfio_emu.doors.supervisor.notify import Listener, Notification
from kvmvfio_emu.doors.supervisor.paths import PathCalls
from kvmvfio_emu.doors.supervisor.vfs import Vfs
from kvmvfio_emu.kernel.boot import boot
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.strategies import Setting, beginning
from kvmvfio_emu.testing.player import Call
from kvmvfio_emu.view.sink import Record
from kvmvfio_emu.view.tracing import Tracing

SETTINGS = (("rfc-2014", "calxeda-midway"), ("linux-6.12", "oracle-virt"), ("linux-6.12", "edu"))
_INTERRUPTED, _TRACED, _EMPTY = 4, 8, 16  #: flags in the first byte


def one_input(data: bytes) -> None:
    """Judge one input; raises what must not happen."""
    taken = Taken(data)
    flags = taken.number()
    setting, start = prepared(flags % 4 % len(SETTINGS))
    before = set(os.listdir("/proc/self/fd"))
    with Fence().around() as fence, ExitStack() as stack:
        host = boot(setting.profile, setting.board)
        stack.callback(host.power_off)
        program = Program(host, taken, [] if flags & _EMPTY else start, fence, killable=not flags & _INTERRUPTED)
        stack.callback(program.kernel.close)
        if flags & _TRACED:
            tracing = Tracing(_unseen, state=True)
            tracing.attach(host)
            stack.callback(tracing.close)
        supervise(host, program, stack, killable=not flags & _INTERRUPTED)
    left = set(os.listdir("/proc/self/fd")) - before
    assert not left, f"descriptors left: {left}"


@cache
def prepared(which: int) -> tuple[Setting, list[Call]]:
    """A kernel, and how a program on it begins."""
    setting = Setting(*SETTINGS[which])
    return setting, beginning(setting)


def _unseen(record: Record) -> None:
    pass


class StrictLoop(Loop):
    """Does not make the best of a failure."""

    def _cannot(self, notification: Notification, error: KvmVfioEmuError) -> None:
        raise AssertionError(f"{notification}: {error}") from error

    def _failed(self, notification: Notification) -> None:
        raise

    def _guest_failed(self) -> None:
        raise


def supervise(host: Host, program: Program, stack: ExitStack, *, killable: bool) -> None:
    """Serve the program to its end, and look whether everything is as it should be."""
    descriptors = Descriptors(host.poller, host.inodes, native=True)
    stack.callback(descriptors.close)
    vfs = Vfs(host)
    stack.callback(vfs.close)
    files = FileOperations(os.uname().machine, None)
    calls = {
        **DescriptorCalls().handlers,
        **files.handlers,
        **PathCalls(host, descriptors, vfs).handlers,
        "read": read_eventfd,
    }
    kernel = program.kernel
    loop = StrictLoop(host, descriptors, Listener(kernel.fd, kernel), NUMBERS, calls, killable=killable)
    try:
        loop.serve()
        parked = {one for one, wait in kernel.waiting.items() if wait.notification.number == NUMBERS["ioctl"]}
        assert set(kernel.waiting) == parked, f"not answered: {kernel.waiting}"
        for wait in kernel.waiting.values():
            request = wait.notification.arguments[1] & 0xFFFFFFFF
            assert request == uapi.KVM_RUN, f"not answered: {wait.notification}"
        assert not loop.failures
    finally:
        loop.close()
        program.end()
    descriptors.drain()
    host.settle()
    host.check()
    assert host.open_files() == [], f"still open: {host.open_files()}"
    assert not host.inodes


def seeds() -> list[bytes]:
    """What a run starts from beside the kept inputs: ioctls as the strategies draw them, and paths."""
    from fuzz.program import written_ioctl
    from fuzz.seeds import drawn_calls

    found = []
    for which, setting in enumerate(SETTINGS):
        for calls in drawn_calls(*setting):
            some = [written_ioctl(call) for call in calls if call["do"] == "ioctl"][-8:]
            found.append(bytes([which]) + b"".join(some))
    paths = [
        bytes([name, 0]) + bytes([2, part, part + 1]) * 2 + bytes(4) for name in range(len(NAMES)) for part in range(20)
    ]
    return found + [bytes([which & 1]) + path for which, path in enumerate(paths)]
