"""The VGICv2 as a KVM device, and its older API (virt/kvm/arm/vgic.c, vgic-v2-emul.c: attributes and addresses)."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.kernel.kvm.memory import PHYS_BITS
from kvmvfio_emu.kernel.kvm.vgic import cpuif, lists
from kvmvfio_emu.kernel.kvm.vgic.api import UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.cpuif import CPU_SIZE
from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic
from kvmvfio_emu.kernel.kvm.vgic.registers import DIST_SIZE

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.kernel.kvm.vm import Vm

_FRAMES = {uapi.KVM_VGIC_V2_ADDR_TYPE_DIST: DIST_SIZE, uapi.KVM_VGIC_V2_ADDR_TYPE_CPU: CPU_SIZE}
_MIN_IRQS, _MAX_IRQS = 64, 1024
_REGISTER_GROUPS = (uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, uapi.KVM_DEV_ARM_VGIC_GRP_CPU_REGS)
_LEGACY_DEVICE_SHIFT, _LEGACY_TYPE_MASK = 16, 0xFFFF


class BitmapVgics:
    """The VGICs of Linux 3.17 to 4.6 in this model: a GICv2 gives VGICv2s, anything else none."""

    max_vcpus: int | None = None

    def __init__(self, host: Host) -> None:
        self._possible = host.machine.board.gic_version == 2

    def create_irqchip(self, vm: Vm) -> None:
        """ENXIO no hardware for it; else as `create_vgic`."""
        if not self._possible:
            raise KernelError(errno.ENXIO, "the host's interrupt controller cannot host a VGICv2")
        create_vgic(vm)

    def set_legacy_address(self, vm: Vm, identifier: int, address: int) -> None:
        """As `set_legacy_address`."""
        set_legacy_address(vm, identifier, address)


def create_vgic(vm: Vm) -> None:
    """Give ``vm`` a VGIC. EEXIST it has one; EBUSY a vCPU has run or runs."""
    if vm.vgic is not None:
        raise KernelError(errno.EEXIST, "the virtual machine has a VGIC")
    if any(vcpu.has_run or vcpu.running for vcpu in vm.vcpus):
        raise KernelError(errno.EBUSY, "a vCPU has run without a VGIC")
    vm.vgic = Vgic(vm)


def set_legacy_address(vm: Vm, identifier: int, address: int) -> None:
    """KVM_ARM_SET_DEVICE_ADDR. ENODEV unknown device or frame, ENXIO no hardware for it, then as `set_address`."""
    if identifier >> _LEGACY_DEVICE_SHIFT & 0xFFFF != uapi.KVM_ARM_DEVICE_VGIC_V2:
        raise KernelError(errno.ENODEV, f"no device {identifier >> _LEGACY_DEVICE_SHIFT:#x} with an address")
    if uapi.KVM_DEV_TYPE_ARM_VGIC_V2 not in vm.kvm.device_types:
        raise KernelError(errno.ENXIO, "the host's interrupt controller cannot host a VGICv2")
    frame = identifier & _LEGACY_TYPE_MASK
    if frame not in _FRAMES:
        raise KernelError(errno.ENODEV, f"a VGICv2 has no frame {frame}")
    if vm.vgic is None:
        _check_address(address)
        # Only creating the VGIC makes the addresses undefined; until then they are 0, which counts as set.
        raise KernelError(errno.EEXIST, "the virtual machine has no VGIC yet, so its frames are at 0")
    assert isinstance(vm.vgic, Vgic)
    set_address(vm.vgic, frame, address)


def set_address(vgic: Vgic, frame: int, address: int) -> None:
    """Place a frame. E2BIG beyond the guest physical space, EINVAL unaligned or wrapping, EEXIST, EBUSY overlap."""
    size = _FRAMES[frame]
    _check_address(address)
    if _address(vgic, frame) != UNDEFINED_ADDRESS:
        raise KernelError(errno.EEXIST, "the frame has an address")
    if address + size > 1 << PHYS_BITS:
        raise KernelError(errno.EINVAL, "the frame does not fit below the end of the guest physical space")
    _place(vgic, frame, address)
    dist, cpu = vgic.dist_base, vgic.cpu_base
    if UNDEFINED_ADDRESS not in (dist, cpu) and dist < cpu + CPU_SIZE and cpu < dist + DIST_SIZE:
        _place(vgic, frame, UNDEFINED_ADDRESS)
        raise KernelError(errno.EBUSY, "distributor and CPU interface would overlap")


def _check_address(address: int) -> None:
    if address & ~((1 << PHYS_BITS) - 1):
        raise KernelError(errno.E2BIG, f"address {address:#x} has more than {PHYS_BITS} bits")
    if address % 0x1000:
        raise KernelError(errno.EINVAL, f"address {address:#x} is not 4 KiB aligned")


def _address(vgic: Vgic, frame: int) -> int:
    return vgic.dist_base if frame == uapi.KVM_VGIC_V2_ADDR_TYPE_DIST else vgic.cpu_base


def _place(vgic: Vgic, frame: int, address: int) -> None:
    if frame == uapi.KVM_VGIC_V2_ADDR_TYPE_DIST:
        vgic.dist_base = address
    else:
        vgic.cpu_base = address


#: What DIST_REGS and CPU_REGS have in common.
_REGISTERS = AttrGroup(
    "",
    payload="uint32_t",
    gettable=True,
    what="A register: bits 0 to 31 of the attribute are its offset in the frame, bits 32 to 39 the vCPU. Initialises.",
    errors=(
        "ENODEV there is no vCPU",
        "EINVAL no such vCPU",
        "EBUSY a vCPU is running",
    ),
)


class VgicV2Device(KvmDevice):
    """KVM_DEV_TYPE_ARM_VGIC_V2. The state lives in the virtual machine's `Vgic`; this is how userspace reaches it."""

    name = "kvm-arm-vgic-v2"
    type_name = "KVM_DEV_TYPE_ARM_VGIC_V2"
    when = "!vgic_modern arch!=x86_64"
    host_gic = 2
    attributes = (
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_ADDR",
            ("KVM_VGIC_V2_ADDR_TYPE_DIST", "KVM_VGIC_V2_ADDR_TYPE_CPU"),
            payload="uint64_t",
            gettable=True,
            what="The guest physical address of a frame: 4 KiB for the distributor, 8 KiB for the CPU interface. "
            "Unset it reads as all ones.",
            errors=(
                "E2BIG beyond the guest physical space",
                "EINVAL not 4 KiB aligned, or wrapping",
                "EEXIST set already",
                "EBUSY the two would overlap",
            ),
        ),
        replace(_REGISTERS, group="KVM_DEV_ARM_VGIC_GRP_DIST_REGS", encodes="distributor register of a vCPU"),
        replace(_REGISTERS, group="KVM_DEV_ARM_VGIC_GRP_CPU_REGS", encodes="CPU interface register of a vCPU"),
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_NR_IRQS",
            encodes="number, which is ignored",
            payload="uint32_t",
            gettable=True,
            what="How many interrupts there are, with the private ones: 64 to 1024 in steps of 32.",
            errors=("EINVAL another number", "EBUSY set already, or the VGIC is initialised"),
        ),
        AttrGroup(
            "KVM_DEV_ARM_VGIC_GRP_CTRL",
            ("KVM_DEV_ARM_VGIC_CTRL_INIT",),
            when="vgic_ctrl",
            what="Initialise: from now on no vCPU can be added.",
            errors=("ENODEV there is no vCPU",),
        ),
    )

    def create(self) -> None:
        """EEXIST, EBUSY as `create_vgic`."""
        create_vgic(self.vm)

    @property
    def _vgic(self) -> Vgic:
        vgic = self.vm.vgic
        assert isinstance(vgic, Vgic)
        return vgic

    def has_encoded(self, row: AttrGroup, attr: Any) -> bool:
        """DIST_REGS and CPU_REGS: where there is a register at the offset."""
        offset = attr.attr & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
        if row.number == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
            return self._vgic.distributor.known(offset)
        return row.number != uapi.KVM_DEV_ARM_VGIC_GRP_CPU_REGS or cpuif.known(offset)

    def set_attr(self, attr: Any) -> int:
        """EFAULT the payload; ENXIO unknown; else by group (see the contract's section 6)."""
        task, group = self.host.current, attr.group
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            address = int.from_bytes(task.copy_from_user(attr.addr, 8), "little")
            if attr.attr not in _FRAMES:
                raise self._unknown(attr)
            set_address(self._vgic, attr.attr, address)
        elif group in _REGISTER_GROUPS:
            value = int.from_bytes(task.copy_from_user(attr.addr, 4), "little")
            self._access(attr, value)
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
            self._set_irqs(int.from_bytes(task.copy_from_user(attr.addr, 4), "little"))
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_CTRL and self.host.profile.vgic_ctrl:
            if attr.attr != uapi.KVM_DEV_ARM_VGIC_CTRL_INIT:
                raise self._unknown(attr)
            self._vgic.init()
        else:
            raise self._unknown(attr)
        return 0

    def get_attr(self, attr: Any) -> int:
        """As `set_attr`, the other way; an unset address reads as all ones."""
        task, group = self.host.current, attr.group
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            # The kernel reads the payload first, with the code that serves the setting.
            task.copy_from_user(attr.addr, 8)
            if attr.attr not in _FRAMES:
                raise self._unknown(attr)
            task.copy_to_user(attr.addr, _address(self._vgic, attr.attr).to_bytes(8, "little"))
        elif group in _REGISTER_GROUPS:
            task.copy_to_user(attr.addr, self._access(attr, None).to_bytes(4, "little"))
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
            task.copy_to_user(attr.addr, (self._vgic.irqs or 0).to_bytes(4, "little"))
        else:
            raise self._unknown(attr)
        return 0

    def _unknown(self, attr: Any) -> KernelError:
        return KernelError(errno.ENXIO, f"a VGICv2 has no attribute {attr.attr:#x} in group {attr.group}")

    def _set_irqs(self, count: int) -> None:
        if count < _MIN_IRQS or count > _MAX_IRQS or count % 32:
            raise KernelError(errno.EINVAL, f"{count} interrupts: 64 to 1024 in steps of 32")
        if self._vgic.ready or self._vgic.irqs is not None:
            raise KernelError(errno.EBUSY, "the number of interrupts is set")
        self._vgic.irqs = count

    def _access(self, attr: Any, value: int | None) -> int:
        """Read (``value`` None) or write a register of vCPU (bits 32 to 39) at an offset (bits 0 to 31)."""
        vgic = self._vgic
        vgic.init()
        offset = int(attr.attr) & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
        index = int(attr.attr & uapi.KVM_DEV_ARM_VGIC_CPUID_MASK) >> uapi.KVM_DEV_ARM_VGIC_CPUID_SHIFT
        if index >= len(vgic.cpus):
            raise KernelError(errno.EINVAL, f"no vCPU {index}")
        distributor = attr.group == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
        if not (vgic.distributor.known(offset) if distributor else cpuif.known(offset)):
            raise self._unknown(attr)
        if any(cpu.vcpu.running for cpu in vgic.cpus):
            raise KernelError(errno.EBUSY, "a vCPU is running")
        interface = vgic.cpus[index].vcpu.interface
        if distributor:
            lists.unqueue(vgic)
            # Unaligned, only the part in the first word counts.
            word, shift = offset & ~3, 8 * (offset & 3)
            if value is None:
                return vgic.distributor.read(index, word) >> shift
            vgic.distributor.write(index, word, value << shift & 0xFFFFFFFF, 0xFFFFFFFF << shift & 0xFFFFFFFF)
        elif value is None:
            return cpuif.read_saved(interface, offset)
        else:
            cpuif.write_saved(interface, offset, value)
        return 0
