"""KVM_DEV_TYPE_ARM_VGIC_ITS: any number of them, before or after the GICv3 (vgic-its.c)."""

from __future__ import annotations

import errno
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import gicv3
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.kernel.kvm.vgic.api import UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern import its_mmio, its_tables
from kvmvfio_emu.kernel.kvm.vgic.modern.core import check_iorange
from kvmvfio_emu.kernel.kvm.vgic.modern.its import Its

_ADDR, _CTRL = uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL
_REGS = uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS
_INIT = uapi.KVM_DEV_ARM_VGIC_CTRL_INIT
_CONTROLS = {
    uapi.KVM_DEV_ARM_ITS_CTRL_RESET: Its.reset,
    uapi.KVM_DEV_ARM_ITS_SAVE_TABLES: its_tables.save,
    uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES: its_tables.restore,
}
_ALIGNMENT = 0x10000


class ItsDevice(KvmDevice):
    """ADDR, CTRL and ITS_REGS: 64 bits at an offset, whatever the register's width."""

    name = "kvm-arm-vgic-its"
    type_name = "KVM_DEV_TYPE_ARM_VGIC_ITS"
    when = "vgic_modern arch!=x86_64"
    host_gic = 3
    attributes = (
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_ADDR",
            ("KVM_VGIC_ITS_ADDR_TYPE",),
            payload="uint64_t",
            gettable=True,
            what="The guest physical address of its 128 KiB. Unset it reads as all ones.",
            errors=(
                "ENODEV another type",
                "EEXIST set already",
                "EINVAL not 64 KiB aligned, or wrapping",
                "E2BIG beyond the guest's space",
            ),
        ),
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_CTRL",
            (
                "KVM_DEV_ARM_VGIC_CTRL_INIT",
                "KVM_DEV_ARM_ITS_SAVE_TABLES",
                "KVM_DEV_ARM_ITS_RESTORE_TABLES",
                "KVM_DEV_ARM_ITS_CTRL_RESET",
            ),
            what="Initialise (nothing is left to do), write the tables to guest memory, read them back, forget all.",
            errors=(
                "EBUSY a vCPU is running",
                "EINVAL tables that have no place, or make no sense",
                "EEXIST tables with a collection twice",
                "EFAULT tables where the guest has no memory",
            ),
        ),
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_ITS_REGS",
            encodes="ITS register",
            payload="uint64_t",
            gettable=True,
            what="A register: the attribute is its offset, the payload always has 64 bits.",
            errors=(
                "EINVAL misaligned, or a value that the register refuses",
                "EBUSY a vCPU is running, or the ITS is enabled",
                "ENXIO no address yet",
            ),
        ),
    )

    def create(self) -> None:
        """From now on the virtual machine has LPIs, and its MSIs need a device id."""
        self.its = Its(self.vm)
        self.vm.lpis.add_its(self.its)

    def destroy(self) -> None:
        """With its virtual machine, or when no descriptor was free."""
        self.its.free_devices()
        self.its.free_collections()
        self.vm.lpis.remove_its(self.its)

    def check(self) -> None:
        """Raise AssertionError when translations and LPIs contradict each other."""
        self.vm.lpis.check()

    def has_encoded(self, row: AttrGroup, attr: Any) -> bool:
        """ITS_REGS: ENXIO no register there; EINVAL misaligned."""
        _register(attr.attr)
        return True

    def set_attr(self, attr: Any) -> int:
        """ADDR: ENODEV another type, EFAULT, EEXIST, EINVAL, E2BIG. CTRL: EBUSY a vCPU runs, else as what it does.
        ITS_REGS: EFAULT, EINVAL, EBUSY, ENXIO without an address or a register. ENXIO any other group."""
        task = self.host.current
        if attr.group == _ADDR:
            self._need_address_type(attr)
            address = int.from_bytes(task.copy_from_user(attr.addr, 8), "little")
            check_iorange(self.vm, self.its.base, address, _ALIGNMENT, its_mmio.FRAME_SIZE)
            self.its.base = address
        elif attr.group == _CTRL:
            self._control(attr.attr)
        elif attr.group == _REGS:
            value = int.from_bytes(task.copy_from_user(attr.addr, 8), "little")
            register, size = self._access(attr.attr)
            write = register.user_write or register.write
            write(self.its, attr.attr, size, value & (1 << 8 * size) - 1)
        else:
            raise self._unknown(attr)
        return 0

    def get_attr(self, attr: Any) -> int:
        """As `set_attr`, the other way; an unset address reads as all ones."""
        if attr.group == _ADDR:
            self._need_address_type(attr)
            value = self.its.base
        elif attr.group == _REGS:
            register, size = self._access(attr.attr)
            value = register.read(self.its, attr.attr, size)
        else:
            raise self._unknown(attr)
        self.host.current.copy_to_user(attr.addr, value.to_bytes(8, "little"))
        return 0

    def _unknown(self, attr: Any) -> KernelError:
        return KernelError(errno.ENXIO, f"an ITS has no attribute {attr.attr:#x} in group {attr.group}")

    @staticmethod
    def _need_address_type(attr: Any) -> None:
        if attr.attr != uapi.KVM_VGIC_ITS_ADDR_TYPE:
            raise KernelError(errno.ENODEV, f"an ITS has no frame {attr.attr}")

    def _control(self, attribute: int) -> None:
        if attribute == _INIT:
            return
        self._stopped()
        action = _CONTROLS.get(attribute)
        if action is not None:  # the kernel has no word against an unknown one
            action(self.its)

    def _stopped(self) -> None:
        if any(vcpu.running for vcpu in self.vm.vcpus):
            raise KernelError(errno.EBUSY, "a vCPU is running")

    def _access(self, offset: int) -> tuple[its_mmio.ItsRegister, int]:
        """The register at ``offset`` and its width in bytes."""
        _check_aligned(offset)
        self._stopped()
        if self.its.base == UNDEFINED_ADDRESS:
            raise KernelError(errno.ENXIO, "the ITS has no guest address yet")
        register = _register(offset)
        return register, max(register.access)


def _check_aligned(offset: int) -> None:
    """All but the first two and the identification registers are 64 bits wide and accessed as a whole."""
    if offset % (4 if offset < gicv3.GITS_TYPER or offset >= gicv3.GITS_PIDR4 else 8):
        raise KernelError(errno.EINVAL, f"offset {offset:#x} is misaligned")


def _register(offset: int) -> its_mmio.ItsRegister:
    _check_aligned(offset)
    register = its_mmio.find(offset)
    if register is None:
        raise KernelError(errno.ENXIO, f"an ITS has no register at {offset:#x}")
    return register
