"""A Cortex-A72 whose EL1 is AArch64, on the engine: its registers, and hooks of MRS and MSR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unicorn import arm64_const as a64
from unicorn import unicorn_const as uc

from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine.stage2 import FROM_LEVEL_0, Stage2
from kvmvfio_emu.kernel.kvm.sysregs import Encoding

#: Numbers of `Cpu.read` and `Cpu.write`.
PC, SP, PSTATE = a64.UC_ARM64_REG_PC, a64.UC_ARM64_REG_SP, a64.UC_ARM64_REG_PSTATE
FPCR, FPSR, Q0 = a64.UC_ARM64_REG_FPCR, a64.UC_ARM64_REG_FPSR, a64.UC_ARM64_REG_Q0
X = (*(a64.UC_ARM64_REG_X0 + number for number in range(29)), a64.UC_ARM64_REG_X29, a64.UC_ARM64_REG_X30)
#: All of them; the zero register, which an instruction hook may name, is not there.
GENERAL = frozenset(X)

_SCTLR_EL1: Encoding = (3, 0, 1, 0, 0)
_HCR_EL2: Encoding = (3, 4, 1, 1, 0)
_VTTBR_EL2: Encoding = (3, 4, 2, 1, 0)
_VTCR_EL2: Encoding = (3, 4, 2, 1, 2)
_HPFAR_EL2: Encoding = (3, 4, 6, 0, 4)
_SCR_EL3: Encoding = (3, 6, 1, 1, 0)
#: Not an address of an instruction, so that nothing but a stop ends a run.
_NOWHERE = (1 << 64) - 1


class Cpu(b.Cpu):
    """One of them.

    ``on_read(encoding)`` gives what an MRS reads and ``on_write(encoding, value)`` says whether an MSR was served; None
    and False leave it to the engine. Neither may use the engine.
    """

    ARCHITECTURE, ADDRESSES = uc.UC_ARCH_ARM64, (1 << 64) - 1
    HYPERVISOR = b.Cpu.HYPERVISOR | 1 << 31  # RW
    PC, STATUS, COPROCESSOR = PC, PSTATE, a64.UC_ARM64_REG_CP_REG

    def __init__(
        self,
        on_exception: Callable[[int], None],
        on_read: Callable[[Encoding], int | None],
        on_write: Callable[[Encoding, int], bool],
    ) -> None:
        super().__init__(a64.UC_CPU_ARM64_A72, Stage2(FROM_LEVEL_0), _place(_HPFAR_EL2), on_exception)
        self._quad: Any = b.ffi.new("uint8_t[16]")
        self._control_register = _place(_SCTLR_EL1)
        self._hook_system(on_read, on_write)
        self.write_system(_VTCR_EL2, FROM_LEVEL_0.control)
        self.write_system(_VTTBR_EL2, self._stage2.tables)
        # At reset EL1 counts as AArch32: SCR_EL3.RW (with HCE, NS), then HCR_EL2.RW, and VM: the second stage.
        self.write_system(_SCR_EL3, 0x501)
        self._set_hypervisor(self.HYPERVISOR)

    def run(self) -> int:
        """As `binding.Cpu.run`."""
        return self._start(self.pc, _NOWHERE)

    def _set_hypervisor(self, value: int) -> None:
        self.write_system(_HCR_EL2, value)

    @property
    def control(self) -> int:
        """SCTLR_EL1, which every access to a device looks at."""
        self._read_into(self.COPROCESSOR, self._control_register)
        return int(self._control_register.val)

    def read_quad(self, number: int) -> bytes:
        """A vector register: 16 bytes."""
        self._read_into(Q0 + number, self._quad)
        return bytes(b.ffi.buffer(self._quad))

    def write_quad(self, number: int, value: bytes) -> None:
        """Set one."""
        b.ffi.memmove(self._quad, value, 16)
        self._write_from(Q0 + number, self._quad)

    def read_system(self, encoding: Encoding) -> int | None:
        """A system register by (op0, op1, CRn, CRm, op2); None: the engine has it not."""
        place = _place(encoding)
        return int(place.val) if self._read_into(self.COPROCESSOR, place) else None

    def write_system(self, encoding: Encoding, value: int) -> None:
        """Set one; it also makes the engine see what was written to PSTATE before."""
        place = _place(encoding)
        place.val = value
        self._write_from(self.COPROCESSOR, place)

    def _hook_system(
        self, serve_read: Callable[[Encoding], int | None], serve_write: Callable[[Encoding, int], bool]
    ) -> None:
        value = b.ffi.new("uint64_t *")
        handle = self.handle  # not self, which would live as long as its hooks

        def read(_: Any, register: int, cp: Any, __: Any) -> int:
            found = serve_read((cp.op0, cp.op1, cp.crn, cp.crm, cp.op2))
            if found is None:
                return 0
            if register in GENERAL:
                value[0] = found
                b.write_register(handle, register, value)
            return 1

        def written(_: Any, __: int, cp: Any, ___: Any) -> int:
            return int(serve_write((cp.op0, cp.op1, cp.crn, cp.crm, cp.op2), int(cp.val)))

        signature = "uint32_t(void *, int, cp_reg *, void *)"
        self.hook(uc.UC_HOOK_INSN, signature, read, b.ffi.cast("int", a64.UC_ARM64_INS_MRS))
        self.hook(uc.UC_HOOK_INSN, signature, written, b.ffi.cast("int", a64.UC_ARM64_INS_MSR))


def _place(encoding: Encoding) -> Any:
    place: Any = b.ffi.new("cp_reg *")
    place.op0, place.op1, place.crn, place.crm, place.op2 = encoding
    return place
