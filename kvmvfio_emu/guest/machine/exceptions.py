"""Exception entry to EL1, which the engine does not do by itself (Arm DDI 0487, AArch64.TakeException)."""

from __future__ import annotations

from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.kernel.kvm.sysregs import Encoding

SP_EL0: Encoding = (3, 0, 4, 1, 0)
SP_EL1: Encoding = (3, 4, 4, 1, 0)
SPSR_EL1: Encoding = (3, 0, 4, 0, 0)
ELR_EL1: Encoding = (3, 0, 4, 0, 1)
ESR_EL1: Encoding = (3, 0, 5, 2, 0)
FAR_EL1: Encoding = (3, 0, 6, 0, 0)
VBAR_EL1: Encoding = (3, 0, 12, 0, 0)

#: PSTATE.
AARCH32 = 1 << 4
SP_SELECT, FIQ_MASK, IRQ_MASK, SERROR_MASK = 1 << 0, 1 << 6, 1 << 7, 1 << 8
_EXCEPTION_LEVEL = 0xC
_EL1H = 0x5
_DAIF = 0x3C0
_KEPT = 0xF0000000  #: the condition flags
# Where in the vector table.
SYNCHRONOUS, IRQ, FIQ, SERROR = 0x000, 0x080, 0x100, 0x180
_CURRENT_SPX, _LOWER_64 = 0x200, 0x400

# ESR_EL1.EC and its neighbours.
EC = 26
_IL = 1 << 25
EC_PC_ALIGNMENT, EC_SERROR = 0x22, 0x2F
EC_PREFETCH_ABORT, EC_DATA_ABORT = 0x20, 0x24  #: from EL0; one more from EL1
WRITE_NOT_READ, TABLE_WALK, FAULT_STATUS = 1 << 6, 1 << 7, 0x3F
EXTERNAL_ABORT, ALIGNMENT_FAULT = 0x10, 0x21


def enter(cpu: b.Cpu, vector: int, pc: int, pstate: int) -> None:
    """Take an exception to EL1 that returns to ``pc``. ``vector``: `SYNCHRONOUS`, `IRQ`, `FIQ` or `SERROR`."""
    if pstate & _EXCEPTION_LEVEL == 0:
        offset = _LOWER_64
    else:
        offset = _CURRENT_SPX if pstate & SP_SELECT else 0
    stack = cpu.read(b.SP)
    if not pstate & SP_SELECT:  # the engine does not bank SP when PSTATE is written to from outside
        cpu.write_system(SP_EL0, stack)
        stack = cpu.read_system(SP_EL1) or 0
    cpu.write_system(ELR_EL1, pc)
    cpu.write(b.PSTATE, pstate & _KEPT | _DAIF | _EL1H)
    cpu.write(b.SP, stack)
    cpu.write_system(SPSR_EL1, pstate)  # the last one, which makes the engine see the new PSTATE
    cpu.write(b.PC, (cpu.read_system(VBAR_EL1) or 0) + offset + vector)


def syndrome(exception_class: int, specific: int, pstate: int) -> int:
    """ESR_EL1 of an exception from ``pstate``, with the class's ``specific`` bits."""
    if exception_class in (EC_PREFETCH_ABORT, EC_DATA_ABORT) and pstate & _EXCEPTION_LEVEL:
        exception_class += 1
    return exception_class << EC | _IL | specific


def enter_synchronous(cpu: b.Cpu, pc: int, pstate: int, esr: int, address: int | None = None) -> None:
    """Take a synchronous exception; FAR_EL1 where it has an ``address``."""
    if address is not None:
        cpu.write_system(FAR_EL1, address)
    cpu.write_system(ESR_EL1, esr)
    enter(cpu, SYNCHRONOUS, pc, pstate)
