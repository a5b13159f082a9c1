"""VFIO devices and their files, what all bus drivers share; models vfio_device of drivers/vfio/vfio.c."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any, ClassVar

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.task import UserPtr
from kvmvfio_emu.kernel.vfio.bus import BusDevice
from kvmvfio_emu.kernel.vfio.iommufd import IommufdBinding
from kvmvfio_emu.kernel.vfio.mapping import OFFSET_MASK, REGION_SHIFT, Window

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.file import IommufdFile
    from kvmvfio_emu.kernel.vfio.group import VfioGroup

_OWN_NODE = (uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT)


class VfioDevice:
    """A device that a VFIO driver is bound to; subclasses are the drivers.

    ``refs``: one for the bound driver, each open file, and each external user (a forwarded interrupt).
    ``open_count``: how many files may use it; the driver's `enable` runs at the first, `disable` at the last.
    """

    #: The kind of file that this driver gives out.
    file_type: ClassVar[type[VfioDeviceFile]]

    def __init__(self, group: VfioGroup, device: BusDevice) -> None:
        self.group = group
        self.vfio = group.vfio
        self.host = group.vfio.host
        self.device = device
        self.hw = device.hw
        self.refs = 1
        self.external_users = 0
        self.open_count = 0
        self.windows: list[Window] = []
        self.iommufd = IommufdBinding(self)
        group.get()
        group.devices[device.name] = self
        self.index = group.vfio.register(self)

    @property
    def name(self) -> str:
        """The name that GET_DEVICE_FD takes."""
        return self.device.name

    # -- references --------------------------------------------------------------------------------

    def get(self) -> None:
        """One more reference."""
        assert self.refs > 0, f"{self} used after its end"
        self.refs += 1

    def put(self) -> None:
        """One reference less. The last ends the device, and the wait of an unbinding driver."""
        assert self.refs > 0, f"{self} put once too often"
        self.refs -= 1
        if not self.refs:
            del self.group.devices[self.name]
            self.vfio.device_gone(self)
            self.group.put()

    # -- opening -----------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Its own node, on kernels that have it."""
        return f"/dev/vfio/devices/vfio{self.index}"

    def open(self) -> VfioDeviceFile:
        """A new open file through its group, which stays in its container while it lives. The driver's errors.

        The group may use an iommufd for a container: then the first opening binds the device to that.
        """
        group = self.group
        self.start(group.iommufd)
        if group.iommufd is not None and self.open_count == 1:
            try:
                self.iommufd.attach_compat(group.iommufd)
            except KernelError:
                self.stop()
                raise
        file = self.file_type(self)
        file.granted = file.by_group = True
        if group.iommufd is None:
            file.in_container = True
            group.container_users += 1
        return file

    def open_node(self) -> VfioDeviceFile:
        """Open its own node: useless until it is bound to an iommufd. Models vfio_device_fops_cdev_open."""
        file = self.file_type(self)
        file.link = self.path
        return file

    def start(self, iommufd: IommufdFile | None) -> None:
        """One opening more; the first binds it and runs the driver's `enable`. Models vfio_df_open."""
        if not self.open_count:
            if iommufd is not None:
                self.iommufd.bind(iommufd)
            try:
                self.enable()
            except KernelError:
                self.iommufd.unbind()
                raise
        self.open_count += 1

    def stop(self) -> None:
        """One less; the last runs `disable` and unbinds it. Models vfio_df_close."""
        self.open_count -= 1
        if not self.open_count:
            self.disable()
            self.iommufd.unbind()

    def enable(self) -> None:
        """The first opening."""

    def disable(self) -> None:
        """The last close."""

    def request(self) -> None:
        """The bound driver wants to let go, and somebody holds the device: ask for it. By default nobody is told."""

    def masks(self) -> dict[int, bool]:
        """The interrupts that can be masked, by index, and whether they are; for listings."""
        return {}

    # -- registers ---------------------------------------------------------------------------------

    @property
    def map_size(self) -> int:
        """The size of the file as mmap sees it: the end of the last region's place."""
        return 0

    def access_read(self, region: int, offset: int, size: int) -> int:
        """A guest reads a register that is mapped through to it; the access lies inside the region."""
        return self.hw.read(region, offset, size)

    def access_write(self, region: int, offset: int, size: int, value: int) -> None:
        """A guest writes such a register."""
        self.hw.write(region, offset, size, value)

    def sync(self) -> None:
        """Make mapped pages and registers agree: first what clients stored, then what they will read."""
        for window in self.windows:
            window.push()
        for window in self.windows:
            window.pull()

    def check(self) -> None:
        """Raise AssertionError when its state contradicts itself."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} refs {self.refs} open {self.open_count}>"


class VfioDeviceFile(File):
    """An open VFIO device. Several files of one device share all its state."""

    kind = "vfio-device"
    link = "anon_inode:[vfio-device]"
    is_device_memory = True

    def __init__(self, device: VfioDevice) -> None:
        super().__init__(device.host)
        device.get()
        self.device = device
        self.detail = device.name
        self.map_size = device.map_size
        self.window = Window(device)
        self.position = 0
        self.granted = False  #: the device may be used: opened through its group, or bound
        self.by_group = False
        self.in_container = False  #: counts as a user of the group's container
        self.kvm: object = None  #: the virtual machine that KVM said uses it

    def require_granted(self) -> None:
        """EINVAL before the device's own node is bound to an iommufd."""
        if not self.granted:
            raise KernelError(errno.EINVAL, f"{self.device.name} is not bound to an iommufd")

    # -- the device's own node -------------------------------------------------------------------------------

    @ioctl(
        uapi.VFIO_DEVICE_BIND_IOMMUFD,
        "struct vfio_device_bind_iommufd",
        minsz=16,
        argsz=True,
        tail=True,
        when="vfio_device_cdev",
    )
    def bind_iommufd(self, request: Any, arg: UserPtr) -> int:
        """Give the device to an iommufd, and this file its use. EINVAL, EBUSY: an open group; EBADF, EBADFD, EPERM."""
        from kvmvfio_emu.kernel.vfio import cdev  # here and below: older kernels never need it

        cdev.bind(self, request, arg)
        return 0

    @ioctl(
        uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
        "struct vfio_device_attach_iommufd_pt",
        minsz=12,
        argsz=True,
        tail=True,
        when="vfio_device_cdev",
    )
    def attach_iommufd_pt(self, request: Any, arg: UserPtr) -> int:
        """Put the device behind an address space or page table. EINVAL, ENOENT, EADDRINUSE, EFAULT."""
        from kvmvfio_emu.kernel.vfio import cdev

        cdev.attach(self, request, arg)
        return 0

    @ioctl(
        uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT,
        "struct vfio_device_detach_iommufd_pt",
        minsz=8,
        argsz=True,
        when="vfio_device_cdev",
    )
    def detach_iommufd_pt(self, request: Any) -> int:
        """Block the device's DMA. EINVAL."""
        from kvmvfio_emu.kernel.vfio import cdev

        cdev.detach(self, request)
        return 0

    @ioctl(uapi.VFIO_DEVICE_FEATURE, when="device_feature")
    def device_feature(self, arg: UserPtr) -> int:
        """Newer kernels ask the driver; ours have no feature: ENOTTY, or EINVAL for a bad header."""
        argsz, flags = struct.unpack("<II", self.host.current.copy_from_user(arg, 8))
        verbs = uapi.VFIO_DEVICE_FEATURE_GET | uapi.VFIO_DEVICE_FEATURE_SET
        known = uapi.VFIO_DEVICE_FEATURE_MASK | uapi.VFIO_DEVICE_FEATURE_PROBE | verbs
        if argsz < 8 or flags & ~known:
            raise KernelError(errno.EINVAL, f"argsz {argsz} is below 8, or unknown flags in {flags:#x}")
        if not flags & uapi.VFIO_DEVICE_FEATURE_PROBE and flags & verbs == verbs:
            raise KernelError(errno.EINVAL, "GET and SET exclude each other")
        raise KernelError(errno.ENOTTY, f"{self.device.name} has no such feature")

    @property
    def mapped_memory(self) -> int:
        """As `File`."""
        assert self.window.fd is not None
        return self.window.fd

    def trap_mappings(self) -> None:
        """As `File`."""
        self.window.trapped = True

    @property
    def traps_mappings(self) -> bool:
        """As `File`."""
        return self.window.trapped

    def show_mappings(self) -> None:
        """As `File`."""
        self.window.show(self.map_size)

    def attach_backing(self, fd: int) -> None:
        """The door's memfd behind this file's descriptors, ``map_size`` bytes (or none); the file closes it."""
        self.window.attach(fd)

    def mapped_read(self, offset: int, size: int) -> int:
        """A load through a mapping of this file; the access lies inside the mapped pages."""
        return self.device.access_read(offset >> REGION_SHIFT, offset & OFFSET_MASK, size)

    def mapped_write(self, offset: int, size: int, value: int) -> None:
        """A store through a mapping of this file."""
        self.device.access_write(offset >> REGION_SHIFT, offset & OFFSET_MASK, size, value)

    def abandon(self) -> None:
        """The mappings' memory."""
        self.window.detach()

    def release(self) -> None:
        """The last reference is gone: the driver's share, then the group's, then the device's."""
        device = self.device
        self.window.close()
        if self.granted:
            device.stop()
        if self.in_container:
            device.group.leave_user()
        elif self.granted and not self.by_group:
            device.group.unblock()
        device.put()

    # Last in the class, since it hides the decorator of the same name.
    def ioctl(self, request: int, arg: UserPtr) -> Any:
        """EINVAL before BIND_IOMMUFD; what belongs to the device's own node is unknown through a group."""
        if request in _OWN_NODE:
            if self.by_group:
                return self.unknown_ioctl(request, arg)
            self.require_granted()
        elif not self.granted and request != uapi.VFIO_DEVICE_BIND_IOMMUFD:
            self.require_granted()
        return super().ioctl(request, arg)
