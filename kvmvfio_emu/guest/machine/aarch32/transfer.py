"""The registers of a 32-bit vCPU between KVM's file, which has them by their AArch64 names, and the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.guest.machine.aarch32 import cpu as c
from kvmvfio_emu.guest.machine.aarch32 import exceptions as x
from kvmvfio_emu.kernel.kvm.arch import aarch32 as a

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.registers import RegisterFile

_LOW = (1 << 32) - 1
#: AArch64 name in the file -> the register, or the ones that are its lower and upper half.
_SYSTEM: dict[str, tuple[c.Coprocessor, ...]] = {
    "SCTLR_EL1": (x.SCTLR,),
    "CPACR_EL1": (c.Coprocessor(0, 1, 0, 2),),
    "TTBR0_EL1": (c.Coprocessor(0, 0, 2, 0, wide=True),),
    "TTBR1_EL1": (c.Coprocessor(1, 0, 2, 0, wide=True),),
    "TCR_EL1": (x.TTBCR,),
    "ESR_EL1": (x.DFSR,),
    "IFSR32_EL2": (x.IFSR,),
    "FAR_EL1": (x.DFAR, x.IFAR),
    "PAR_EL1": (c.Coprocessor(0, 0, 7, 0, wide=True),),
    "MAIR_EL1": (c.Coprocessor(0, 10, 2, 0), c.Coprocessor(0, 10, 2, 1)),
    "VBAR_EL1": (x.VBAR,),
    "CONTEXTIDR_EL1": (c.Coprocessor(0, 13, 0, 1),),
    "TPIDR_EL0": (c.Coprocessor(0, 13, 0, 2),),
    "TPIDRRO_EL0": (c.Coprocessor(0, 13, 0, 3),),
    "TPIDR_EL1": (c.Coprocessor(0, 13, 0, 4),),
    "CSSELR_EL1": (c.Coprocessor(2, 0, 0, 0),),
    "CNTKCTL_EL1": (c.Coprocessor(0, 14, 1, 0),),
    "DACR32_EL2": (c.Coprocessor(0, 3, 0, 0),),
}
#: Bits of SCTLR that are one in the CPU whatever is written: the file's reset value is that of AArch64.
_SCTLR_CONTROLS = 0x72003807  #: TE, AFE, TRE, EE, V, I, Z, C, A, M


class Transfer:
    """Between ``file`` and ``cpu``."""

    def __init__(self, cpu: c.Cpu, file: RegisterFile) -> None:
        self._cpu = cpu
        self._file = file
        self._shared = {name: places for name, places in _SYSTEM.items() if name in file.system}
        self._fixed = (cpu.read_system(x.SCTLR) or 0) & ~_SCTLR_CONTROLS

    def load(self) -> None:
        """The engine takes what the file holds."""
        cpu, core = self._cpu, self._file.core
        regs = core.regs.regs
        for name, places in self._shared.items():
            value = self._file.system[name]
            if name == "SCTLR_EL1":
                value = value & _SCTLR_CONTROLS | self._fixed
            self._set(places, value)
        for number in range(32):
            cpu.write(c.D[number], core.fp_regs.vregs[number // 2][number % 2])
        cpu.write(c.FPSCR, core.fp_regs.fpsr | core.fp_regs.fpcr)
        cpu.write(c.FPEXC, self._file.system.get("FPEXC32_EL2", 0))
        cpu.write(c.CPSR, a.SYSTEM)
        for number in range(13):
            cpu.write(c.R[number], regs[number])
        cpu.write(c.SP, regs[a.USER_SP])
        cpu.write(c.LR, regs[a.USER_LR])
        for mode, (link, stack, saved) in a.BANKS.items():
            cpu.write(c.CPSR, mode)
            cpu.write(c.SP, regs[stack])
            cpu.write(c.LR, regs[link])
            cpu.write(c.SPSR, core.spsr[saved] & _LOW)
        cpu.write(c.CPSR, a.FIQ)
        for number in range(5):
            cpu.write(c.R[8 + number], regs[a.FIQ_R8 + number])
        cpu.write(c.CPSR, core.regs.pstate & _LOW)
        cpu.pc = core.regs.pc & _LOW
        cpu.write_system(x.DFSR, cpu.read_system(x.DFSR) or 0)  # the last one, which makes it see the new CPSR

    def save(self) -> None:
        """The file shows what the engine has."""
        cpu, core = self._cpu, self._file.core
        regs = core.regs.regs
        status = cpu.read(c.CPSR)
        core.regs.pstate, core.regs.pc = status, cpu.pc
        cpu.write(c.CPSR, a.SYSTEM)
        for number in range(15):
            regs[number] = cpu.read(c.R[number])
        for mode, (link, stack, saved) in a.BANKS.items():
            cpu.write(c.CPSR, mode)
            regs[stack], regs[link] = cpu.read(c.SP), cpu.read(c.LR)
            core.spsr[saved] = cpu.read(c.SPSR)
        cpu.write(c.CPSR, a.FIQ)
        for number in range(5):
            regs[a.FIQ_R8 + number] = cpu.read(c.R[8 + number])
        cpu.write(c.CPSR, status)
        for number in range(32):
            core.fp_regs.vregs[number // 2][number % 2] = cpu.read(c.D[number])
        control = cpu.read(c.FPSCR)
        core.fp_regs.fpsr, core.fp_regs.fpcr = control & a.FPSR_BITS, control & a.FPCR_BITS
        if "FPEXC32_EL2" in self._file.system:
            self._file.system["FPEXC32_EL2"] = cpu.read(c.FPEXC)
        for name, places in self._shared.items():
            self._file.system[name] = self._get(places)
        cpu.write_system(x.DFSR, cpu.read_system(x.DFSR) or 0)

    def _set(self, places: tuple[c.Coprocessor, ...], value: int) -> None:
        for half, place in enumerate(places):
            self._cpu.write_system(place, value >> 32 * half if place.wide else value >> 32 * half & _LOW)

    def _get(self, places: tuple[c.Coprocessor, ...]) -> int:
        return sum((self._cpu.read_system(place) or 0) << 32 * half for half, place in enumerate(places))
