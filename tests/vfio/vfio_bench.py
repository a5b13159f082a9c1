"""A host with VFIO and a caller to it, built by hand: what the tests of this directory share."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, IommuSpec, RegionSpec
from kvmvfio_emu.hw.devices import Device
from kvmvfio_emu.hw.machine import Machine
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFd
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.iommufd.module import Iommufd
from kvmvfio_emu.kernel.task import Task
from kvmvfio_emu.kernel.usercopy import UserMemory
from kvmvfio_emu.kernel.vfio.module import Vfio

NIC = "fff51000.ethernet"
MULTI = "9030000.multi"
LONELY = "9040000.lonely"
WILD = 0x10  #: a user pointer to nothing

MASK, UNMASK, TRIGGER = (
    uapi.VFIO_IRQ_SET_ACTION_MASK,
    uapi.VFIO_IRQ_SET_ACTION_UNMASK,
    uapi.VFIO_IRQ_SET_ACTION_TRIGGER,
)
NONE, BOOL, EVENTFD = (
    uapi.VFIO_IRQ_SET_DATA_NONE,
    uapi.VFIO_IRQ_SET_DATA_BOOL,
    uapi.VFIO_IRQ_SET_DATA_EVENTFD,
)


class Ram(Device):
    """Registers that keep what is written; remembers each access."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.memory = [bytearray(region.size) for region in self.spec.regions]
        self.accesses: list[tuple[str, int, int, int]] = []
        self.resets = 0

    def read(self, region: int, offset: int, size: int) -> int:
        self.accesses.append(("r", region, offset, size))
        return int.from_bytes(self.memory[region][offset : offset + size], "little")

    def peek(self, region: int, offset: int, size: int) -> int:
        return int.from_bytes(self.memory[region][offset : offset + size], "little")

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        self.accesses.append(("w", region, offset, size))
        self.memory[region][offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        super().reset()
        self.resets += 1


BOARD = Board(
    name="vfio-bench",
    devices=(
        DeviceSpec(
            NIC,
            "ram",
            1,
            regions=(RegionSpec(0xFFF51000, 0x1000),),
            interrupts=(InterruptSpec(77), InterruptSpec(78), InterruptSpec(79, level=False)),
            has_reset=True,
        ),
        DeviceSpec(
            MULTI,
            "ram",
            2,
            regions=(
                RegionSpec(0x9030000, 0x2000),
                RegionSpec(0xA000000, 0x200),
                RegionSpec(0xA001000, 0x1000, writable=False),
                RegionSpec(0xA002000, 0x1000, mappable=False),
            ),
            interrupts=(InterruptSpec(7, level=False), InterruptSpec(16)),
        ),
        DeviceSpec("9031000.companion", "ram", 2, driver=""),
        DeviceSpec(LONELY, "ram", 3, driver="some-nic"),
    ),
)


class FakeTask(Task):
    """A caller in this process whose descriptors of our files are numbers from 1000 on."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.mm = UserMemory(os.getpid())
        self.files: dict[int, File] = {}
        self.limit = 1100
        self.closed: set[int] = set()  #: eventfds whose last descriptor went without a sound

    def fget(self, fd: int) -> File | None:
        if fd in self.files:
            return self.files[fd]
        try:
            os.fstat(fd)
        except (OSError, OverflowError):
            raise KernelError(errno.EBADF, f"{fd} is not open") from None
        return None

    def eventfd(self, fd: int) -> EventFd:
        if self.fget(fd) is not None:
            raise KernelError(errno.EINVAL, "one of ours, no eventfd")
        with open(f"/proc/self/fdinfo/{fd}") as info:
            found = re.search(r"eventfd-id:\s*(\d+)", info.read())
        if found is None:
            raise KernelError(errno.EINVAL, "no eventfd")
        return self.host.eventfds.adopt(int(found[1]), os.dup(fd))

    def abandoned(self, eventfd: EventFd) -> bool:
        return eventfd.key in self.closed

    def install(self, file: File) -> int:
        fd = next(number for number in range(1000, 1 << 20) if number not in self.files)
        if fd >= self.limit:
            file.put()
            raise KernelError(errno.EMFILE, "descriptor table full")
        self.files[fd] = file
        return fd

    def uninstall(self, fd: int) -> None:
        self.files.pop(fd).put()

    def signal_pending(self) -> bool:
        return False


class Bench:
    """A booted host and one caller. Every call checks the kernel's invariants behind it."""

    def __init__(self, board: Board = BOARD, **profile: Any) -> None:
        self.clock = Clock()
        self.trace = Trace(self.clock)
        self.machine = Machine(board, self.clock, self.trace, {"ram": Ram})
        base = profiles.load()
        settings = {field.name: getattr(base, field.name) for field in fields(base)} | profile
        self.host = Host(self.machine, profiles.Profile(**settings), self.clock, self.trace)
        if self.host.profile.iommufd:
            self.host.modules["iommufd"] = Iommufd(self.host)
        self.vfio = Vfio(self.host)
        self.host.modules["vfio"] = self.vfio
        self.task = self.host.current = FakeTask(self.host)
        self.eventfds: list[int] = []

    # -- calls -------------------------------------------------------------------------------------

    def open(self, path: str) -> int:
        try:
            return self.task.install(self.host.open(path))
        finally:
            self.settle()

    def ioctl(self, fd: int, request: int, arg: Any = 0) -> Any:
        pointer = int(uapi.ffi.cast("uintptr_t", arg)) if isinstance(arg, uapi.ffi.CData) else arg
        try:
            return self.task.files[fd].ioctl(request, pointer)
        finally:
            self.settle()

    def close(self, *fds: int) -> None:
        for fd in fds:
            self.task.files.pop(fd).put()
            self.settle()

    def settle(self) -> None:
        self.host.settle()
        self.host.check()

    # -- shortcuts ---------------------------------------------------------------------------------

    def container(self) -> int:
        return self.open("/dev/vfio/vfio")

    def group(self, number: int = 1) -> int:
        return self.open(f"/dev/vfio/{number}")

    def set_container(self, group: int, container: int) -> int:
        return self.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, uapi.ffi.new("int32_t *", container))

    def get_device(self, group: int, name: str) -> int:
        return self.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, uapi.ffi.new("char[]", name.encode()))

    def attached(self, number: int = 1, kind: int = 3) -> tuple[int, int]:
        container, group = self.container(), self.group(number)
        self.set_container(group, container)
        self.ioctl(container, uapi.VFIO_SET_IOMMU, kind)
        return container, group

    def device(self, name: str = NIC) -> int:
        group = self.attached(next(spec.group for spec in BOARD.devices if spec.name == name))[1]
        return self.get_device(group, name)

    def hw(self, name: str = NIC) -> Ram:
        device = self.machine.devices[name]
        assert isinstance(device, Ram)
        return device

    def desc(self, index: int = 0, name: str = NIC) -> Any:
        return self.vfio.devices[name].irqs[index]

    def eventfd(self, value: int = 0) -> int:
        fd = os.eventfd(value, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.eventfds.append(fd)
        return fd

    def count(self, eventfd: int) -> int:
        try:
            return os.eventfd_read(eventfd)
        except BlockingIOError:
            return 0

    def signal(self, eventfd: int) -> None:
        os.eventfd_write(eventfd, 1)
        self.settle()

    def set_irqs(
        self,
        device: int,
        flags: int,
        index: int = 0,
        *,
        start: int = 0,
        count: int = 1,
        data: bytes = b"",
        argsz: int | None = None,
    ) -> Any:
        header = uapi.ffi.new("uint32_t[]", [20 + len(data) if argsz is None else argsz, flags, index, start, count])
        buffer = uapi.ffi.from_buffer(bytearray(uapi.ffi.buffer(header)) + data)
        return self.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, buffer)

    def set_eventfd(self, device: int, action: int, eventfd: int, index: int = 0) -> Any:
        return self.set_irqs(device, EVENTFD | action, index, data=eventfd.to_bytes(4, "little", signed=True))

    def set_none(self, device: int, action: int, index: int = 0, count: int = 1) -> Any:
        return self.set_irqs(device, NONE | action, index, count=count)

    def set_bool(self, device: int, action: int, value: int, index: int = 0) -> Any:
        return self.set_irqs(device, BOOL | action, index, data=bytes([value]))


@contextmanager
def fails(name: str) -> Iterator[None]:
    """The body is answered with that errno."""
    with pytest.raises(KernelError) as caught:
        yield
    assert caught.value.errno == getattr(errno, name), caught.value


class EdgePage:
    """A readable page with nothing mapped behind it."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.end = self.start + mmap.PAGESIZE
        libc = ctypes.CDLL(None)
        assert not libc.mprotect(ctypes.c_void_p(self.end), mmap.PAGESIZE, 0)

    def put(self, data: bytes) -> int:
        """Place ``data`` as the page's last bytes; its address."""
        ctypes.memmove(self.end - len(data), data, len(data))
        return self.end - len(data)


def replace_iommu(**changes: Any) -> Board:
    """The board with another IOMMU."""
    return Board(name="other-iommu", iommu=IommuSpec(**changes), devices=BOARD.devices)
