"""The generic timer of a vCPU as userspace sees it: counters, controls, comparators (arch/arm64/kvm/arch_timer.c).

Their interrupts are in `timerirq`, which what executes guest code has to tell of changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu import uapi

if TYPE_CHECKING:
    from kvmvfio_emu.engine.clock import Clock
    from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch

#: In the kernel's order; kernels without the physical timer's have the first three.
REGISTERS = (
    uapi.KVM_REG_ARM_TIMER_CTL,
    uapi.KVM_REG_ARM_TIMER_CNT,
    uapi.KVM_REG_ARM_TIMER_CVAL,
    uapi.KVM_REG_ARM_PTIMER_CTL,
    uapi.KVM_REG_ARM_PTIMER_CNT,
    uapi.KVM_REG_ARM_PTIMER_CVAL,
)
_ENABLE, _MASKED = 1 << 0, 1 << 1
_CONDITION_MET = 1 << 2  #: ISTATUS of the control register, which only the hardware sets
_MASK = (1 << 64) - 1
_HZ = 62_500_000


class Timer:
    """One of them: ``offset`` ticks behind the host's counter."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.control = self.compare = 0


class Timers:
    """The virtual and the physical one."""

    def __init__(self, clock: Clock, arch: ArmArch) -> None:
        self._clock: Clock = clock
        self._arch: ArmArch = arch
        self.virtual = Timer(_ticks(arch.created_at))
        self.physical = Timer(0)

    def reset(self) -> None:
        """Off; the counters go on."""
        for timer in (self.virtual, self.physical):
            timer.control = timer.compare = 0

    def count(self, timer: Timer, ahead: int = 0) -> int:
        """The counter as the guest reads it, ``ahead`` nanoseconds from now."""
        offset = timer.offset if self._arch.counter_offset is None else self._arch.counter_offset
        return _ticks(self._clock.now + ahead) - offset & _MASK

    def get(self, number: int) -> int:
        """One of `REGISTERS`."""
        timer, part = self._locate(number)
        if part == 1:
            return self.count(timer)
        if part == 2:
            return timer.compare
        return timer.control | (_CONDITION_MET if self.count(timer) >= timer.compare else 0)

    # -- the guest's side -----------------------------------------------------------------------------------------

    def read_system(self, crm: int, op2: int, ahead: int) -> int | None:
        """A guest's MRS of CNT*_EL0 (CRn 14), ``ahead`` nanoseconds from now; None: no such register."""
        if crm == 0:
            if op2 == 0:
                return _HZ
            return self.count(self.physical if op2 == 1 else self.virtual, ahead) if op2 in (1, 2) else None
        timer = {2: self.physical, 3: self.virtual}.get(crm)
        if timer is None or op2 > 2:
            return None
        if op2 == 0:
            return timer.compare - self.count(timer, ahead) & 0xFFFFFFFF
        if op2 == 1:
            return timer.control | (_CONDITION_MET if self._met(timer, ahead) else 0)
        return timer.compare

    def write_system(self, crm: int, op2: int, value: int, ahead: int) -> None:
        """A guest's MSR of a timer's TVAL (op2 0), CTL (1) or CVAL (2)."""
        timer = self.physical if crm == 2 else self.virtual
        if op2 == 0:
            signed = (value & 0xFFFFFFFF) - ((value & 1 << 31) << 1)
            timer.compare = self.count(timer, ahead) + signed & _MASK
        elif op2 == 1:
            timer.control = value & (_ENABLE | _MASKED)
        else:
            timer.compare = value & _MASK

    def asserted(self, timer: Timer) -> bool:
        """The timer's interrupt line, which is level-sensitive."""
        return timer.control & (_ENABLE | _MASKED) == _ENABLE and self.count(timer) >= timer.compare

    def until(self, timer: Timer) -> int | None:
        """Nanoseconds until the line rises; None: it is up, or will not."""
        if timer.control & (_ENABLE | _MASKED) != _ENABLE:
            return None
        left = timer.compare - self.count(timer)
        return -(-left * 1_000_000_000 // _HZ) if left > 0 else None

    def _met(self, timer: Timer, ahead: int) -> bool:
        return bool(timer.control & _ENABLE) and self.count(timer, ahead) >= timer.compare

    # -- userspace's --------------------------------------------------------------------------------------------------

    def set(self, number: int, value: int) -> None:
        """Set one. A counter is set by its offset, unless that was given for the whole virtual machine."""
        timer, part = self._locate(number)
        if part == 1:
            timer.offset = _ticks(self._clock.now) - value & _MASK
        elif part == 2:
            timer.compare = value
        else:
            timer.control = value & ~_CONDITION_MET & _MASK

    def _locate(self, number: int) -> tuple[Timer, int]:
        index = REGISTERS.index(number)
        return (self.virtual if index < 3 else self.physical), index % 3


def _ticks(nanoseconds: int) -> int:
    return nanoseconds * _HZ // 1_000_000_000
