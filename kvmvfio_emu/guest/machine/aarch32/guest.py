"""A vCPU that executes A32 and T32: what `MachineGuest` leaves to the 32-bit execution state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.guest.base import GuestBus
from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine import syndrome as s
from kvmvfio_emu.guest.machine.aarch32 import cpu as c
from kvmvfio_emu.guest.machine.aarch32 import decode as d
from kvmvfio_emu.guest.machine.aarch32 import exceptions as x
from kvmvfio_emu.guest.machine.aarch32 import hints
from kvmvfio_emu.guest.machine.aarch32.coprocessor import undefine
from kvmvfio_emu.guest.machine.aarch32.system import OURS, SystemRegisters
from kvmvfio_emu.guest.machine.aarch32.transfer import Transfer
from kvmvfio_emu.guest.machine.engine import MachineGuest

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_WFI_ARM, _WFI_THUMB, _WFI_WIDE = 0x0320F003, 0xBF30, 0x8003F3AF
_INTERRUPTS = {s.IRQ: x.IRQ, s.FIQ: x.FIQ, s.SERROR: x.DATA_ABORT}
_SYNCHRONOUS = {
    b.SVC: x.SUPERVISOR_CALL,
    b.PREFETCH_ABORT: x.PREFETCH_ABORT,
    b.BREAKPOINT: x.PREFETCH_ABORT,
    b.DATA_ABORT: x.DATA_ABORT,
}
_IT_LOW, _IT_HIGH = 3 << 25, 0x3F << 10


class Guest(MachineGuest):
    """One of them."""

    _cpu: c.Cpu

    def __init__(self, vcpu: Vcpu) -> None:
        assert vcpu.registers is not None
        cpu = c.Cpu(self._raised)
        undefine(cpu, OURS)
        hints.watch(cpu)
        self._system = SystemRegisters(vcpu, cpu)
        super().__init__(vcpu, cpu, Transfer(cpu, vcpu.registers))

    # -- exceptions -----------------------------------------------------------------------------------------------

    def _interrupt(self, kind: int, pc: int, status: int) -> None:
        if kind == s.SERROR:
            self._cpu.write_system(x.DFSR, x.status(self._cpu, kind))
        x.enter(self._cpu, _INTERRUPTS[kind], pc)

    def _abort(self, kind: int, fault: int, address: int, *, write: bool = False) -> None:
        status = x.status(self._cpu, fault, write=write)
        self._take_abort(x.DATA_ABORT if kind == s.EC_DATA_ABORT else x.PREFETCH_ABORT, status, address)

    def _deliver(self, number: int, raised: b.Raised) -> bool:
        kind = _SYNCHRONOUS.get(number, x.UNDEFINED)
        if kind in (x.DATA_ABORT, x.PREFETCH_ABORT):
            self._take_abort(kind, raised.fsr, raised.address)
            return number != b.BREAKPOINT
        self._take(kind, raised.esr if number != b.UNDEFINED else 0)
        return False

    def _take_abort(self, kind: x.Kind, status: int, address: int) -> None:
        data = kind is x.DATA_ABORT
        self._cpu.write_system(x.DFSR if data else x.IFSR, status)
        self._cpu.write_system(x.DFAR if data else x.IFAR, address & 0xFFFFFFFF)
        self._take(kind, status)

    def _take(self, kind: x.Kind, esr: int) -> None:
        pc, vcpu = self.pc, self._vcpu
        x.enter(self._cpu, kind, pc)
        vcpu.host.event("guest_exception", vcpu=vcpu.index, pc=pc, esr=esr)

    # -- instructions ---------------------------------------------------------------------------------------------

    @property
    def _thumb(self) -> bool:
        return bool(self._cpu.read(c.CPSR) & c.THUMB)

    def _instruction(self, pc: int) -> int:
        """32 bits of it; T32's as the architecture writes them, first half first."""
        if not self._thumb:
            return self._cpu.word(pc) or 0
        return (self._cpu.half(pc) or 0) << 16 | (self._cpu.half(pc + 2) or 0)

    def _serve_undefined(self, pc: int, bus: GuestBus) -> bool:
        access = d.decode_system(self._instruction(pc))
        if access is None or not self._system.serve(bus, access):
            return False
        self._go_on(pc + 4)
        return True

    def _decode(self, esr: int, pc: int) -> s.Access | None:
        access = s.decode(esr)
        if access is not None and self._cpu.read(c.CPSR) & x.BIG_ENDIAN:
            access = access._replace(swapped=True)
        return access

    def _target(self, pc: int) -> int:
        if not self._thumb:
            return d.target(self._instruction(pc), pc, self._value)
        first = self._cpu.half(pc) or 0
        if d.is_wide(first):
            return d.target_32(first, self._cpu.half(pc + 2) or 0, pc, self._value)
        return d.target_16(first, pc, self._value)

    def _value(self, number: int) -> int:
        """A part of an address; PC, where that is not predictable, as the engine reads it."""
        if number < len(c.R):
            return self._cpu.read(c.R[number])
        return self.pc + (4 if self._thumb else 8)

    def _skip(self, pc: int, access: s.Access) -> None:
        self._go_on(pc + access.length)

    def _go_on(self, pc: int) -> None:
        """At ``pc``, after an instruction that was done for the guest: in an IT block one instruction on."""
        cpu = self._cpu
        status = cpu.read(c.CPSR)
        block = status >> 8 & 0xFC | status >> 25 & 3
        if block:
            block = block & 0xE0 | block << 1 & 0x1F if block & 7 else 0
            cpu.write(c.CPSR, status & ~(_IT_LOW | _IT_HIGH) | (block & 0xFC) << 8 | (block & 3) << 25)
        cpu.pc = pc

    def _waited(self, pc: int) -> bool:
        if not self._thumb:
            return (self._cpu.word(pc - 4) or 0) & 0x0FFFFFFF == _WFI_ARM
        wide = (self._cpu.half(pc - 2) or 0) << 16 | (self._cpu.half(pc - 4) or 0)
        return wide == _WFI_WIDE or wide >> 16 == _WFI_THUMB

    def _call_number(self, pc: int) -> int:
        return 0  # which of them it is, SMCCC leaves to the register

    def _register(self, number: int) -> int:
        return c.R[number]
