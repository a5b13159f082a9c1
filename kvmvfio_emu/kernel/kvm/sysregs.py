"""The system registers that userspace can reach, declared (arch/arm64/kvm/sys_regs.c: sys_reg_descs and neighbours).

Names and encodings are the architecture's; what they reset to, and which of them show the host's own value, is KVM's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.cortex_a72 import IDENTIFICATION
from kvmvfio_emu.profiles import Profile

#: What KVM puts where the architecture says "unknown".
UNKNOWN = 0x1DE7EC7EDBADC0DE
Encoding = tuple[int, int, int, int, int]

# NAME op0 op1 CRn CRm op2 [reset]; without one it resets to zero, "?" is unknown.
_PLAIN = """
    MDCCINT_EL1     2 0 0 2 0
    MDSCR_EL1       2 0 0 2 2
    DBGVCR32_EL2    2 4 0 7 0
    SCTLR_EL1       3 0 1 0 0   0x00C50078
    ACTLR_EL1       3 0 1 0 1
    CPACR_EL1       3 0 1 0 2
    TTBR0_EL1       3 0 2 0 0   ?
    TTBR1_EL1       3 0 2 0 1   ?
    TCR_EL1         3 0 2 0 2
    TCR2_EL1        3 0 2 0 3
    AFSR0_EL1       3 0 5 1 0   ?
    AFSR1_EL1       3 0 5 1 1   ?
    ESR_EL1         3 0 5 2 0   ?
    FAR_EL1         3 0 6 0 0   ?
    PAR_EL1         3 0 7 4 0   ?
    MAIR_EL1        3 0 10 2 0  ?
    PIRE0_EL1       3 0 10 2 2  ?
    PIR_EL1         3 0 10 2 3  ?
    AMAIR_EL1       3 0 10 3 0
    VBAR_EL1        3 0 12 0 0
    DISR_EL1        3 0 12 1 1
    CONTEXTIDR_EL1  3 0 13 0 1
    TPIDR_EL1       3 0 13 0 4  ?
    CNTKCTL_EL1     3 0 14 1 0
    CSSELR_EL1      3 2 0 0 0   ?
    TPIDR_EL0       3 3 13 0 2  ?
    TPIDRRO_EL0     3 3 13 0 3  ?
    DACR32_EL2      3 4 3 0 0   ?
    IFSR32_EL2      3 4 5 0 1   ?
    FPEXC32_EL2     3 4 5 3 0   0x700
"""
#: The identification space: op0 3, op1 0, CRn 0, CRm 1 to 7; "-" is unallocated, and reads as zero.
_ID_SPACE = (
    "ID_PFR0 ID_PFR1 ID_DFR0 ID_AFR0 ID_MMFR0 ID_MMFR1 ID_MMFR2 ID_MMFR3",
    "ID_ISAR0 ID_ISAR1 ID_ISAR2 ID_ISAR3 ID_ISAR4 ID_ISAR5 ID_MMFR4 ID_ISAR6",
    "MVFR0 MVFR1 MVFR2 - ID_PFR2 ID_DFR1 ID_MMFR5 -",
    "ID_AA64PFR0 ID_AA64PFR1 ID_AA64PFR2 - ID_AA64ZFR0 ID_AA64SMFR0 - ID_AA64FPFR0",
    "ID_AA64DFR0 ID_AA64DFR1 - - ID_AA64AFR0 ID_AA64AFR1 - -",
    "ID_AA64ISAR0 ID_AA64ISAR1 ID_AA64ISAR2 ID_AA64ISAR3 - - - -",
    "ID_AA64MMFR0 ID_AA64MMFR1 ID_AA64MMFR2 ID_AA64MMFR3 ID_AA64MMFR4 - - -",
)
#: Registers that show the host's value; which of them are one list and which stand among the others, the profile says.
_HOST: dict[str, Encoding] = {
    "MIDR_EL1": (3, 0, 0, 0, 0),
    "REVIDR_EL1": (3, 0, 0, 0, 6),
    "CLIDR_EL1": (3, 1, 0, 0, 1),
    "AIDR_EL1": (3, 1, 0, 0, 7),
    "CTR_EL0": (3, 3, 0, 0, 1),
}
#: The oldest kernels with 64-bit guests have no such register in their tables; the profile names those it shows.
_YOUNG = ("TCR2_EL1", "PIRE0_EL1", "PIR_EL1")
_OSLSR, _OSLSR_LOCKED = (2, 0, 1, 1, 4), 1 << 1
_DEBUG_REGISTERS = ("DBGBVR", "DBGBCR", "DBGWVR", "DBGWCR")
#: With KVM's own version of CLIDR_EL1: what CTR_EL0 asks of software (clean to and invalidate at the first level).
_VIRTUAL_CLIDR = 1 << 27 | 1 << 24 | 1 << 21 | 0b011
# Fields that are not the host's: performance monitors without PMU_V3, "not vulnerable to Meltdown".
_WITHOUT_PMU = {"ID_DFR0_EL1": 0xF << 24, "ID_AA64DFR0_EL1": 0xF << 8}
_CSV3 = 1 << 60


@dataclass(frozen=True, slots=True)
class SystemRegister:
    """One of them. ``fixed``: bits that userspace must leave as they are; the others it may set."""

    name: str
    encoding: Encoding
    reset: int
    fixed: int = 0

    @property
    def id(self) -> int:
        """Its number for KVM_GET_ONE_REG."""
        return uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | index_of(self.encoding)


def index_of(encoding: Encoding) -> int:
    """An encoding as the lower 16 bits of a register's number."""
    op0, op1, crn, crm, op2 = encoding
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


class RegisterTable:
    """The system registers that a vCPU has; nobody changes them."""

    def __init__(self, registers: tuple[SystemRegister, ...], invariants: int) -> None:
        #: In the kernel's order: the invariant ones, then by encoding.
        self.all = registers
        self.by_index = {index_of(register.encoding): register for register in registers}
        self.invariant = {index_of(register.encoding): register for register in registers[:invariants]}
        #: By name.
        self.resets = {register.name: register.reset for register in registers}


def system_registers(profile: Profile, *, pmu: bool, gic_version: int) -> RegisterTable:
    """What a vCPU of that kernel has, which all that are alike share."""
    return _registers(tuple(profile.invariant_registers), tuple(profile.unhidden_registers), pmu, gic_version)


@cache
def _registers(invariant: tuple[str, ...], shown: tuple[str, ...], pmu: bool, gic_version: int) -> RegisterTable:
    first = [_host(name) for name in invariant]
    rest = [register for register in _plain() if register.name not in _YOUNG or register.name in shown]
    rest += _debug()
    rest += _identification(pmu, gic_version)
    rest += [_host(name) for name in _HOST if name not in invariant]
    return RegisterTable((*first, *sorted(rest, key=lambda register: register.encoding)), len(first))


def _host(name: str) -> SystemRegister:
    return SystemRegister(name, _HOST[name], IDENTIFICATION.get(name, 0), fixed=-1)


def _plain() -> Iterator[SystemRegister]:
    for line in _PLAIN.strip().splitlines():
        name, *numbers = line.split()
        op0, op1, crn, crm, op2 = (int(number) for number in numbers[:5])
        reset = numbers[5] if len(numbers) > 5 else "0"
        yield SystemRegister(name, (op0, op1, crn, crm, op2), UNKNOWN if reset == "?" else int(reset, 0))
    yield SystemRegister("MPIDR_EL1", (3, 0, 0, 0, 5), 0)  # each vCPU has its own; see `registers`
    yield SystemRegister("OSLSR_EL1", _OSLSR, 1 << 3, fixed=~_OSLSR_LOCKED)


def _debug() -> Iterator[SystemRegister]:
    for number in range(16):
        for op2, name in enumerate(_DEBUG_REGISTERS, 4):
            yield SystemRegister(f"{name}{number}_EL1", (2, 0, 0, number, op2), 0)


def _identification(pmu: bool, gic_version: int) -> Iterator[SystemRegister]:
    for crm, line in enumerate(_ID_SPACE, 1):
        for op2, short in enumerate(line.split()):
            name = f"S3_0_C0_C{crm}_{op2}" if short == "-" else f"{short}_EL1"
            value = IDENTIFICATION.get(name, 0)
            if not pmu:
                value &= ~_WITHOUT_PMU.get(name, 0)
            if name == "ID_AA64PFR0_EL1":
                value |= _CSV3 | (1 << 24 if gic_version == 3 else 0)
            yield SystemRegister(name, (3, 0, 0, crm, op2), value, fixed=-1)


def virtual_clidr() -> int:
    """CLIDR_EL1 as kernels make it up that let userspace describe the caches."""
    return _VIRTUAL_CLIDR
