"""System registers of coprocessor 15 that the model knows better: timers, the GICv3's CPU interface, MPIDR and more.

The engine has no hooks for them; `coprocessor` makes it take them for undefined, so they come with the run ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.guest.base import GuestBus
from kvmvfio_emu.guest.machine import syndrome as s
from kvmvfio_emu.guest.machine.aarch32 import cpu as c
from kvmvfio_emu.guest.machine.aarch32.decode import SystemAccess
from kvmvfio_emu.kernel.kvm.arch import aarch32 as a
from kvmvfio_emu.kernel.kvm.sysregs import index_of

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_MPIDR, _ISR = c.Coprocessor(0, 0, 0, 5), c.Coprocessor(0, 12, 1, 0)
_CNTKCTL = c.Coprocessor(0, 14, 1, 0)
#: The generic timer: register -> CRm and op2 of its AArch64 name, and the bit of CNTKCTL that shows it to PL0.
_TIMERS = {
    c.Coprocessor(0, 14, 0, 0): (0, 0, 0x003),
    c.Coprocessor(0, 0, 14, 0, wide=True): (0, 1, 0x001),
    c.Coprocessor(1, 0, 14, 0, wide=True): (0, 2, 0x002),
    c.Coprocessor(0, 14, 2, 0): (2, 0, 0x200),
    c.Coprocessor(0, 14, 2, 1): (2, 1, 0x200),
    c.Coprocessor(2, 0, 14, 0, wide=True): (2, 2, 0x200),
    c.Coprocessor(0, 14, 3, 0): (3, 0, 0x100),
    c.Coprocessor(0, 14, 3, 1): (3, 1, 0x100),
    c.Coprocessor(3, 0, 14, 0, wide=True): (3, 2, 0x100),
}
#: Read-only ones that KVM answers for, by their names in the file; a write is ignored.
_KEPT = {c.Coprocessor(0, 1, 0, 1): "ACTLR_EL1", c.Coprocessor(1, 9, 0, 2): "L2CTLR"}
#: What the engine has to leave to us.
OURS = frozenset((_MPIDR, _ISR, *_TIMERS, *_KEPT))
#: The GICv3's registers that generate interrupts: opc1 of MCRR -> op2 of the AArch64 name.
_SGI = {0: 5, 1: 6, 2: 7}
#: What reading a counter takes, so that a guest that waits for it gets there.
_READ_NS = 16
_LOW, _HIGH = (1 << 32) - 1, 32


class SystemRegisters:
    """Those of ``vcpu``, whose engine is ``cpu``."""

    def __init__(self, vcpu: Vcpu, cpu: c.Cpu) -> None:
        assert vcpu.registers is not None
        self._vcpu = vcpu
        self._cpu = cpu
        self._file = vcpu.registers

    def serve(self, bus: GuestBus, access: SystemAccess) -> bool:
        """An access that the engine refused. False: it is undefined here, too."""
        user = self._cpu.read(c.CPSR) & a.MODE == a.USER
        if access.read:
            found = self._read(bus, access.register, user)
            if found is None:
                return False
            self._put(access.low, found & _LOW)
            if access.high is not None:
                self._put(access.high, found >> _HIGH)
            return True
        value = self._get(access.low)
        if access.high is not None:
            value |= self._get(access.high) << _HIGH
        return self._write(bus, access.register, value, user)

    def _read(self, bus: GuestBus, register: c.Coprocessor, user: bool) -> int | None:
        timer = _TIMERS.get(register)
        if timer is not None:
            crm, op2, shown = timer
            if user and not self._shown(shown):
                return None
            self._vcpu.host.clock.advance(_READ_NS)
            return self._file.timers.read_system(crm, op2, 0)
        if user:
            return None
        if register == _MPIDR:
            return self._file.system["MPIDR_EL1"] & _LOW
        if register == _ISR:
            vcpu = self._vcpu
            asserted = ((s.IRQ, vcpu.irq_asserted), (s.FIQ, vcpu.fiq_asserted), (s.SERROR, vcpu.serror_pending))
            return sum(bit for bit, high in asserted if high)
        if register in _KEPT:  # a kernel that has it not makes it undefined
            kept = self._file.system.get(_KEPT[register])
            return None if kept is None else kept & _LOW
        index = _interface(register)
        return bus.read_system(index) if index is not None and bus.has_system(index, read=True) else None

    def _write(self, bus: GuestBus, register: c.Coprocessor, value: int, user: bool) -> bool:
        timer = _TIMERS.get(register)
        if timer is not None:
            crm, op2, shown = timer
            if not crm or (user and not self._shown(shown)):
                return False  # the counters and their frequency are read-only below the hypervisor
            self._file.timers.write_system(crm, op2, value, 0)
            self._vcpu.timer_lines.update()
            return True
        if register in _KEPT:
            return not user and _KEPT[register] in self._file.system
        index = None if user else _interface(register)
        if index is None or not bus.has_system(index, read=False):
            return False
        bus.write_system(index, value)
        return True

    def _shown(self, bits: int) -> bool:
        return bool((self._cpu.read_system(_CNTKCTL) or 0) & bits)

    def _get(self, number: int) -> int:
        return self._cpu.read(c.R[number]) if number < len(c.R) else 0

    def _put(self, number: int, value: int) -> None:
        if number < len(c.R):
            self._cpu.write(c.R[number], value)
        else:  # MRC to R15 sets the condition flags
            self._cpu.write(c.CPSR, self._cpu.read(c.CPSR) & 0x0FFFFFFF | value & 0xF0000000)


def _interface(register: c.Coprocessor) -> int | None:
    """The AArch64 number of what may be a register of the GICv3's CPU interface: all but opc1 are the same."""
    if register.wide:
        return index_of((3, 0, 12, 11, _SGI[register.opc1])) if register.crm == 12 and register.opc1 in _SGI else None
    if register.opc1 or register.crn not in (4, 12):
        return None
    return index_of((3, 0, register.crn, register.crm, register.opc2))
