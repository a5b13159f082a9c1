"""Exception entry to EL1, which the engine does not do by itself (Arm DDI 0487, AArch64.TakeException)."""

from __future__ import annotations

from kvmvfio_emu.guest.machine import syndrome as s
from kvmvfio_emu.guest.machine.aarch64 import cpu as c
from kvmvfio_emu.kernel.kvm.sysregs import Encoding

SP_EL0: Encoding = (3, 0, 4, 1, 0)
SP_EL1: Encoding = (3, 4, 4, 1, 0)
SPSR_EL1: Encoding = (3, 0, 4, 0, 0)
ELR_EL1: Encoding = (3, 0, 4, 0, 1)
ESR_EL1: Encoding = (3, 0, 5, 2, 0)
FAR_EL1: Encoding = (3, 0, 6, 0, 0)
VBAR_EL1: Encoding = (3, 0, 12, 0, 0)

#: SCTLR_EL1: E0E and EE, by the exception level that makes an access.
USER_BIG_ENDIAN, BIG_ENDIAN = 1 << 24, 1 << 25

#: PSTATE.
AARCH32 = 1 << 4
SP_SELECT = 1 << 0
EXCEPTION_LEVEL = 0xC
_EL1H = 0x5
_DAIF = 0x3C0
_KEPT = 0xF0000000  #: the condition flags
# Where in the vector table.
SYNCHRONOUS = 0x000
INTERRUPT = {s.IRQ: 0x080, s.FIQ: 0x100, s.SERROR: 0x180}
_CURRENT_SPX, _LOWER_64 = 0x200, 0x400

# Classes of ESR_EL1 beside those that a hypervisor sees, too; those are from EL0, and one more from EL1.
EC_PC_ALIGNMENT, EC_SERROR = 0x22, 0x2F


def enter(cpu: c.Cpu, vector: int, pc: int, pstate: int) -> None:
    """Take an exception to EL1 that returns to ``pc``. ``vector``: `SYNCHRONOUS` or of `INTERRUPT`."""
    if pstate & EXCEPTION_LEVEL == 0:
        offset = _LOWER_64
    else:
        offset = _CURRENT_SPX if pstate & SP_SELECT else 0
    stack = cpu.read(c.SP)
    if not pstate & SP_SELECT:  # the engine does not bank SP when PSTATE is written to from outside
        cpu.write_system(SP_EL0, stack)
        stack = cpu.read_system(SP_EL1) or 0
    cpu.write_system(ELR_EL1, pc)
    cpu.write(c.PSTATE, pstate & _KEPT | _DAIF | _EL1H)
    cpu.write(c.SP, stack)
    cpu.write_system(SPSR_EL1, pstate)  # the last one, which makes the engine see the new PSTATE
    cpu.pc = (cpu.read_system(VBAR_EL1) or 0) + offset + vector


def syndrome(exception_class: int, specific: int, pstate: int) -> int:
    """ESR_EL1 of an exception from ``pstate``, with the class's ``specific`` bits."""
    if exception_class in (s.EC_PREFETCH_ABORT, s.EC_DATA_ABORT) and pstate & EXCEPTION_LEVEL:
        exception_class += 1
    return exception_class << s.EC | s.INSTRUCTION_LENGTH | specific


def enter_synchronous(cpu: c.Cpu, pc: int, pstate: int, esr: int, address: int | None = None) -> None:
    """Take a synchronous exception; FAR_EL1 where it has an ``address``."""
    if address is not None:
        cpu.write_system(FAR_EL1, address)
    cpu.write_system(ESR_EL1, esr)
    enter(cpu, SYNCHRONOUS, pc, pstate)
