"""Which pin of the interrupt controller a gsi means (virt/kvm/irqchip.c); on ARM of 2014 simply pin = gsi."""

from __future__ import annotations

import errno

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.task import Task, UserPtr

MAX_ROUTES = 4096
_HEADER_SIZE, _ENTRY_SIZE = 8, 48
#: Shared peripheral interrupts end at 1020; pins count from the first of them.
_PINS = 1020 - 32


class Routing:
    """The routing table of one virtual machine. Without a table (the default) every gsi is the pin of its number."""

    def __init__(self) -> None:
        self._table: dict[int, int] | None = None
        self._reverse: dict[int, int] = {}

    def pin(self, gsi: int) -> int | None:
        """The pin behind ``gsi``; None when it leads nowhere."""
        return gsi if self._table is None else self._table.get(gsi)

    def gsi(self, pin: int) -> int | None:
        """The gsi that means ``pin``, the last one if there are several; None when there is none."""
        return pin if self._table is None else self._reverse.get(pin)

    def set_default(self, pins: int) -> None:
        """The table that an initialised VGIC starts with: every pin that it has is the gsi of its number."""
        self._install({pin: pin for pin in range(pins)})

    def _install(self, table: dict[int, int]) -> None:
        self._table = table
        self._reverse = {pin: gsi for gsi, pin in table.items()}

    def set(self, pointer: UserPtr, task: Task) -> None:
        """KVM_SET_GSI_ROUTING. EINVAL too many, flags, a bad entry; EFAULT header or entries."""
        header = uapi.view("struct kvm_irq_routing", task.copy_from_user(pointer, _HEADER_SIZE))
        if header.nr > MAX_ROUTES or header.flags:
            raise KernelError(errno.EINVAL, f"{header.nr} routes with flags {header.flags:#x}")
        raw = task.copy_from_user(pointer, header.nr * _ENTRY_SIZE, _HEADER_SIZE)
        entries = uapi.ffi.from_buffer("struct kvm_irq_routing_entry[]", raw)
        table: dict[int, int] = {}
        for entry in entries:
            if entry.gsi >= MAX_ROUTES or entry.flags or entry.type != uapi.KVM_IRQ_ROUTING_IRQCHIP:
                raise KernelError(errno.EINVAL, f"routing entry for gsi {entry.gsi}: gsi, flags or type")
            if entry.u.irqchip.irqchip or entry.u.irqchip.pin >= _PINS:
                raise KernelError(errno.EINVAL, f"routing entry for gsi {entry.gsi}: no such pin")
            if entry.gsi in table:
                raise KernelError(errno.EINVAL, f"gsi {entry.gsi} twice to one interrupt controller")
            table[entry.gsi] = entry.u.irqchip.pin
        self._install(table)

    def clear(self) -> None:
        """The virtual machine goes."""
        self._table = None
