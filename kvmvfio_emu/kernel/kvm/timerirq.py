"""The interrupts of a vCPU's timers: level-sensitive lines into its VGIC (arch/arm64/kvm/arch_timer.c: timer_emulate).

A line that is to rise later does so at its moment of virtual time, also while the vCPU waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmvfio_emu.engine.clock import Timer as Alarm
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu


class TimerLines:
    """Of ``vcpu``; call `update` whenever its timers may have changed."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self._levels = [False, False]
        self._alarms: list[Alarm | None] = [None, None]

    def update(self) -> None:
        """The lines are as the timers say now; those that will rise are waited for."""
        vcpu = self._vcpu
        vgic = vcpu.vm.vgic
        if vcpu.registers is None or vgic is None or not vgic.ready:
            return  # as in the kernel, a timer without an in-kernel interrupt controller raises nothing
        timers = vcpu.registers.timers
        for index, timer in enumerate((timers.virtual, timers.physical)):
            level = timers.asserted(timer)
            if level != self._levels[index]:
                self._levels[index] = level
                vgic.inject(vcpu.index, vcpu.attributes.timer_irqs[index], level)
            self._wait(index, timers.until(timer))

    def _wait(self, index: int, nanoseconds: int | None) -> None:
        alarm, clock = self._alarms[index], self._vcpu.host.clock
        due = None if nanoseconds is None else clock.now + nanoseconds
        if alarm is not None and alarm.callback is not None:
            if alarm.due == due:
                return
            alarm.cancel()
        self._alarms[index] = None if nanoseconds is None else clock.after(nanoseconds, self._fired)

    def _fired(self) -> None:
        if self._vcpu in self._vcpu.vm.vcpus:  # else it was destroyed meanwhile
            self.update()
