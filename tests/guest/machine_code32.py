"""A32 and T32 machine code for `test_machine_32bit`, made with binutils; each says what it does."""

from __future__ import annotations

#: A few accesses with a register of each size, sign extension, then their results stored to the mailbox in r9.
MMIO = (
    0xE5910000,
    0xE1D120B4,
    0xE1D130D8,
    0xE1D140F2,
    0xE5C90000,
    0xE1C920B0,
    0xE5893000,
    0xE5894000,
    0xE2895008,
    0xE5A9000C,
)

#: The same in T32, the last store in an IT block that does it.
THUMB = (
    0xF9916808,
    0x51103008,
    0x3000F8C9,
    0xBF0442AD,
    0x60936050,
    0x60D0BF30,
)

#: An instruction that is none.
UNDEFINED = (0xE7F000F1,)

#: SVC from PL0, to which it goes first.
CALL = (
    0xE10F0000,
    0xE3C0001F,
    0xE3800010,
    0xE16FF000,
    0xE1B0F001,
)

#: SVC.
SVC = (0xEF000005,)

#: At a vector: LR, SPSR, CPSR, DFSR, DFAR, IFSR, IFAR and SP go to the mailbox in r9.
HANDLER = (
    0xE589E000,
    0xE14F0000,
    0xE5890000,
    0xE10F0000,
    0xE5890000,
    0xEE150F10,
    0xE5890000,
    0xEE160F10,
    0xE5890000,
    0xEE150F30,
    0xE5890000,
    0xEE160F50,
    0xE5890000,
    0xE589D000,
    0xE320F003,
    0xEAFFFFFD,
)

#: Sets the virtual timer r2 ticks ahead and reads it; then waits for an IRQ, whose handler is HANDLER.
TIMER = (
    0xEE1E0F10,
    0xE5890000,
    0xEC554F1E,
    0xEE0E2F13,
    0xE3A00001,
    0xEE0E0F33,
    0xEC576F3E,
    0xE0566004,
    0xE0C77005,
    0xE5896000,
    0xE5897000,
    0xEE1E0F33,
    0xE5890000,
    0xF1080080,
    0xE320F003,
    0xEAFFFFFD,
)

#: MPIDR and ISR to the mailbox.
IDENTITY = (
    0xEE100FB0,
    0xE5890000,
    0xEE1C0F11,
    0xE5890000,
)

#: MIDR, CTR, ID_PFR0, ID_MMFR3, ID_ISAR4, CLIDR, the second level's CCSIDR; ACTLR and L2CTLR, each once more after a
#: write.
IDENTIFICATION = (
    0xEE100F10,
    0xE5890000,
    0xEE100F30,
    0xE5890000,
    0xEE100F11,
    0xE5890000,
    0xEE100FF1,
    0xE5890000,
    0xEE100F92,
    0xE5890000,
    0xEE300F30,
    0xE5890000,
    0xE3A01002,
    0xEE401F10,
    0xF57FF06F,
    0xEE300F10,
    0xE5890000,
    0xEE110F30,
    0xE5890000,
    0xEE019F30,
    0xEE110F30,
    0xE5890000,
    0xEE390F50,
    0xE5890000,
    0xEE299F50,
    0xEE390F50,
    0xE5890000,
)

#: In the mode that is added to the first word: SP from r1, LR from r2, SPSR from r3; then a store of r0.
BANK = (
    0xF1020000,
    0xE1A0D001,
    0xE1A0E002,
    0xE16FF003,
    0xE5890000,
)

#: PSCI with the function in r0 and arguments in r1 to r3; the result goes to the mailbox.
PSCI = (
    0xE1400070,
    0xE5890000,
    0xE320F003,
    0xEAFFFFFD,
)

#: A load, whose fault is a data abort.
LOAD = (0xE5910000,)

#: A jump to r1.
JUMP = (0xE12FFF11,)

#: Two registers, which give no syndrome.
PAIR = (0xE1C120D0,)

#: A load at r1 + 2 * r2.
STRADDLE = (0xE7910082,)

#: ICC_PMR, ICC_IGRPEN1 and an SGI 3 to itself by the GICv3's registers; then HANDLER's IRQ reads ICC_IAR1.
SGI = (
    0xE3A000FF,
    0xEE040F16,
    0xE3A00001,
    0xEE0C0FFC,
    0xE3A00001,
    0xE3800403,
    0xE3A02000,
    0xEC420F0C,
    0xEE1C0F1C,
    0xE5890000,
)

#: A big-endian store.
BIG_ENDIAN = (
    0xF1010200,
    0xE5890000,
)

#: Endless.
LOOP = (
    0xE2800001,
    0xEAFFFFFD,
)

#: d0 plus d1 to memory at r1, with VFP on.
FLOATS = (
    0xEE302B01,
    0xEC532B12,
    0xE5892000,
    0xE5893000,
)
