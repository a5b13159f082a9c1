"""The guest of `kvmvfio-emu tcp-rr`: a server behind one or more xgmacs, driven the way Linux drives them.

As in Linux's xgmac driver, the interrupt handler reads and clears the status and turns the device's interrupts off;
the requests are then polled for (NAPI), outside of it, and the device's interrupts turned on again. So the guest
completes the interrupt *before* it answers. A driver that does all its work in the handler completes *after* it.
"""

from __future__ import annotations

from typing import Protocol

from kvmvfio_emu.guest.base import Exit, GuestBus
from kvmvfio_emu.guest.script import Cpu, Operation, Routine, Script, read, wait_for_interrupt, work, write
from kvmvfio_emu.guest.xgmac import GIC_CPU, GIC_DISTRIBUTOR, REGISTERS, SPI

TX_POLL, STATUS, INTERRUPT_ENABLE = 0xF04, 0xF14, 0xF1C
_ALL = 1 << 16 | 1 << 6  # normal interrupt summary, receive
#: Written when the workload is over. No memory there, so it exits to the VMM.
DOORBELL = 0x0D000000


class Requests(Protocol):
    """The guest's view of the workload: what waits in the receive rings, and whether there is more to come."""

    devices: int

    @property
    def over(self) -> bool:
        """Whether the guest may stop."""

    def take(self, device: int) -> bool:
        """Take a request from a device's ring; False when it is empty."""

    def pace(self) -> None:
        """Bring the model's clock up to what the steps so far have cost."""

    def pause(self) -> int:
        """How long, in the model's time, a vCPU with nothing to do computes until something can have changed."""


class Server(Script):
    """The program. ``idle``: wait for the next request in WFI, else compute; ``early``: complete before answering."""

    def __init__(self, requests: Requests, *, idle: bool, early: bool) -> None:
        super().__init__(self._serve, self._interrupt, distributor=GIC_DISTRIBUTOR, interface=GIC_CPU)
        self._requests = requests
        self._idle = idle
        self._early = early
        self._polled: list[int] = []
        self._bus: GuestBus | None = None

    def step(self, bus: GuestBus) -> Exit | None:
        """As `Script.step`; time has passed since the last one, and an interrupt of it comes first."""
        self._bus = bus
        self._requests.pace()
        return None if bus.must_exit else super().step(bus)

    def _compute(self, nanoseconds: int, routine: Routine, bus: GuestBus) -> None:
        # Not as in a script: what an interrupt leaves of it is of no interest, since nothing depends on its end.
        bus.pass_time(nanoseconds)

    def _serve(self, cpu: Cpu) -> Routine:
        yield from cpu.enable_gic()
        for device in range(self._requests.devices):
            yield from cpu.enable_irq(SPI + device)
            yield write(_register(device, INTERRUPT_ENABLE), _ALL)
        yield write(DOORBELL, 0)
        while not self._requests.over:
            if self._polled:
                device = self._polled.pop(0)
                yield from self._poll(device)
                yield write(_register(device, INTERRUPT_ENABLE), _ALL)
            else:
                yield self._pause()
        yield write(DOORBELL, 1)

    def _pause(self) -> Operation:
        return wait_for_interrupt() if self._idle else work(self._requests.pause())

    def _interrupt(self, cpu: Cpu) -> Routine:
        irq = yield cpu.acknowledge()
        device = irq - SPI
        status = yield read(_register(device, STATUS))
        yield write(_register(device, STATUS), status)
        if self._early:
            yield write(_register(device, INTERRUPT_ENABLE), 0)
            self._polled.append(device)
        else:
            yield from self._poll(device)
        yield cpu.end_of_interrupt(irq)

    def _poll(self, device: int) -> Routine:
        while self._requests.take(device):
            assert self._bus is not None
            self._bus.note("guest_packet", device=device)
            yield write(_register(device, TX_POLL), 1)


def _register(device: int, offset: int) -> int:
    """The guest physical address of a register."""
    return REGISTERS + device * 0x1000 + offset


def answered(address: int) -> int | None:
    """The device whose response a write to ``address`` starts; None for another register."""
    device, offset = divmod(address - REGISTERS, 0x1000)
    return device if offset == TX_POLL else None
