"""The generic timer of a vCPU as userspace sees it: counters, controls, comparators (arch/arm64/kvm/arch_timer.c).

Timers raise no interrupt here: what executes guest code decides when one fires.
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

    def count(self, timer: Timer) -> int:
        """The counter as the guest reads it."""
        offset = timer.offset if self._arch.counter_offset is None else self._arch.counter_offset
        return _ticks(self._clock.now) - offset & _MASK

    def get(self, number: int) -> int:
        """One of `REGISTERS`."""
        timer, part = self._locate(number)
        if part == 1:
            return self.count(timer)
        if part == 2:
            return timer.compare
        return timer.control | (_CONDITION_MET if self.count(timer) >= timer.compare else 0)

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
