"""A 32-bit CPU in the non-secure world, on the engine: its registers, and which of its system registers are ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from unicorn import arm_const as a32
from unicorn import unicorn_const as uc

from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine.stage2 import FROM_LEVEL_1, Stage2

#: Numbers of `Cpu.read` and `Cpu.write`.
SP, LR, PC = a32.UC_ARM_REG_SP, a32.UC_ARM_REG_LR, a32.UC_ARM_REG_PC
CPSR, SPSR = a32.UC_ARM_REG_CPSR, a32.UC_ARM_REG_SPSR
FPSCR, FPEXC = a32.UC_ARM_REG_FPSCR, a32.UC_ARM_REG_FPEXC
R = (*(a32.UC_ARM_REG_R0 + number for number in range(13)), SP, LR)
D = tuple(a32.UC_ARM_REG_D0 + number for number in range(32))
THUMB = 1 << 5  #: of CPSR

#: Not an address of an instruction, so that nothing but a stop ends a run.
_NOWHERE = (1 << 32) - 2


class Coprocessor(NamedTuple):
    """A register of coprocessor 15: by MRC and MCR, or, ``wide``, by MRRC and MCRR, which have opc1 and CRm only."""

    opc1: int
    crn: int
    crm: int
    opc2: int
    wide: bool = False


HPFAR = Coprocessor(4, 6, 0, 4)
_SCR, _HCR, _VTCR = Coprocessor(0, 1, 1, 0), Coprocessor(4, 1, 1, 0), Coprocessor(4, 2, 1, 2)
_VTTBR = Coprocessor(6, 0, 2, 0, wide=True)


class Cpu(b.Cpu):
    """One of them."""

    ARCHITECTURE, ADDRESSES = uc.UC_ARCH_ARM, (1 << 32) - 1
    PC, STATUS, COPROCESSOR = PC, CPSR, a32.UC_ARM_REG_CP_REG

    def __init__(self, on_exception: Callable[[int], None]) -> None:
        super().__init__(a32.UC_CPU_ARM_CORTEX_A15, Stage2(FROM_LEVEL_1), _place(HPFAR), on_exception)
        self._on_exception = on_exception
        self.hint: Any = b.ffi.new("int *")
        """Not 0: the last run ended by WFE or YIELD. It is `hints` that knows."""
        # Non-secure, and HVC allowed; then the second stage.
        self.write_system(_SCR, 0x101)
        self.write_system(_VTCR, FROM_LEVEL_1.control)
        self.write_system(_VTTBR, self._stage2.tables)
        self._set_hypervisor(self.HYPERVISOR)

    @property
    def hinted(self) -> bool:
        """As `binding.Cpu.hinted`."""
        return bool(self.hint[0])

    def run(self) -> int:
        """As `binding.Cpu.run`."""
        self.hint[0] = 0
        # The engine takes the instruction set from bit 0; no A32 instruction begins between.
        begin = self.pc | 1 if self.read(CPSR) & THUMB else self.pc & ~3
        failed = self._start(begin, _NOWHERE)
        if failed != b.INVALID_INSTRUCTION:
            return failed
        if not self.hint[0]:
            self._on_exception(b.UNDEFINED)  # it stands at the instruction
        return 0

    def _set_hypervisor(self, value: int) -> None:
        self.write_system(_HCR, value)

    def half(self, address: int) -> int | None:
        """The half of an instruction at a virtual address, as `word`."""
        word = self.word(address & ~3)
        return None if word is None else word >> 8 * (address & 2) & 0xFFFF

    def read_system(self, register: Coprocessor) -> int | None:
        """A system register; None: the engine has it not."""
        place = _place(register)
        return int(place.val) if self._read_into(self.COPROCESSOR, place) else None

    def write_system(self, register: Coprocessor, value: int) -> None:
        """Set one; it also makes the engine see what was written to CPSR before."""
        place = _place(register)
        place.val = value
        self._write_from(self.COPROCESSOR, place)


def _place(register: Coprocessor) -> Any:
    place: Any = b.ffi.new("cp32_reg *")
    place.cp, place.is64 = 15, register.wide
    place.opc1, place.crn, place.crm, place.opc2 = register.opc1, register.crn, register.crm, register.opc2
    return place
