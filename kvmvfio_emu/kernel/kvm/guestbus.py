"""What a vCPU's accesses meet: the virtual CPU interface, memory slots, assigned devices, or nothing (an exit)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.guest.base import Mmio
from kvmvfio_emu.kernel.kvm.memory import PAGE_SIZE, Slot
from kvmvfio_emu.kernel.kvm.vgic import cpuif

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
