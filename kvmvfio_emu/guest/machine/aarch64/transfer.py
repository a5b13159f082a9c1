"""The registers of a vCPU between KVM's register file and the engine, both ways.

The engine owns them while the guest runs; the file is refreshed when userspace asks, and the engine when userspace has
set something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.guest.machine.aarch64 import cpu as c
from kvmvfio_emu.guest.machine.aarch64 import exceptions as x
from kvmvfio_emu.kernel.kvm.sysregs import Encoding

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.arch.arm64_registers import Arm64Registers

#: Kept in the file alone: debug registers trap nothing here, the engine has no RAS and no younger architecture, and the
#: 32-bit ones belong to guests that there are not.
_KVMS = ("DBG", "MDCCINT", "MDSCR", "OSLSR", "MPIDR", "DACR32", "IFSR32", "FPEXC32", "DISR", "TCR2", "PIR")


class Transfer:
    """Between ``file`` and ``cpu``."""

    def __init__(self, cpu: c.Cpu, file: Arm64Registers) -> None:
        self._cpu = cpu
        self._file = file
        #: System registers that both have: name -> encoding.
        self._shared: dict[str, Encoding] = {
            register.name: register.encoding
            for register in file.declared.all
            if not register.fixed and not register.name.startswith(_KVMS)
        }

    def load(self) -> None:
        """The engine takes what the file holds."""
        cpu, core = self._cpu, self._file.core
        for number, register in enumerate(c.X):
            cpu.write(register, core.regs.regs[number])
        vectors = self._vectors()
        for number in range(32):
            cpu.write_quad(number, bytes(vectors[16 * number : 16 * number + 16]))
        cpu.write(c.FPSR, core.fp_regs.fpsr)
        cpu.write(c.FPCR, core.fp_regs.fpcr)
        pstate = int(core.regs.pstate)
        cpu.pc = core.regs.pc
        cpu.write(c.PSTATE, pstate)
        cpu.write(c.SP, core.sp_el1 if pstate & x.SP_SELECT else core.regs.sp)
        cpu.write_system(x.SP_EL0, core.regs.sp)
        cpu.write_system(x.SP_EL1, core.sp_el1)
        cpu.write_system(x.ELR_EL1, core.elr_el1)
        for name, encoding in self._shared.items():
            cpu.write_system(encoding, self._file.system[name])
        cpu.write_system(x.SPSR_EL1, core.spsr[0])

    def save(self) -> None:
        """The file shows what the engine has."""
        cpu, core = self._cpu, self._file.core
        for number, register in enumerate(c.X):
            core.regs.regs[number] = cpu.read(register)
        vectors = self._vectors()
        for number in range(32):
            vectors[16 * number : 16 * number + 16] = cpu.read_quad(number)
        core.fp_regs.fpsr, core.fp_regs.fpcr = cpu.read(c.FPSR), cpu.read(c.FPCR)
        core.regs.pc, core.regs.pstate = cpu.pc, cpu.read(c.PSTATE)
        core.regs.sp, core.sp_el1 = self._system(x.SP_EL0), self._system(x.SP_EL1)
        if core.regs.pstate & x.SP_SELECT:
            core.sp_el1 = cpu.read(c.SP)
        else:
            core.regs.sp = cpu.read(c.SP)
        core.elr_el1, core.spsr[0] = self._system(x.ELR_EL1), self._system(x.SPSR_EL1)
        for name, encoding in self._shared.items():
            self._file.system[name] = self._system(encoding)

    def _vectors(self) -> memoryview:
        core = self._file.core
        size = uapi.sizeof("struct kvm_regs")
        start = uapi.ffi.offsetof("struct kvm_regs", "fp_regs", "vregs")
        return memoryview(uapi.ffi.buffer(core, size))[start : start + 16 * 32]

    def _system(self, encoding: Encoding) -> int:
        return self._cpu.read_system(encoding) or 0
