"""The VGIC as a KVM device: creation, and the attribute groups that all versions have (vgic-kvm-device.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE
from kvmvfio_emu.kernel.kvm.vgic.modern.core import VgicCore, check_iorange

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vm import Vm

#: VGIC_MAX_RESERVED: interrupt ids from here on are LPIs or special, so there are at most 992 in steps of 32.
_MAX_IRQS = 1023
_MIN_IRQS = PRIVATE + 32


#: The groups of every version, but for ADDR, and for what CTRL also has.
COMMON = (
    AttrGroup(
        "KVM_DEV_ARM_VGIC_GRP_NR_IRQS",
        encodes="number, which is ignored",
        payload="uint32_t",
        gettable=True,
        what="How many interrupts there are, with the private ones: 64 to 992 in steps of 32.",
        errors=("EINVAL another number", "EBUSY set already, or the VGIC is initialised"),
    ),
    AttrGroup(
        "KVM_DEV_ARM_VGIC_GRP_CTRL",
        ("KVM_DEV_ARM_VGIC_CTRL_INIT",),
        what="Initialise: from now on no vCPU can be added.",
    ),
)


class FrameAddress(NamedTuple):
    """A frame that the ADDR group places: the core's attribute with its base, how it is aligned, its size."""

    base: str
    alignment: int
    size: int


def create_vgic(vm: Vm, core: type[VgicCore]) -> None:
    """Give ``vm`` a VGIC; models kvm_vgic_create. EBUSY a vCPU runs, EEXIST it has one, EBUSY a vCPU has run."""
    if any(vcpu.running for vcpu in vm.vcpus):
        raise KernelError(errno.EBUSY, "a vCPU runs")
    if vm.vgic is not None:
        raise KernelError(errno.EEXIST, "the virtual machine has a VGIC")
    if any(vcpu.has_run for vcpu in vm.vcpus):
        raise KernelError(errno.EBUSY, "a vCPU has run without a VGIC")
    vm.vgic = core(vm)


class VgicDevice(KvmDevice):
    """What KVM_CREATE_DEVICE makes. The state is the virtual machine's and stays; this is how userspace reaches it."""

    core_class: ClassVar[type[VgicCore]]
    frames: ClassVar[dict[int, FrameAddress]]

    def create(self) -> None:
        """EEXIST, EBUSY as `create_vgic`."""
        create_vgic(self.vm, self.core_class)

    @property
    def core(self) -> VgicCore:
        """The state behind it."""
        core = self.vm.vgic
        assert isinstance(core, VgicCore)
        return core

    # -- set and get ----------------------------------------------------------------------------------------------

    def set_attr(self, attr: Any) -> int:
        """ENXIO unknown; else as its group says."""
        if not self._set_common(attr) and not self._set_own(attr):
            raise self._unknown(attr)
        return 0

    def get_attr(self, attr: Any) -> int:
        """As `set_attr`, the other way."""
        if not self._get_common(attr) and not self._get_own(attr):
            raise self._unknown(attr)
        return 0

    def _unknown(self, attr: Any) -> KernelError:
        return KernelError(errno.ENXIO, f"{self.name} has no attribute {attr.attr:#x} in group {attr.group}")

    # -- what the version adds ------------------------------------------------------------------------------------

    def _set_own(self, attr: Any) -> bool:
        return False

    def _get_own(self, attr: Any) -> bool:
        return False

    def _control(self, attribute: int) -> bool:
        """Do what an attribute of the CTRL group asks for."""
        if attribute != uapi.KVM_DEV_ARM_VGIC_CTRL_INIT:
            return False
        self.core.init()
        return True

    def _set_address(self, kind: int, address: int) -> bool:
        frame = self.frames.get(kind)
        if frame is None:
            return False
        self.place(self.core, frame, address)
        return True

    def _get_address(self, kind: int, attr: Any) -> int | None:
        """``attr`` for kinds that take an argument in the payload."""
        frame = self.frames.get(kind)
        return None if frame is None else int(getattr(self.core, frame.base))

    # -- the common groups ------------------------------------------------------------------------------------------

    def _set_common(self, attr: Any) -> bool:
        task = self.host.current
        if attr.group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            return self._set_address(attr.attr, int.from_bytes(task.copy_from_user(attr.addr, 8), "little"))
        if attr.group == uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
            self._set_irqs(int.from_bytes(task.copy_from_user(attr.addr, 4), "little"))
            return True
        return bool(attr.group == uapi.KVM_DEV_ARM_VGIC_GRP_CTRL) and self._control(attr.attr)

    def _get_common(self, attr: Any) -> bool:
        task = self.host.current
        if attr.group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            address = self._get_address(attr.attr, attr)
            if address is None:
                return False
            task.copy_to_user(attr.addr, address.to_bytes(8, "little"))
            return True
        if attr.group == uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
            task.copy_to_user(attr.addr, self.core.nr_irqs.to_bytes(4, "little"))
            return True
        return False

    @staticmethod
    def place(core: VgicCore, frame: FrameAddress, address: int) -> None:
        """Give a frame its address; overlaps are not looked at before KVM_RUN. EEXIST, EINVAL, E2BIG."""
        check_iorange(core.vm, getattr(core, frame.base), address, frame.alignment, frame.size)
        setattr(core, frame.base, address)

    def _set_irqs(self, count: int) -> None:
        if count < _MIN_IRQS or count > _MAX_IRQS or count % 32:
            raise KernelError(errno.EINVAL, f"{count} interrupts: {_MIN_IRQS} to {_MAX_IRQS} in steps of 32")
        if self.core.nr_spis:
            raise KernelError(errno.EBUSY, "the number of interrupts is set")
        self.core.nr_spis = count - PRIVATE

    def stopped(self) -> None:
        """Registers are only for a virtual machine that stands still (lock_all_vcpus). EBUSY."""
        if any(vcpu.running for vcpu in self.vm.vcpus):
            raise KernelError(errno.EBUSY, "a vCPU is running")
