"""A vCPU that executes A64: what `MachineGuest` leaves to the 64-bit execution state."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.guest.base import GuestBus
from kvmvfio_emu.guest.machine import binding as b
from kvmvfio_emu.guest.machine import syndrome as s
from kvmvfio_emu.guest.machine.aarch64 import cpu as c
from kvmvfio_emu.guest.machine.aarch64 import decode as d
from kvmvfio_emu.guest.machine.aarch64 import exceptions as x
from kvmvfio_emu.guest.machine.aarch64.system import SystemRegisters
from kvmvfio_emu.guest.machine.aarch64.transfer import Transfer
from kvmvfio_emu.guest.machine.engine import MachineGuest
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.arch.arm64_registers import Arm64Registers

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_WFI = 0xD503207F
_WORD = 4


class Guest(MachineGuest):
    """One of them."""

    _cpu: c.Cpu

    def __init__(self, vcpu: Vcpu) -> None:
        file = vcpu.registers
        assert isinstance(file, Arm64Registers)
        self._system = SystemRegisters(vcpu, file)
        cpu = c.Cpu(self._raised, self._system.read, self._system.write)
        super().__init__(vcpu, cpu, Transfer(cpu, file))

    def _check_file(self) -> None:
        if self._file.core.regs.pstate & x.AARCH32:
            self._vcpu.run.exit_reason = uapi.KVM_EXIT_FAIL_ENTRY
            raise KernelError(errno.EINVAL, "the engine executes AArch64 only")

    def _settle(self) -> None:
        self._system.settle()

    # -- exceptions -----------------------------------------------------------------------------------------------

    def _misaligned(self, pc: int) -> bool:
        if pc % _WORD:
            self._fault(x.EC_PC_ALIGNMENT, 0, pc)
        return bool(pc % _WORD)

    def _interrupt(self, kind: int, pc: int, status: int) -> None:
        if kind == s.SERROR:
            self._cpu.write_system(x.ESR_EL1, x.syndrome(x.EC_SERROR, 0, status))
        x.enter(self._cpu, x.INTERRUPT[kind], pc, status)

    def _return_address(self) -> int | None:
        return self._cpu.read_system(x.ELR_EL1) or 0

    def _abort(self, kind: int, fault: int, address: int, *, write: bool = False) -> None:
        self._fault(kind, fault | (s.WRITE_NOT_READ if write else 0), address)

    def _fault(self, kind: int, specific: int, address: int) -> None:
        """A synchronous exception that KVM, or the hardware in its name, makes."""
        self._enter(x.syndrome(kind, specific, self._cpu.read(c.PSTATE)), address)

    def _deliver(self, number: int, raised: b.Raised) -> bool:
        aborted = number in (b.PREFETCH_ABORT, b.DATA_ABORT)
        self._enter(raised.esr, raised.address if aborted else None)
        return aborted

    def _enter(self, esr: int, address: int | None) -> None:
        cpu, vcpu = self._cpu, self._vcpu
        pc = cpu.pc
        x.enter_synchronous(cpu, pc, cpu.read(c.PSTATE), esr, address)
        vcpu.host.event("guest_exception", vcpu=vcpu.index, pc=pc, esr=esr)

    # -- instructions ---------------------------------------------------------------------------------------------

    def _serve_undefined(self, pc: int, bus: GuestBus) -> bool:
        word = self._cpu.word(pc)
        access = None if word is None else d.decode_system(word)
        if access is None or not self._system.serve(bus, access, self._cpu):
            return False
        self._cpu.pc = pc + _WORD
        return True

    def _decode(self, esr: int, pc: int) -> s.Access | None:
        access = d.access(esr, self._cpu.word(pc) or 0)
        return access._replace(swapped=True) if access is not None and self._big_endian else access

    @property
    def _big_endian(self) -> bool:
        """Whether data are, at the exception level where the guest is."""
        control = self._cpu.control
        if not control & (x.BIG_ENDIAN | x.USER_BIG_ENDIAN):
            return False
        user = not self._cpu.read(c.PSTATE) & x.EXCEPTION_LEVEL
        return bool(control & (x.USER_BIG_ENDIAN if user else x.BIG_ENDIAN))

    def _target(self, pc: int) -> int:
        return d.target(self._cpu.word(pc) or 0, pc, self._base)

    def _base(self, number: int) -> int:
        """The base of an address: 31 is SP."""
        return self._cpu.read(c.SP if number == s.ZERO else c.X[number])

    def _skips_maintenance(self, pc: int) -> bool:
        found = d.is_cache_maintenance(self._cpu.word(pc) or 0)
        if found:
            self._cpu.pc = pc + _WORD
        return found

    def _skip(self, pc: int, access: s.Access) -> None:
        self._cpu.pc = pc + _WORD

    def _waited(self, pc: int) -> bool:
        return self._cpu.word(pc - _WORD) == _WFI

    def _call_number(self, pc: int) -> int:
        return (self._cpu.word(pc - _WORD) or 0) >> 5 & 0xFFFF

    def _register(self, number: int) -> int:
        return c.X[number]
