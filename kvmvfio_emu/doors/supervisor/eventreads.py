"""The program's reads of its eventfds, trapped only where a fault cuts them short (`-e inject=eventfd:short`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.eventfds import eventfd_key
from kvmvfio_emu.doors.supervisor.reply import CONTINUE, Reply, Value
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.target import TargetTask

_UINT = 0xFFFFFFFF


def read_eventfd(task: TargetTask, arguments: tuple[int, ...]) -> Reply:
    """read(2). One that would have to wait, or is of another file, is the real kernel's business and not counted."""
    fd = arguments[0] & _UINT
    faults = task.host.faults
    try:
        key = eventfd_key(fd, task.proc)
    except KernelError:
        return CONTINUE  # EBADF by the real kernel
    if key is None or faults is None:
        return CONTINUE
    ours = task.take_fd(fd)
    data = bytearray(8)
    try:
        os.preadv(ours, [data], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return CONTINUE
    finally:
        os.close(ours)
    size = faults.read_eventfd(task.host.trace, key, len(data))
    task.mm.write(arguments[1], data[:size])
    return Value(size)
