"""The PCI bench on a kernel with iommufd: its ioctls as calls with named fields, memory to map, devices to bind."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from typing import Any

import pytest
from pci_bench import BOARD, EDU, NEW, PciBench

from kvmvfio_emu import uapi

FIXED, WRITE, READ = (
    uapi.IOMMU_IOAS_MAP_FIXED_IOVA,
    uapi.IOMMU_IOAS_MAP_WRITEABLE,
    uapi.IOMMU_IOAS_MAP_READABLE,
)
ALL = (1 << 64) - 1
PAGE = 0x1000
#: What the IOMMU of the board leaves once a device is attached.
RANGES = [(0, 0x7FFFFFF), (0x8100000, (1 << 48) - 1)]


class IommufdBench(PciBench):
    """``fd`` is /dev/iommu, after `bind` ``device`` is the device's own node."""

    def __init__(self, **profile: Any) -> None:
        super().__init__(iommufd=True, vfio_device_cdev=True, vfio_device_file_valid=True, **NEW | profile)
        self.iommu = self.open("/dev/iommu")
        self._memory: list[mmap.mmap] = []

    def memory(self, size: int = PAGE, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> tuple[int, mmap.mmap]:
        """(address, mapping) of fresh memory."""
        area = mmap.mmap(-1, size)
        self._memory.append(area)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        if prot != mmap.PROT_READ | mmap.PROT_WRITE:
            assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), size, prot)
        return address, area

    def command(self, name: str, *, fd: int | None = None, size: int | None = None, **fields: int) -> Any:
        """IOMMU_``NAME`` with these fields; the struct afterwards, also of a call that failed (`last`)."""
        ctype = f"struct {STRUCTS.get(name, 'iommu_' + name.lower())}"
        buffer = uapi.pack(ctype, **fields)
        self.last = uapi.view(ctype, buffer)
        self.last.size = len(buffer) if size is None else size
        self.ioctl(self.iommu if fd is None else fd, getattr(uapi, f"IOMMU_{name}"), uapi.ffi.from_buffer(buffer))
        return self.last

    def ioas(self) -> int:
        return int(self.command("IOAS_ALLOC").out_ioas_id)

    def map(
        self, ioas: int, address: int, length: int = PAGE, flags: int = READ | WRITE, iova: int | None = None
    ) -> int:
        fixed = {} if iova is None else {"iova": iova}
        flags |= 0 if iova is None else FIXED
        return int(self.command("IOAS_MAP", flags=flags, ioas_id=ioas, user_va=address, length=length, **fixed).iova)

    def unmap(self, ioas: int, iova: int, length: int) -> int:
        return int(self.command("IOAS_UNMAP", ioas_id=ioas, iova=iova, length=length).length)

    def ranges(self, ioas: int, room: int = 8) -> list[tuple[int, int]]:
        array = uapi.ffi.new("struct iommu_iova_range[]", room or 1)
        self.alignment = 0
        answer = self.command(
            "IOAS_IOVA_RANGES", ioas_id=ioas, num_iovas=room, allowed_iovas=int(uapi.ffi.cast("uintptr_t", array))
        )
        self.alignment = answer.out_iova_alignment
        return [(item.start, item.last) for item in array[0 : answer.num_iovas]]

    def allow(self, ioas: int, *spans: tuple[int, int]) -> None:
        array = uapi.ffi.new("struct iommu_iova_range[]", [{"start": low, "last": high} for low, high in spans])
        address = int(uapi.ffi.cast("uintptr_t", array))
        self.command("IOAS_ALLOW_IOVAS", ioas_id=ioas, num_iovas=len(spans), allowed_iovas=address)

    # -- the device's own node -------------------------------------------------------------------------------

    def node(self, name: str = EDU) -> int:
        index = next(index for index, found in self.vfio.registered.items() if found.name == name)
        return self.open(f"/dev/vfio/devices/vfio{index}")

    def bind(self, device: int, iommufd: int | None = None, **fields: int) -> int:
        request = uapi.ffi.new(
            "struct vfio_device_bind_iommufd *",
            {"argsz": 16, "iommufd": self.iommu if iommufd is None else iommufd, **fields},
        )
        self.ioctl(device, uapi.VFIO_DEVICE_BIND_IOMMUFD, request)
        return int(request.out_devid)

    def attach(self, device: int, number: int, **fields: int) -> int:
        request = uapi.ffi.new("struct vfio_device_attach_iommufd_pt *", {"argsz": 12, "pt_id": number, **fields})
        self.ioctl(device, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, request)
        return int(request.pt_id)

    def detach(self, device: int, **fields: int) -> None:
        request = uapi.ffi.new("struct vfio_device_detach_iommufd_pt *", {"argsz": 8, **fields})
        self.ioctl(device, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, request)

    def bound(self, name: str = EDU) -> tuple[int, int]:
        """(device, its number): the device's own node, bound."""
        device = self.node(name)
        return device, self.bind(device)


STRUCTS = {"GET_HW_INFO": "iommu_hw_info", "IOAS_IOVA_RANGES": "iommu_ioas_iova_ranges"}


@pytest.fixture
def bench() -> Iterator[IommufdBench]:
    """A host; at the end everything must be given back."""
    bench = IommufdBench()
    yield bench
    bench.finish()


def group_of(name: str) -> int:
    return next(spec.group for spec in BOARD.devices if spec.name == name)
