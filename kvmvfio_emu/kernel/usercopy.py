"""User memory access; models lib/usercopy.c: a bad pointer is EFAULT, never a crash.

``process_vm_readv`` is used even for our own process, since it honours page protections and reports a fault
where a plain load would kill us.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from kvmvfio_emu.kernel.errors import KernelError

_libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _syscall(name: str) -> ctypes._NamedFuncPointer:
    function = getattr(_libc, name)
    vector = ctypes.POINTER(Iovec)
    function.argtypes = [ctypes.c_int, vector, ctypes.c_ulong, vector, ctypes.c_ulong, ctypes.c_ulong]
    function.restype = ctypes.c_ssize_t
    return function  # type: ignore[no-any-return]


process_vm_readv = _syscall("process_vm_readv")
_process_vm_writev = _syscall("process_vm_writev")

#: More than any struct of this API; a caller that asks for more gets EFAULT-free bounded work done in pieces.
_CHUNK = 1 << 20


class Vma(NamedTuple):
    """One mapping of an address space, as /proc/PID/maps tells it."""

    start: int
    end: int
    readable: bool
    writable: bool
    offset: int
    device: int
    inode: int
    shared: bool = False


class UserMemory:
    """The address space of process (or thread) ``pid``; models ``current->mm``.

    `read` and `write` raise `KernelError` (EFAULT) and then have changed nothing that the caller relies on.
    """

    __slots__ = ("pid",)

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, address: int, size: int) -> bytearray:
        """``size`` bytes at ``address`` (0 .. 2^64-1). EFAULT when any byte is not readable."""
        buffer = bytearray(size)
        self._transfer(process_vm_readv, address, buffer, size)
        return buffer

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` at ``address``. EFAULT when any byte is not writable."""
        self._transfer(_process_vm_writev, address, bytearray(data), len(data))

    def _transfer(self, call: ctypes._NamedFuncPointer, address: int, buffer: bytearray, size: int) -> None:
        if not size:
            return
        if not 0 <= address <= (1 << 64) - size:
            raise KernelError(errno.EFAULT, f"user address {address:#x} + {size:#x} wraps")
        local_base = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        for done in range(0, size, _CHUNK):
            part = min(_CHUNK, size - done)
            local = Iovec(local_base + done, part)
            remote = Iovec(address + done, part)
            if call(self.pid, local, 1, remote, 1, 0) != part:
                raise KernelError(errno.EFAULT, f"user memory {address:#x} .. {address + size:#x} not accessible")

    def vmas(self) -> Iterator[Vma]:
        """The mappings in address order; models a walk over ``mm->mmap``."""
        with open(f"/proc/{self.pid}/maps", encoding="ascii", errors="replace") as maps:
            for line in maps:
                span, perms, offset, device, inode = line.split(maxsplit=5)[:5]
                start, end = (int(part, 16) for part in span.split("-"))
                major, minor = (int(part, 16) for part in device.split(":"))
                yield Vma(
                    start,
                    end,
                    perms[0] == "r",
                    perms[1] == "w",
                    int(offset, 16),
                    os.makedev(major, minor),
                    int(inode),
                    perms[3] == "s",
                )

    def find_vma(self, address: int) -> Vma | None:
        """The mapping that holds ``address``, if any."""
        return next((vma for vma in self.vmas() if vma.start <= address < vma.end), None)

    def covers(self, address: int, size: int, *, write: bool) -> bool:
        """Whether every byte of the range is mapped and may be read (and written, if ``write``)."""
        for vma in self.vmas():
            if vma.start <= address < vma.end:
                if not vma.readable or (write and not vma.writable):
                    return False
                if vma.end >= address + size:
                    return True
                size -= vma.end - address
                address = vma.end
        return size == 0
