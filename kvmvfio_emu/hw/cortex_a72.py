"""What a Cortex-A72 says of itself: its identification registers and caches (Technical Reference Manual, r0p3).

By the architecture's names; a register that is not listed reads as zero. As the board of the recorded answers has it:
no EL3, 1 MiB of second level cache.
"""

from __future__ import annotations

IDENTIFICATION: dict[str, int] = {
    "MIDR_EL1": 0x410FD083,
    "REVIDR_EL1": 0x00000080,
    "CLIDR_EL1": 0x0A200023,
    "CTR_EL0": 0x8444C004,
    "ID_PFR0_EL1": 0x00000131,
    "ID_PFR1_EL1": 0x00011011,
    "ID_DFR0_EL1": 0x03010066,
    "ID_MMFR0_EL1": 0x10201105,
    "ID_MMFR1_EL1": 0x40000000,
    "ID_MMFR2_EL1": 0x01260000,
    "ID_MMFR3_EL1": 0x02102211,
    "ID_ISAR0_EL1": 0x02101110,
    "ID_ISAR1_EL1": 0x13112111,
    "ID_ISAR2_EL1": 0x21232042,
    "ID_ISAR3_EL1": 0x01112131,
    "ID_ISAR4_EL1": 0x00011142,
    "ID_ISAR5_EL1": 0x00011121,
    "MVFR0_EL1": 0x10110222,
    "MVFR1_EL1": 0x12111111,
    "MVFR2_EL1": 0x00000043,
    "ID_AA64PFR0_EL1": 0x00000222,
    "ID_AA64DFR0_EL1": 0x10305106,
    "ID_AA64ISAR0_EL1": 0x00011120,
    "ID_AA64MMFR0_EL1": 0x00001124,
}

#: CCSIDR_EL1 by the value of CSSELR_EL1: level 1 data, level 1 instructions, level 2.
CACHES: dict[int, int] = {0: 0x701FE00A, 1: 0x201FE012, 2: 0x707FE07A}
