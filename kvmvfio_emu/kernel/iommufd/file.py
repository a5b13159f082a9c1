"""An open /dev/iommu and its ioctls; models drivers/iommu/iommufd/main.c and the ioctls of ioas.c and hw_pagetable.c.

A kernel before 6.2 has no such node; a request here that it does not list is ENOTTY, whatever it points to.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.iommufd import compat, hwpts, ioas
from kvmvfio_emu.kernel.iommufd.device import BoundDevice, BoundGroup
from kvmvfio_emu.kernel.iommufd.hwpt import Hwpt, Ioas
from kvmvfio_emu.kernel.iommufd.objects import Objects
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.kernel.iommufd.module import Iommufd


class IommufdFile(File):
    """``struct iommufd_ctx``. Devices that are bound to it hold it open."""

    kind = "iommufd"
    when = "iommufd"
    link = "/dev/iommu"

    def __init__(self, host: Host, module: Iommufd) -> None:
        super().__init__(host)
        self.module = module
        self.objects = Objects()
        self.groups: dict[int, BoundGroup] = {}
        self.vfio_ioas: Ioas | None = None
        self.account_per_process = False

    def release(self) -> None:
        """Nobody holds it: all objects go."""
        self.vfio_ioas = None
        self.objects.clear()

    def respond(self, arg: UserPtr, command: Any) -> None:
        """Give the struct back, as much of it as the caller knows. EFAULT. Models iommufd_ucmd_respond."""
        raw = bytes(uapi.ffi.buffer(command))
        self.host.current.copy_to_user(arg, raw[: command.size])

    def device_of_group(self, number: int) -> bool:
        """Whether a device of IOMMU group ``number`` is bound to it. Models iommufd_ctx_has_group."""
        return number in self.groups

    # -- objects ---------------------------------------------------------------------------------------------

    @ioctl(uapi.IOMMU_DESTROY, "struct iommu_destroy", sized=True, minsz=8, tail=True)
    def destroy(self, command: Any, _arg: UserPtr) -> int:
        """Destroy an object. ENOENT, EBUSY: it is used."""
        vfio_ioas = self.vfio_ioas
        self.objects.remove(command.id)
        if vfio_ioas is not None and vfio_ioas.id == command.id:
            self.vfio_ioas = None
        return 0

    @ioctl(uapi.IOMMU_OPTION, "struct iommu_option", sized=True, minsz=24, tail=True)
    def option(self, command: Any, arg: UserPtr) -> int:
        """Read or set an option. EOPNOTSUPP: unknown; ENOENT, EBUSY, EINVAL, EADDRINUSE."""
        ioas.option(self, command)
        offset = uapi.ffi.offsetof("struct iommu_option", "val64")
        self.host.current.copy_to_user(arg, bytes(uapi.ffi.buffer(command))[offset:], offset)
        return 0

    # -- address spaces --------------------------------------------------------------------------------------

    @ioctl(uapi.IOMMU_IOAS_ALLOC, "struct iommu_ioas_alloc", sized=True, minsz=12, tail=True)
    def ioas_alloc(self, command: Any, arg: UserPtr) -> int:
        """A new address space. EOPNOTSUPP: flags; EFAULT."""
        if command.flags:
            raise KernelError(errno.EOPNOTSUPP, f"flags {command.flags:#x}")
        created = Ioas()
        self.objects.add(created)
        command.out_ioas_id = created.id
        try:
            self.respond(arg, command)
        except KernelError:
            self.objects.remove(created.id)
            raise
        return 0

    @ioctl(uapi.IOMMU_IOAS_IOVA_RANGES, "struct iommu_ioas_iova_ranges", sized=True, minsz=32, tail=True)
    def ioas_iova_ranges(self, command: Any, arg: UserPtr) -> int:
        """Which IOVA may be mapped. EOPNOTSUPP, ENOENT, EFAULT, EMSGSIZE: more than there is room for."""
        ioas.iova_ranges(self, command, arg)
        return 0

    @ioctl(uapi.IOMMU_IOAS_ALLOW_IOVAS, "struct iommu_ioas_allow_iovas", sized=True, minsz=24, tail=True)
    def ioas_allow_iovas(self, command: Any, _arg: UserPtr) -> int:
        """Which IOVA must stay usable. EOPNOTSUPP, ENOENT, EFAULT, EINVAL, EADDRINUSE."""
        ioas.allow_iovas(self, command)
        return 0

    @ioctl(uapi.IOMMU_IOAS_MAP, "struct iommu_ioas_map", sized=True, minsz=40, tail=True)
    def ioas_map(self, command: Any, arg: UserPtr) -> int:
        """Show user memory. EOPNOTSUPP, EOVERFLOW, EINVAL, ENOENT, EEXIST, ENOSPC, EFAULT."""
        ioas.map_memory(self, command)
        self.respond(arg, command)
        return 0

    @ioctl(uapi.IOMMU_IOAS_COPY, "struct iommu_ioas_copy", sized=True, minsz=40, tail=True)
    def ioas_copy(self, command: Any, arg: UserPtr) -> int:
        """Show what another address space, or another place, shows. As `ioas_map`; EPERM: it is read-only."""
        ioas.copy(self, command)
        self.respond(arg, command)
        return 0

    @ioctl(uapi.IOMMU_IOAS_UNMAP, "struct iommu_ioas_unmap", sized=True, minsz=24, tail=True)
    def ioas_unmap(self, command: Any, arg: UserPtr) -> int:
        """Take mappings back. ENOENT, EOVERFLOW, EINVAL, EFAULT."""
        ioas.unmap(self, command)
        self.respond(arg, command)
        return 0

    # -- page tables -----------------------------------------------------------------------------------------

    @ioctl(uapi.IOMMU_HWPT_ALLOC, "struct iommu_hwpt_alloc", sized=True, minsz=24, tail=True)
    def hwpt_alloc(self, command: Any, arg: UserPtr) -> int:
        """A page table for a device. EOPNOTSUPP, EINVAL, ENOENT, EADDRINUSE, EFAULT."""
        hwpts.alloc(self, command, arg)
        return 0

    @ioctl(uapi.IOMMU_GET_HW_INFO, "struct iommu_hw_info", sized=True, minsz=32, tail=True)
    def get_hw_info(self, command: Any, arg: UserPtr) -> int:
        """What IOMMU a device has: nothing that the driver tells. EOPNOTSUPP, ENOENT, EFAULT."""
        hwpts.hw_info(self, command, arg)
        return 0

    @ioctl(
        uapi.IOMMU_HWPT_SET_DIRTY_TRACKING,
        "struct iommu_hwpt_set_dirty_tracking",
        sized=True,
        minsz=16,
        tail=True,
    )
    def hwpt_set_dirty_tracking(self, command: Any, _arg: UserPtr) -> int:
        """EOPNOTSUPP: this IOMMU has none; ENOENT."""
        hwpts.set_dirty_tracking(self, command)
        return 0

    @ioctl(
        uapi.IOMMU_HWPT_GET_DIRTY_BITMAP,
        "struct iommu_hwpt_get_dirty_bitmap",
        sized=True,
        minsz=48,
        tail=True,
    )
    def hwpt_get_dirty_bitmap(self, command: Any, _arg: UserPtr) -> int:
        """EOPNOTSUPP: this IOMMU has none; ENOENT, EOVERFLOW, EINVAL."""
        hwpts.get_dirty_bitmap(self, command)
        return 0

    @ioctl(
        uapi.IOMMU_HWPT_INVALIDATE,
        "struct iommu_hwpt_invalidate",
        sized=True,
        minsz=32,
        tail=True,
    )
    def hwpt_invalidate(self, command: Any, arg: UserPtr) -> int:
        """EOPNOTSUPP, EINVAL, ENOENT: there are no nested page tables."""
        hwpts.invalidate(self, command, arg)
        return 0

    # -- VFIO's containers -----------------------------------------------------------------------------------

    @ioctl(uapi.IOMMU_VFIO_IOAS, "struct iommu_vfio_ioas", sized=True, minsz=12, tail=True)
    def vfio_ioas_option(self, command: Any, arg: UserPtr) -> int:
        """Which address space the requests below mean. EOPNOTSUPP, ENODEV, ENOENT, EFAULT."""
        compat.choose_ioas(self, command, arg)
        return 0

    @ioctl(uapi.VFIO_GET_API_VERSION)
    def get_api_version(self, _arg: UserPtr) -> int:
        """Always 0."""
        return int(uapi.VFIO_API_VERSION)

    @ioctl(uapi.VFIO_CHECK_EXTENSION, value=True)
    def check_extension(self, number: int) -> int:
        """As a container; the older ways to change mappings are absent. ENODEV."""
        return compat.check_extension(self, number)

    @ioctl(uapi.VFIO_SET_IOMMU, value=True)
    def set_iommu(self, kind: int) -> int:
        """Type 1 or 1v2. EINVAL, ENODEV."""
        compat.set_iommu(self, kind)
        return 0

    @ioctl(uapi.VFIO_IOMMU_GET_INFO, "struct vfio_iommu_type1_info", minsz=16, argsz=True, out=False, tail=True)
    def iommu_get_info(self, info: Any, arg: UserPtr) -> int:
        """Page sizes and capabilities. EINVAL, ENODEV, EFAULT."""
        compat.get_info(self, info, arg)
        return 0

    @ioctl(uapi.VFIO_IOMMU_MAP_DMA, "struct vfio_iommu_type1_dma_map", argsz=True)
    def iommu_map_dma(self, request: Any) -> int:
        """Show user memory. EINVAL, ENODEV, EEXIST, EOVERFLOW, EFAULT."""
        compat.map_dma(self, request)
        return 0

    @ioctl(uapi.VFIO_IOMMU_UNMAP_DMA, "struct vfio_iommu_type1_dma_unmap", argsz=True, out=False, tail=True)
    def iommu_unmap_dma(self, request: Any, arg: UserPtr) -> int:
        """Take mappings back. EINVAL, ENODEV, ENOENT, EFAULT."""
        compat.unmap_dma(self, request, arg)
        return 0

    def check(self) -> None:
        """Raise AssertionError when users do not balance."""
        devices, tables = self.objects.of(BoundDevice), self.objects.of(Hwpt)
        assert self._count >= len(devices), f"{len(devices)} devices hold a file with {self._count} references"
        for table in tables:
            attached = sum(table is device.group.hwpt and device in device.group.attached for device in devices)
            assert table.users == attached, f"page table {table.id}: {attached} devices"
        for space in self.objects.of(Ioas):
            used = sum(table.ioas is space for table in tables)
            assert space.users == used == len(space.hwpts), f"IOAS {space.id}: {used} page tables"
            space.space.check_order()
        for device in devices:
            assert device.users == 1 + (device in device.group.attached), f"device {device.id}: {device.users} users"
            where = device.group.hwpt
            for hardware in device.group.group.devices:
                assert where is None or hardware.dma is where.ioas.space, f"{hardware} is not behind its page table"
