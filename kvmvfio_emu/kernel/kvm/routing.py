"""Which inputs of which interrupt controller, or which message, a gsi means (virt/kvm/irqchip.c)."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.task import Task, UserPtr

MAX_ROUTES = 4096
_HEADER_SIZE, _ENTRY_SIZE = 8, 48


@dataclass(frozen=True, slots=True)
class Pin:
    """Input ``pin`` of in-kernel interrupt controller ``chip``."""

    chip: int
    pin: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message signalled interrupt; ``device`` is the sender's id, where it says who it is."""

    address: int
    data: int
    device: int | None = None


Target = Pin | Message


class Routing:
    """The routing table of one virtual machine. ``chips``: the number of pins of each interrupt controller.

    Without a table, as on a kernel that cannot be given one, every gsi is the pin of its number.
    """

    def __init__(self, chips: Sequence[int]) -> None:
        self.chips = chips
        self._table: dict[int, tuple[Target, ...]] | None = None
        self._gsi_of: dict[Pin, int] = {}

    def targets(self, gsi: int) -> tuple[Target, ...]:
        """What ``gsi`` leads to; nothing where it leads nowhere."""
        return (Pin(0, gsi),) if self._table is None else self._table.get(gsi, ())

    def gsi(self, chip: int, pin: int) -> int | None:
        """The gsi that leads to a pin, the last one if there are several; models kvm_irq_map_chip_pin."""
        return pin if self._table is None else self._gsi_of.get(Pin(chip, pin))

    def set_default(self, pins: int) -> None:
        """The table that an initialised VGIC starts with: every pin that it has is the gsi of its number."""
        self.install((pin, Pin(0, pin)) for pin in range(pins))

    def install(self, routes: Iterable[tuple[int, Target]]) -> None:
        """Replace the table. EINVAL a gsi twice: it may only lead to one pin of each of several controllers."""
        table: dict[int, tuple[Target, ...]] = {}
        gsi_of: dict[Pin, int] = {}
        for gsi, target in routes:
            for other in table.get(gsi, ()):
                if not (isinstance(target, Pin) and isinstance(other, Pin)) or target.chip == other.chip:
                    raise KernelError(errno.EINVAL, f"gsi {gsi} twice to one interrupt controller, or to a message")
            if isinstance(target, Pin):
                if target.chip >= len(self.chips) or target.pin >= self.chips[target.chip]:
                    raise KernelError(errno.EINVAL, f"gsi {gsi}: no interrupt controller has that pin ({target})")
                gsi_of[target] = gsi
            table[gsi] = (*table.get(gsi, ()), target)
        self._table, self._gsi_of = table, gsi_of

    def set(self, pointer: UserPtr, task: Task, *, allowed: bool = True) -> None:
        """KVM_SET_GSI_ROUTING. EFAULT header or entries; EINVAL not ``allowed``, too many, flags, a bad entry."""
        header = uapi.view("struct kvm_irq_routing", task.copy_from_user(pointer, _HEADER_SIZE))
        if not allowed:
            raise KernelError(errno.EINVAL, "no in-kernel interrupt controller to route to")
        if header.nr > MAX_ROUTES or header.flags:
            raise KernelError(errno.EINVAL, f"{header.nr} routes with flags {header.flags:#x}")
        raw = task.copy_from_user(pointer, header.nr * _ENTRY_SIZE, _HEADER_SIZE)
        self.install([_route(entry) for entry in uapi.ffi.from_buffer("struct kvm_irq_routing_entry[]", raw)])

    def clear(self) -> None:
        """The virtual machine goes."""
        self._table, self._gsi_of = None, {}


def _route(entry: Any) -> tuple[int, Target]:
    gsi, kind, flags, where = entry.gsi, entry.type, entry.flags, entry.u
    known = uapi.KVM_MSI_VALID_DEVID if kind == uapi.KVM_IRQ_ROUTING_MSI else 0
    if gsi >= MAX_ROUTES or flags & ~known:
        raise KernelError(errno.EINVAL, f"routing entry for gsi {gsi}: gsi or flags")
    if kind == uapi.KVM_IRQ_ROUTING_IRQCHIP:
        return gsi, Pin(where.irqchip.irqchip, where.irqchip.pin)
    if kind == uapi.KVM_IRQ_ROUTING_MSI:
        return gsi, message(where.msi, flags)
    raise KernelError(errno.EINVAL, f"routing entry for gsi {gsi} of type {kind}")


def message(msi: Any, flags: int) -> Message:
    """The message of a ``struct kvm_msi`` or ``struct kvm_irq_routing_msi``."""
    device = msi.devid if flags & uapi.KVM_MSI_VALID_DEVID else None
    return Message(msi.address_hi << 32 | msi.address_lo, msi.data, device)
