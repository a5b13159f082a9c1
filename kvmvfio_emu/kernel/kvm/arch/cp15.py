"""The registers of coprocessor 15 that a 32-bit host shows to userspace, declared (arch/arm/kvm/coproc.c).

Names and encodings are the architecture's (Arm DDI 0406); what they reset to, and in which order they are listed, is
KVM's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.cortex_a15 import IDENTIFICATION
from kvmvfio_emu.uapi import arm32

_COPROCESSOR = 15
#: What KVM puts where the architecture says "unknown": in the lower half, in the upper one.
_UNKNOWN, _UNKNOWN_HIGH = 0xDECAFBAD, 0xD0C0FFEE

# Invariant ones, which show the host's: NAME CRn CRm opc1 opc2.
_HOST = """
    MIDR      0 0 0 0
    CTR       0 0 0 1
    TCMTR     0 0 0 2
    TLBTR     0 0 0 3
    REVIDR    0 0 0 6
    ID_PFR0   0 1 0 0
    ID_PFR1   0 1 0 1
    ID_DFR0   0 1 0 2
    ID_AFR0   0 1 0 3
    ID_MMFR0  0 1 0 4
    ID_MMFR1  0 1 0 5
    ID_MMFR2  0 1 0 6
    ID_MMFR3  0 1 0 7
    ID_ISAR0  0 2 0 0
    ID_ISAR1  0 2 0 1
    ID_ISAR2  0 2 0 2
    ID_ISAR3  0 2 0 3
    ID_ISAR4  0 2 0 4
    ID_ISAR5  0 2 0 5
    CLIDR     0 0 1 1
    AIDR      0 0 1 7
"""
# CRn CRm opc1 opc2, then where it lies: the AArch64 register that the architecture maps it to, .high for that one's
# upper half; then the reset value, "?" unknown. One with "-" for CRm has 64 bits.
_PLAIN = """
    0  0 0 5  MPIDR_EL1       0
    0  0 2 0  CSSELR_EL1      ?
    1  0 0 0  SCTLR_EL1       0x00C50078
    1  0 0 1  ACTLR_EL1       0
    1  0 0 2  CPACR_EL1       0
    2  - 0 -  TTBR0_EL1       ?
    2  0 0 0  TTBR0_EL1       ?
    2  0 0 1  TTBR1_EL1       ?
    2  0 0 2  TCR_EL1         0
    2  - 1 -  TTBR1_EL1       ?
    3  0 0 0  DACR32_EL2      ?
    5  0 0 0  ESR_EL1         ?
    5  0 0 1  IFSR32_EL2      ?
    5  1 0 0  AFSR0_EL1       ?
    5  1 0 1  AFSR1_EL1       ?
    6  0 0 0  FAR_EL1         ?
    6  0 0 2  FAR_EL1.high    ?
    7  - 0 -  PAR_EL1         ?
    9  0 1 2  L2CTLR          0
    10 2 0 0  MAIR_EL1        ?
    10 2 0 1  MAIR_EL1.high   ?
    10 3 0 0  AMAIR_EL1       ?
    10 3 0 1  AMAIR_EL1.high  ?
    12 0 0 0  VBAR_EL1        0
    13 0 0 1  CONTEXTIDR_EL1  0
    13 0 0 2  TPIDR_EL0       ?
    13 0 0 3  TPIDRRO_EL0     ?
    13 0 0 4  TPIDR_EL1       ?
    14 1 0 0  CNTKCTL_EL1     0
"""


@dataclass(frozen=True, slots=True)
class CoprocessorRegister:
    """One of them: ``size`` bytes at bit ``shift`` of what is called ``where``."""

    id: int
    where: str
    shift: int
    size: int
    reset: int
    invariant: bool

    @property
    def mask(self) -> int:
        """Its bits."""
        return (1 << 8 * self.size) - 1

    def get(self, system: dict[str, int]) -> int:
        """Its value."""
        return system[self.where] >> self.shift & self.mask

    def set(self, system: dict[str, int], value: int) -> None:
        """Change it alone."""
        system[self.where] = system[self.where] & ~(self.mask << self.shift) | (value & self.mask) << self.shift


@cache
def coprocessor_registers() -> tuple[CoprocessorRegister, ...]:
    """All of them, in the kernel's order."""
    return (*_host(), *_plain())


def _host() -> Iterator[CoprocessorRegister]:
    for line in _HOST.strip().splitlines():
        name, *numbers = line.split()
        value = IDENTIFICATION.get(name, 0)
        yield CoprocessorRegister(_id(*map(int, numbers)), name, 0, 4, value, invariant=True)


def _plain() -> Iterator[CoprocessorRegister]:
    for line in _PLAIN.strip().splitlines():
        crn, crm, opc1, opc2, where, reset = line.split()
        name, _, high = where.partition(".")
        if crm == "-":
            unknown, number, size = _UNKNOWN_HIGH << 32 | _UNKNOWN, _wide_id(int(crn), int(opc1)), 8
        else:
            unknown, number, size = _UNKNOWN, _id(int(crn), int(crm), int(opc1), int(opc2)), 4
        value = unknown if reset == "?" else int(reset, 0)
        yield CoprocessorRegister(number, name, 32 if high else 0, size, value, invariant=False)


def _id(crn: int, crm: int, opc1: int, opc2: int) -> int:
    number = crn << arm32.KVM_REG_ARM_32_CRN_SHIFT | crm << arm32.KVM_REG_ARM_CRM_SHIFT
    number |= opc1 << arm32.KVM_REG_ARM_OPC1_SHIFT | opc2 << arm32.KVM_REG_ARM_32_OPC2_SHIFT
    return uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | _COPROCESSOR << uapi.KVM_REG_ARM_COPROC_SHIFT | number


def _wide_id(crn: int, opc1: int) -> int:
    """By MRRC's encoding, whose CRm is the register's CRn."""
    number = crn << arm32.KVM_REG_ARM_CRM_SHIFT | opc1 << arm32.KVM_REG_ARM_OPC1_SHIFT
    return uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U64 | _COPROCESSOR << uapi.KVM_REG_ARM_COPROC_SHIFT | number
