"""System registers that the engine has not, or that the model knows better: the CPU interface, timers, identification.

Their MRS and MSR reach us as undefined instructions (ICC_*), or by the engine's hooks, inside of which the model must
not move: there only values are read, and a timer's comparator set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.guest.base import GuestBus
from kvmvfio_emu.guest.machine.aarch64 import cpu as c
from kvmvfio_emu.guest.machine.aarch64.decode import SystemAccess
from kvmvfio_emu.guest.machine.syndrome import ZERO
from kvmvfio_emu.kernel.kvm.sysregs import Encoding, index_of

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.arch.arm64_registers import Arm64Registers
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_ISR_EL1: Encoding = (3, 0, 12, 1, 0)
_TIMERS = (3, 3, 14)  #: op0, op1, CRn of CNT*_EL0
_TIMER_CRM = (2, 3)
_ISR_IRQ, _ISR_FIQ, _ISR_SERROR = 1 << 7, 1 << 6, 1 << 8
#: What reading a counter takes, so that a guest that waits for it gets there.
_READ_NS = 16


class SystemRegisters:
    """Those of ``vcpu``, whose registers are ``file``."""

    def __init__(self, vcpu: Vcpu, file: Arm64Registers) -> None:
        self._vcpu = vcpu
        self._file = file
        self._names = {
            register.encoding: register.name
            for register in self._file.declared.all
            if register.fixed or register.name == "MPIDR_EL1"
        }
        self._passed = 0  #: nanoseconds that the guest has seen pass, and the model not yet
        self._timer_set = False

    def read(self, encoding: Encoding) -> int | None:
        """An MRS, inside of the engine; None: it knows better."""
        if encoding == _ISR_EL1:
            vcpu = self._vcpu
            pending = _ISR_IRQ if vcpu.irq_asserted else 0
            pending |= _ISR_FIQ if vcpu.fiq_asserted else 0
            return pending | (_ISR_SERROR if vcpu.serror_pending else 0)
        name = self._names.get(encoding)
        if name is not None:
            return self._file.system[name]
        if encoding[:3] == _TIMERS:
            self._passed += _READ_NS
            return self._file.timers.read_system(encoding[3], encoding[4], self._passed)
        return None

    def write(self, encoding: Encoding, value: int) -> bool:
        """An MSR, inside of the engine; False: it knows better."""
        if encoding[:3] == _TIMERS and encoding[3] in _TIMER_CRM:
            self._file.timers.write_system(encoding[3], encoding[4], value, self._passed)
            self._timer_set = True
            return True
        return False

    def settle(self) -> None:
        """What the guest saw of time has happened; called outside of the engine."""
        if self._passed:
            passed, self._passed = self._passed, 0
            self._vcpu.host.clock.advance(passed)
        if self._timer_set:
            self._timer_set = False
            self._vcpu.timer_lines.update()

    def serve(self, bus: GuestBus, access: SystemAccess, cpu: c.Cpu) -> bool:
        """An access that the engine refused. False: it is undefined here, too."""
        register = index_of(access.encoding)
        if not bus.has_system(register, read=access.read):
            return False
        if access.read:
            value = bus.read_system(register)
            if access.register != ZERO:
                cpu.write(c.X[access.register], value)
        else:
            bus.write_system(register, 0 if access.register == ZERO else cpu.read(c.X[access.register]))
        return True
