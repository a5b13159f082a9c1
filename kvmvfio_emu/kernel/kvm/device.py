"""In-kernel devices of a virtual machine and their attributes (KVM_CREATE_DEVICE, kvm_device_ops)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, ClassVar

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup, find

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vm import Vm


class KvmDevice:
    """``struct kvm_device`` with its operations; a subclass is a device type.

    `create` runs before the descriptor exists and may refuse; `destroy` when the virtual machine goes.
    """

    #: What the link of its descriptor says: anon_inode:NAME.
    name: ClassVar[str] = "kvm-device"
    #: The constant of its type, KVM_DEV_TYPE_*.
    type_name: ClassVar[str]
    #: Which kernels have the type (`Profile.offers`), and on which version of the host's GIC (0: any).
    when: ClassVar[str] = ""
    host_gic: ClassVar[int] = 0
    attributes: ClassVar[tuple[AttrGroup, ...]] = ()

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.host = vm.host

    def create(self) -> None:
        """Take the place in the virtual machine, or raise."""

    def destroy(self) -> None:
        """Give everything back."""

    @property
    def ends_with_file(self) -> bool:
        """Whether its descriptor's last close ends it (kvm_device_ops.release), not only the virtual machine's end."""
        return False

    def set_attr(self, attr: Any) -> int:
        """KVM_SET_DEVICE_ATTR with a ``struct kvm_device_attr``."""
        raise KernelError(errno.EPERM, f"{self.name} has no attribute to set")

    def get_attr(self, attr: Any) -> int:
        """KVM_GET_DEVICE_ATTR."""
        raise KernelError(errno.EPERM, f"{self.name} has no attribute to get")

    def has_attr(self, attr: Any) -> int:
        """KVM_HAS_DEVICE_ATTR: 0 or ENXIO; never looks at ``addr``."""
        row = self.declared(attr)
        if row.encodes and not self.has_encoded(row, attr):
            raise KernelError(errno.ENXIO, f"{self.name}: {attr.attr:#x} is no {row.encodes}")
        return 0

    def declared(self, attr: Any) -> AttrGroup:
        """The row of `attributes` that ``attr`` is of, or ENXIO."""
        return find(self.attributes, attr, self.host.profile, self.name)

    def has_encoded(self, row: AttrGroup, attr: Any) -> bool:
        """Whether an attribute of a group of free numbers exists."""
        return True

    def check(self) -> None:
        """Raise AssertionError when the state contradicts itself."""


class DeviceFile(File):
    """The descriptor of a device. It holds the virtual machine; closing it does not end the device."""

    kind = "device"
    unknown_errno = errno.ENOTTY

    def __init__(self, device: KvmDevice) -> None:
        super().__init__(device.host)
        self.device = device
        self.link = f"anon_inode:{device.name}"
        self.detail = device.name
        device.vm.get(self)

    # The verb is looked up before the argument is read: GET on a device without it is EPERM for any pointer.

    @ioctl(uapi.KVM_SET_DEVICE_ATTR, "struct kvm_device_attr")
    def set_device_attr(self, attr: Any) -> int:
        """Set an attribute. ENXIO unknown group or attribute, else as the device says."""
        return self.device.set_attr(attr)

    @ioctl(uapi.KVM_GET_DEVICE_ATTR)
    def get_device_attr(self, arg: Any) -> int:
        """Get an attribute. EPERM when the device has none to get."""
        if type(self.device).get_attr is KvmDevice.get_attr:
            raise KernelError(errno.EPERM, f"{self.device.name} has no get_attr")
        raw = self.host.current.copy_from_user(arg, uapi.sizeof("struct kvm_device_attr"))
        return self.device.get_attr(uapi.view("struct kvm_device_attr", raw))

    @ioctl(uapi.KVM_HAS_DEVICE_ATTR, "struct kvm_device_attr")
    def has_device_attr(self, attr: Any) -> int:
        """0 when the attribute exists, ENXIO when not."""
        return self.device.has_attr(attr)

    def release(self) -> None:
        """The reference to the virtual machine goes, and before it some devices do."""
        vm = self.device.vm
        if self.device.ends_with_file:
            vm.devices.remove(self.device)
            self.device.destroy()
        vm.put(self)
