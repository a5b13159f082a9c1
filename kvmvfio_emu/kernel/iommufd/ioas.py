"""What the ioctls on address spaces do; models drivers/iommu/iommufd/ioas.c."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.iommufd.hwpt import Ioas
from kvmvfio_emu.kernel.iommufd.pagetable import ULONG_MAX, Pages, Range
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.file import IommufdFile

_RANGE = struct.Struct("<QQ")
_FIXED, _WRITE, _READ = (
    uapi.IOMMU_IOAS_MAP_FIXED_IOVA,
    uapi.IOMMU_IOAS_MAP_WRITEABLE,
    uapi.IOMMU_IOAS_MAP_READABLE,
)


def iova_ranges(file: IommufdFile, command: Any, arg: UserPtr) -> None:
    """IOMMU_IOAS_IOVA_RANGES: as many as there is room for, then how many there are."""
    if command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, "a reserved field is set")
    space = file.objects.get(command.ioas_id, Ioas).space
    room, ranges = int(command.num_iovas), space.holes()
    for number, span in enumerate(ranges[:room]):
        file.host.current.copy_to_user(int(command.allowed_iovas), _RANGE.pack(*span), number * _RANGE.size)
    command.num_iovas = len(ranges)
    command.out_iova_alignment = space.alignment
    file.respond(arg, command)
    if len(ranges) > room:
        raise KernelError(errno.EMSGSIZE, f"room for {room} of {len(ranges)} ranges")


def allow_iovas(file: IommufdFile, command: Any) -> None:
    """IOMMU_IOAS_ALLOW_IOVAS: ranges of at least two bytes that do not overlap."""
    if command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, "a reserved field is set")
    space = file.objects.get(command.ioas_id, Ioas).space
    ranges: list[Range] = []
    for number in range(command.num_iovas):
        raw = file.host.current.copy_from_user(int(command.allowed_iovas), _RANGE.size, number * _RANGE.size)
        start, last = _RANGE.unpack(raw)
        if start >= last or any(start <= high and low <= last for low, high in ranges):
            raise KernelError(errno.EINVAL, f"{start:#x}..{last:#x} is no range, or overlaps another")
        ranges.append((start, last))
    space.allow(ranges)


def map_memory(file: IommufdFile, command: Any) -> None:
    """IOMMU_IOAS_MAP."""
    if command.flags & ~(_FIXED | _WRITE | _READ) or command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, f"unknown flags in {command.flags:#x}, or a reserved field is set")
    _check_numbers(command.flags, command.iova, command.length)
    space = file.objects.get(command.ioas_id, Ioas).space
    if not 0 < command.length <= ULONG_MAX - 0x1000:
        raise KernelError(errno.EINVAL, f"length {command.length:#x}")
    write = bool(command.flags & _WRITE)
    pages = Pages(file.host.current.mm, command.user_va, command.length, write)
    wanted = command.iova if command.flags & _FIXED else None
    command.iova = space.map([pages], wanted, read=bool(command.flags & _READ), write=write)


def copy(file: IommufdFile, command: Any) -> None:
    """IOMMU_IOAS_COPY: the same memory once more."""
    if command.flags & ~(_FIXED | _WRITE | _READ):
        raise KernelError(errno.EOPNOTSUPP, f"unknown flags in {command.flags:#x}")
    _check_numbers(command.flags, command.src_iova, command.dst_iova, command.length)
    pages = file.objects.get(command.src_ioas_id, Ioas).space.pages_at(command.src_iova, command.length)
    space = file.objects.get(command.dst_ioas_id, Ioas).space
    wanted = command.dst_iova if command.flags & _FIXED else None
    read, write = bool(command.flags & _READ), bool(command.flags & _WRITE)
    command.dst_iova = space.map(pages, wanted, read=read, write=write)


def _check_numbers(flags: int, *numbers: int) -> None:
    if any(number >= ULONG_MAX for number in numbers):
        raise KernelError(errno.EOVERFLOW, "an address or a length of all ones")
    if not flags & (_WRITE | _READ):
        raise KernelError(errno.EINVAL, "a mapping is readable or writable")


def unmap(file: IommufdFile, command: Any) -> None:
    """IOMMU_IOAS_UNMAP: the range, or everything; ``length`` becomes how much that was."""
    space = file.objects.get(command.ioas_id, Ioas).space
    if command.iova == 0 and command.length == ULONG_MAX:
        command.length = space.unmap_all()
    elif command.iova >= ULONG_MAX or command.length >= ULONG_MAX:
        raise KernelError(errno.EOVERFLOW, "an address or a length of all ones")
    else:
        command.length = space.unmap(command.iova, command.length)


def option(file: IommufdFile, command: Any) -> None:
    """IOMMU_OPTION."""
    if command.__reserved:
        raise KernelError(errno.EOPNOTSUPP, "a reserved field is set")
    if command.option_id == uapi.IOMMU_OPTION_RLIMIT_MODE:
        _rlimit_mode(file, command)
    elif command.option_id == uapi.IOMMU_OPTION_HUGE_PAGES:
        _huge_pages(file, command)
    else:
        raise KernelError(errno.EOPNOTSUPP, f"option {command.option_id}")


def _rlimit_mode(file: IommufdFile, command: Any) -> None:
    if command.object_id:
        raise KernelError(errno.EOPNOTSUPP, "an option of the file, not of an object")
    if command.op == uapi.IOMMU_OPTION_OP_GET:
        command.val64 = int(file.account_per_process)
    elif command.op == uapi.IOMMU_OPTION_OP_SET:
        if len(file.objects):
            raise KernelError(errno.EBUSY, "there are objects already")
        if command.val64 not in (0, 1):
            raise KernelError(errno.EINVAL, f"mode {command.val64}")
        file.account_per_process = bool(command.val64)
    else:
        raise KernelError(errno.EOPNOTSUPP, f"operation {command.op}")


def _huge_pages(file: IommufdFile, command: Any) -> None:
    space = file.objects.get(command.object_id, Ioas).space
    if command.op == uapi.IOMMU_OPTION_OP_GET:
        command.val64 = int(space.large_pages)
    elif command.op == uapi.IOMMU_OPTION_OP_SET:
        if command.val64 not in (0, 1):
            raise KernelError(errno.EINVAL, f"value {command.val64}")
        space.set_large_pages(bool(command.val64))
    else:
        raise KernelError(errno.EOPNOTSUPP, f"operation {command.op}")
