"""What a vCPU's accesses meet: the virtual CPU interface, memory slots, assigned devices, or nothing (an exit)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.guest.base import Mmio
from kvmvfio_emu.hw import gicv3
from kvmvfio_emu.hw.gich import SPURIOUS
from kvmvfio_emu.hw.ich import IchInterface
from kvmvfio_emu.kernel.kvm.memory import PAGE_SIZE, Slot
from kvmvfio_emu.kernel.kvm.vgic import cpuif
from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicV3

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.file import File
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

#: Virtual nanoseconds of one guest operation; only their order matters.
STEP_NS = 1


class VcpuBus:
    """The stage-2 view of one vCPU. Accesses to memory and to assigned devices do not exit."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self._host = vcpu.host

    @property
    def irq_asserted(self) -> bool:
        """The vCPU's IRQ input."""
        return self._vcpu.irq_asserted

    @property
    def must_exit(self) -> bool:
        """Whether the host wants the CPU."""
        return self._vcpu.forced is not None

    def load(self, address: int, size: int) -> int | Mmio:
        """A guest load of ``size`` bytes."""
        offset = self._cpu_interface(address)
        if offset is not None:
            value = cpuif.guest_read(self._vcpu.interface, offset)
            if offset == cpuif.IAR and value < 1020:
                self._vcpu.acknowledged(value)
            return value
        slot = self._vcpu.vm.memory.find(address)
        if slot is None:
            return Mmio(address, size)
        hva = slot.hva + address - slot.gpa
        device = self._device(address, hva)
        if device is not None:
            before = self._host.trace.begin("guest_read", address=address, size=size, vcpu=self._vcpu.index)
            try:
                return device[0].mapped_read(device[1] + address % PAGE_SIZE, size)
            finally:
                self._host.trace.end(before)
        return int.from_bytes(self._vcpu.vm.mm.read(hva, size), "little")

    def store(self, address: int, size: int, value: int) -> Mmio | None:
        """A guest store of ``size`` bytes."""
        offset = self._cpu_interface(address)
        if offset is not None:
            if offset == cpuif.EOIR:
                before = self._vcpu.completing(value & 0x3FF)
                cpuif.guest_write(self._vcpu.interface, offset, value)
                self._host.trace.end(before)
            else:
                cpuif.guest_write(self._vcpu.interface, offset, value)
            return None
        slot = self._vcpu.vm.memory.find(address)
        if slot is None or slot.readonly:
            return Mmio(address, size, value)
        self._store(slot, address, size, value)
        return None

    def _store(self, slot: Slot, address: int, size: int, value: int) -> None:
        hva = slot.hva + address - slot.gpa
        device = self._device(address, hva)
        if device is not None:
            trace = self._host.trace
            before = trace.begin("guest_write", address=address, size=size, value=value, vcpu=self._vcpu.index)
            try:
                device[0].mapped_write(device[1] + address % PAGE_SIZE, size, value)
            finally:
                trace.end(before)
        else:
            self._vcpu.vm.memory.mark_dirty(slot, address)
            self._vcpu.vm.mm.write(hva, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def is_device(self, address: int) -> bool:
        """Whether the page at guest physical ``address``, in a slot, is a device that the user mapped there."""
        slot = self._vcpu.vm.memory.find(address)
        return slot is not None and self._device(address, slot.hva + address - slot.gpa) is not None

    def has_system(self, register: int, *, read: bool) -> bool:
        """Whether the hardware, or KVM for it, serves a register of the GICv3's CPU interface."""
        if not isinstance(self._vcpu.interface, IchInterface):
            return False
        if not read and register in (gicv3.ICC_SGI1R_EL1, gicv3.ICC_SGI0R_EL1):
            return isinstance(self._vcpu.vm.vgic, VgicV3)
        return self._vcpu.interface.has(register, read=read)

    def read_system(self, register: int) -> int:
        """A guest's MRS of a register of the GICv3 CPU interface, which the hardware serves without an exit."""
        interface = self._vcpu.interface
        value = interface.read(register) if isinstance(interface, IchInterface) else None
        if value is None:
            raise ValueError(f"the model's vCPU has no system register {register:#x} to read")
        if register == gicv3.ICC_IAR1_EL1 and value != SPURIOUS:
            self._vcpu.acknowledged(value)
        return value

    def write_system(self, register: int, value: int) -> None:
        """A guest's MSR; what requests an SGI is the VGIC's business."""
        interface, vgic = self._vcpu.interface, self._vcpu.vm.vgic
        if register in (gicv3.ICC_SGI1R_EL1, gicv3.ICC_SGI0R_EL1) and isinstance(vgic, VgicV3):
            vgic.send_sgi(self._vcpu, value, group1=register == gicv3.ICC_SGI1R_EL1)
            return
        ends = register == gicv3.ICC_EOIR1_EL1
        before = self._vcpu.completing(value & 0xFFFFFF) if ends else self._host.trace.cause
        if not isinstance(interface, IchInterface) or not interface.write(register, value):
            raise ValueError(f"the model's vCPU has no system register {register:#x} to write")
        self._host.trace.end(before)

    def pass_time(self, nanoseconds: int) -> int:
        """Compute for a while; what falls due happens at its moment, and may end it early."""
        clock = self._host.clock
        while nanoseconds and self._vcpu.forced is None:
            due = clock.next_due()
            step = nanoseconds if due is None else min(nanoseconds, max(due - clock.now, 0))
            clock.advance(step)
            nanoseconds -= step
        return nanoseconds

    def note(self, name: str, **fields: object) -> None:
        """A guest's own event."""
        self._host.event(name, vcpu=self._vcpu.index, **fields)

    def _device(self, address: int, hva: int) -> tuple[File, int] | None:
        """The device file (and offset of the page in it) that the user mapped there; looked up once a page."""
        stage2 = self._vcpu.vm.memory.stage2
        page = address // PAGE_SIZE
        if page not in stage2:
            stage2[page] = self._host.mapped_device(self._vcpu.vm.mm, hva - hva % PAGE_SIZE)
        return stage2[page]

    def _cpu_interface(self, address: int) -> int | None:
        vgic = self._vcpu.vm.vgic
        return None if vgic is None else vgic.cpu_interface(address)
