"""The KVM-VFIO device: how KVM learns of VFIO groups, and of interrupts to forward (virt/kvm/vfio.c).

KVM meets VFIO here only, through VFIO's external-user API, found when it is needed as symbol_get does.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.kernel.kvm.forward import ForwardControl, forward_control
from kvmvfio_emu.kernel.vfio import external

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.kvm.vm import Vm

_ASSIGN = ("KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ", "KVM_DEV_VFIO_DEVICE_DEASSIGN_IRQ")
_FORWARD = ("KVM_DEV_VFIO_DEVICE_FORWARD_IRQ", "KVM_DEV_VFIO_DEVICE_UNFORWARD_IRQ")
#: The forward control, by either name.
_DEVICE = AttrGroup(
    "KVM_DEV_VFIO_DEVICE",
    payload="struct kvm_arch_forwarded_irq",
    what="Let the guest's end of interrupt complete a device's physical interrupt, or no longer. Drafts 4 to 6 take a "
    "`struct kvm_vfio_dev_irq`, with one gsi after it.",
    errors=(
        "ENXIO the host's interrupt controller has no split completion",
        "EBADF no such descriptor",
        "EINVAL not a VFIO device, not on the platform bus, no such interrupt; no VGIC or vCPU, gsi too high; "
        "forwarded already, or DEASSIGN when it is not; drafts 4 to 6: argsz, start, count",
        "EEXIST the gsi has another physical interrupt",
        "EBUSY another virtual machine has it forwarded; draft 3: signalling is set up",
        "EAGAIN drafts 4 to 6: in flight (active or masked)",
    ),
)


class KvmVfio(KvmDevice):
    """KVM_DEV_TYPE_VFIO. One a virtual machine; it lives until the virtual machine goes, or its own descriptor."""

    name = "kvm-vfio"
    type_name = "KVM_DEV_TYPE_VFIO"
    attributes = (
        AttrGroup(
            "KVM_DEV_VFIO_GROUP",
            ("KVM_DEV_VFIO_GROUP_ADD", "KVM_DEV_VFIO_GROUP_DEL"),
            payload="int32_t",
            what="Tell KVM of an open VFIO group whose devices the virtual machine uses, or no longer uses.",
            errors=(
                "EBADF no such descriptor",
                "EINVAL it is not what may be added; before Linux 5.18 also a group without container and IOMMU",
                "EEXIST added already",
                "ENOENT DEL of what was not added",
            ),
        ),
        replace(_DEVICE, names=_ASSIGN, when="forward_control=assign"),
        replace(_DEVICE, names=_FORWARD, when="forward_control=forward"),
    )

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        #: (file, group) of every group that was added; of what is held as an open file only, the group is None.
        self.groups: list[tuple[File, external.VfioGroup | None]] = []
        self.forward: ForwardControl | None = forward_control(vm)

    def create(self) -> None:
        """EBUSY when the virtual machine has one."""
        if any(isinstance(device, KvmVfio) for device in self.vm.devices):
            raise KernelError(errno.EBUSY, "the virtual machine has a KVM-VFIO device")

    def destroy(self) -> None:
        """Interrupts before groups: a forwarded one holds its device, and so its group."""
        if self.forward is not None:
            self.forward.cleanup()
        for file, group in self.groups:
            _let_go(file, group)
        self.groups.clear()

    @property
    def ends_with_file(self) -> bool:
        """As the profile says."""
        return self.host.profile.device_release

    def has_attr(self, attr: Any) -> int:
        """GROUP (or FILE): ADD, DEL. DEVICE: as the profile's forward control; ENXIO where there is none."""
        if self.declared(attr).number == uapi.KVM_DEV_VFIO_DEVICE and self.forward is None:
            raise KernelError(errno.ENXIO, "the host's interrupt controller does not forward")
        return 0

    def set_attr(self, attr: Any) -> int:
        """ENXIO as `has_attr`; EFAULT the payload; then as `_add`, `_delete` or the forward control."""
        self.has_attr(attr)
        if attr.group == uapi.KVM_DEV_VFIO_DEVICE:
            assert self.forward is not None
            self.forward.control(attr.attr, attr.addr)
            return 0
        fd = int.from_bytes(self.host.current.copy_from_user(attr.addr, 4), "little", signed=True)
        file = self.host.current.fdget(fd)
        if attr.attr == uapi.KVM_DEV_VFIO_GROUP_ADD:
            self._add(file)
        else:
            self._delete(file)
        return 0

    def _require_vfio(self) -> None:
        """EINVAL when VFIO is not loaded: the wrappers look its functions up by name."""
        if self.host.module("vfio") is None:
            raise KernelError(errno.EINVAL, "VFIO is not loaded")

    def _add(self, file: File | None) -> None:
        """EINVAL neither a group nor (on newer kernels) a device; on older ones a group without container and IOMMU.
        EEXIST added already: the same group then, the same open file now."""
        self._require_vfio()
        if not self.host.profile.group_add_needs_iommu:
            self._add_file(file)
            return
        group = external.group_get_external_user(file)
        if any(held is group for _, held in self.groups):
            external.group_put_external_user(group)
            raise KernelError(errno.EEXIST, "the group was added already")
        assert file is not None
        self.groups.append((file, group))

    def _add_file(self, file: File | None) -> None:
        if file is None or not external.file_is_valid(file):
            raise KernelError(errno.EINVAL, "neither a VFIO group nor a VFIO device")
        if any(held is file for held, _ in self.groups):
            raise KernelError(errno.EEXIST, "the file was added already")
        file.get()
        self.groups.append((file, None))
        external.file_set_kvm(file, self.vm)

    def _delete(self, file: File | None) -> None:
        """ENOENT not added; before the fix of 2017 EINVAL for what is not a usable group."""
        self._require_vfio()
        if not self.host.profile.group_del_by_file:
            wanted = external.group_get_external_user(file)
            external.group_put_external_user(wanted)
        for entry in self.groups:
            if entry[0] is file:
                self.groups.remove(entry)
                _let_go(*entry)
                return
        raise KernelError(errno.ENOENT, "the group was not added")

    def check(self) -> None:
        """Raise AssertionError when the state contradicts itself."""
        if self.forward is not None:
            self.forward.check()


def _let_go(file: File, group: external.VfioGroup | None) -> None:
    if group is not None:
        external.group_put_external_user(group)
    else:
        external.file_set_kvm(file, None)
        file.put()
