"""The modes of an AArch32 CPU, and where their registers lie among those of AArch64.

Arm DDI 0487, "Mapping of the general-purpose registers between the Execution states".
"""

from __future__ import annotations

from typing import NamedTuple

#: Of CPSR, and of PSTATE with a 32-bit guest.
MODE = 0x1F
USER, FIQ, IRQ, SUPERVISOR, ABORT, UNDEFINED, SYSTEM = 0x10, 0x11, 0x12, 0x13, 0x17, 0x1B, 0x1F
#: Supervisor mode with all interrupts masked.
RESET_CPSR = 0x1C0 | SUPERVISOR


class Bank(NamedTuple):
    """A mode's own registers: numbers of X registers, and of ``kvm_regs.spsr``."""

    link: int
    stack: int
    saved: int


BANKS = {
    IRQ: Bank(16, 17, 3),
    SUPERVISOR: Bank(18, 19, 0),
    ABORT: Bank(20, 21, 1),
    UNDEFINED: Bank(22, 23, 2),
    FIQ: Bank(30, 29, 4),
}
USER_SP, USER_LR = 13, 14
FIQ_R8 = 24  #: the first of five
#: FPSCR's bits, by the AArch64 register that has them.
FPSR_BITS, FPCR_BITS = 0xF800009F, 0x07F79F00
