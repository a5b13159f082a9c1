"""One interrupt on its way from a device's line to a guest, seen from outside: what was promised, who has it now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvmvfio_emu.hw.gich import LR_ACTIVE, LR_HW, LR_PENDING
from kvmvfio_emu.testing import virtual
from kvmvfio_emu.testing.vmm import FIRST_SPI, GuestDriver, VfioDevice, Vm

if TYPE_CHECKING:
    from kvmvfio_emu.testing.world import World


@dataclass(eq=False)
class Route:
    """Line ``index`` of a device, as ``gsi`` of a virtual machine."""

    world: World
    number: int
    device_at: int
    index: int
    vm_at: int
    gsi: int
    line: Any  #: the hardware's output
    irqfd: bool = False
    forwarded: bool = False
    user_masked: bool = False  #: by a MASK that no UNMASK followed
    enabled: bool = False  #: in the guest's distributor
    allowance: int = 0  #: `credit`, but for what was signalled since the device is open
    taken: int = 0  #: acknowledged by the guest, ever

    @property
    def device(self) -> VfioDevice | None:
        """None while it is closed."""
        return self.world.devices[self.device_at]

    @property
    def vm(self) -> Vm | None:
        """None while there is none."""
        return self.world.vms[self.vm_at]

    @property
    def hwirq(self) -> int:
        """Its id in the physical interrupt controller."""
        return int(self.line.hwirq)

    @property
    def virtual(self) -> int:
        """Its id in the guest's interrupt controller."""
        return self.gsi + FIRST_SPI

    @property
    def guest(self) -> GuestDriver | None:
        """The vCPU that it is routed to."""
        return None if self.vm is None else self.vm.guests[self.number % len(self.vm.guests)]

    @property
    def connected(self) -> bool:
        """Whether its signals reach the guest."""
        return self.irqfd and self.device is not None and self.vm is not None

    @property
    def _vfio(self) -> Any:
        """What VFIO knows of it; None while its device is closed."""
        if self.device is None:
            return None
        group = self.world.vfio.groups[self.device.hw.spec.group]
        return group.devices[self.device.name].irqs[self.index]

    @property
    def masked(self) -> bool:
        """Whether VFIO has it masked."""
        known = self._vfio
        return known is not None and bool(known.masked)

    @property
    def credit(self) -> int:
        """Signals that a guest may yet acknowledge."""
        known = self._vfio
        return self.allowance + (0 if known is None else int(known.signals))

    @credit.setter
    def credit(self, value: int) -> None:
        self.allowance += value - self.credit

    @property
    def injection_waits(self) -> bool:
        """Whether its injection waits for a kernel thread."""
        model = self.world.models[self.vm_at]
        irqfds = [] if model is None else model.irqfds.active
        return any(irqfd.gsi == self.gsi and irqfd.inject_work.pending for irqfd in irqfds)

    @property
    def list_register(self) -> int | None:
        """What the list register that holds it says; None when none does."""
        model = self.world.models[self.vm_at]
        return None if model is None else virtual.list_register(model, self.virtual)

    @property
    def in_flight(self) -> bool:
        """Whether somebody between line and guest has not finished with it."""
        if self.world.gic.is_active(self.hwirq) or (self.masked and not self.user_masked) or self.injection_waits:
            return True
        model = self.world.models[self.vm_at]
        if model is None:
            return False
        return virtual.waits(model, self.virtual) or bool((self.list_register or 0) & (LR_PENDING | LR_ACTIVE))

    @property
    def rising(self) -> bool:
        """Whether the hardware is about to interrupt the host."""
        return self.world.gic.is_pending(self.hwirq)

    def state(self) -> str:
        """Where it is: physical state, VFIO's mask, forwarding, list register, deferred injection."""
        parts = [self.world.gic.state(self.hwirq)]
        parts += [name for name, so in (("masked", self.masked), ("forwarded", self.forwarded)) if so]
        lr = self.list_register
        if lr is not None:
            what = {0: "done", LR_PENDING: "pending", LR_ACTIVE: "active"}.get(lr & (LR_PENDING | LR_ACTIVE), "both")
            parts.append(f"LR {what} {'HW' if lr & LR_HW else 'EOI'}" if what != "done" else "LR done")
        if self.injection_waits:
            parts.append("injection waits")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"{self.line.name} -> vm{self.vm_at} gsi {self.gsi}"
