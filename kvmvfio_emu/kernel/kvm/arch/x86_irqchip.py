"""The in-kernel interrupt controllers of an x86 virtual machine, as far as their inputs show (i8259.c, ioapic.c).

There is no x86 guest here: nobody programs them, so they stay as after reset, and no interrupt arrives anywhere. What
KVM_IRQ_LINE_STATUS reports of each input is exact.
"""

from __future__ import annotations

IOAPIC_PINS = 24
_CASCADE = 2


class Pic:
    """One 8259: request, mask and service registers, one bit an input."""

    def __init__(self) -> None:
        self.irr = self.imr = self.isr = 0
        self.elcr = 0  #: inputs that are level triggered
        self._last = 0  #: inputs that were high

    def set(self, pin: int, level: bool) -> int:
        """Drive ``pin``: -1 masked, 0 the request stood already, 1 otherwise. Models pic_set_irq1."""
        bit, result = 1 << pin, 1
        if level:
            if self.elcr & bit or not self._last & bit:
                result = 0 if self.irr & bit else 1
                self.irr |= bit
            self._last |= bit
        else:
            self._last &= ~bit
            if self.elcr & bit:
                self.irr &= ~bit
        return -1 if self.imr & bit else result

    @property
    def requests(self) -> bool:
        """Whether it asserts its output: a request of a higher priority than what is in service."""
        waiting, served = self.irr & ~self.imr, self.isr
        return bool(waiting) and (not served or waiting & -waiting < served & -served)


class Pics:
    """The master and the slave, which is cascaded on the master's input 2."""

    def __init__(self) -> None:
        self.chips = (Pic(), Pic())

    def set(self, chip: int, pin: int, level: bool) -> int:
        """Drive an input; as `Pic.set`."""
        result = self.chips[chip].set(pin, level)
        if self.chips[1].requests:
            self.chips[0].set(_CASCADE, True)
            self.chips[0].set(_CASCADE, False)
        return result


class Ioapic:
    """The I/O APIC: after reset every redirection entry is masked and edge triggered."""

    def __init__(self) -> None:
        self.irr = 0
        self.masked = (1 << IOAPIC_PINS) - 1

    def set(self, pin: int, level: bool) -> int:
        """Drive ``pin``: 1 when it falls, 0 when a request stands already, -1 when it is masked. ioapic_set_irq."""
        bit = 1 << pin
        if not level:
            self.irr &= ~bit
            return 1
        if self.irr & bit:
            return 0
        self.irr |= bit
        return -1 if self.masked & bit else 0


class Irqchip:
    """What KVM_CREATE_IRQCHIP makes."""

    def __init__(self) -> None:
        self.pics = Pics()
        self.ioapic = Ioapic()
