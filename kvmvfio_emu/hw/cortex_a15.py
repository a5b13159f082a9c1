"""What a Cortex-A15 says of itself: its identification registers and caches (Technical Reference Manual, r2p1).

By the architecture's AArch32 names; a register that is not listed reads as zero. 4 MiB of second level cache.
"""

from __future__ import annotations

IDENTIFICATION: dict[str, int] = {
    "MIDR": 0x412FC0F1,
    "CTR": 0x8444C004,
    "ID_PFR0": 0x00001131,
    "ID_PFR1": 0x00011011,
    "ID_DFR0": 0x02010555,
    "ID_MMFR0": 0x10201105,
    "ID_MMFR1": 0x20000000,
    "ID_MMFR2": 0x01240000,
    "ID_MMFR3": 0x02102211,
    "ID_ISAR0": 0x02101110,
    "ID_ISAR1": 0x13112111,
    "ID_ISAR2": 0x21232041,
    "ID_ISAR3": 0x11112131,
    "ID_ISAR4": 0x10011142,
    "CLIDR": 0x0A200023,
    "FPSID": 0x410430F0,
    "MVFR0": 0x10110222,
    "MVFR1": 0x11111111,
}

#: CCSIDR by the value of CSSELR: level 1 data, level 1 instructions, level 2.
CACHES: dict[int, int] = {0: 0x701FE00A, 1: 0x201FE00A, 2: 0x711FE07A}
