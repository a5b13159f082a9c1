"""The state of an emulated kernel as paths and values, and what changed since the last look.

Made from `state`'s views. A path names a part by where it is: ``gic.112.state``, ``lr.0.0.2`` (virtual machine, vCPU,
list register); docs/reference/trace.md lists them. A value is what JSON knows; None means that the part is gone.
"""

from __future__ import annotations

from typing import Any

from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.view import state

_GIC = ("state", "enabled", "line")
_IRQ = ("depth", "forwarded", "pending")
_VIRTUAL = ("enabled", "level", "pending", "active", "queued", "latch")
_FIRST_SHARED = 32


def paths(host: Host) -> dict[str, Any]:
    """All that there is now. The hardware's interrupts are named by their GIC id, the guest's by their own."""
    found: dict[str, Any] = {}
    views: dict[str, Any] = {name: state.VIEWS[name](host) for name in ("gic", "irqs", "vfio", "rbtree")}
    for row in views["gic"]:
        for key in _GIC:
            found[f"gic.{row['hwirq']}.{key}"] = row[key]
    for row in views["irqs"]:
        for key in _IRQ:
            found[f"irq.{row['hwirq']}.{key}"] = row[key]
    for row in views["vfio"]:
        found[f"vfio.{row['device']}.{row['index']}.masked"] = row["masked"]
    for number, vm in enumerate(state.kvm(host).vms):
        for row in [] if vm.vgic is None else vm.vgic.dump()["irq"]:
            irq = row["irq"]
            place = f"vgic.{number}.{irq}" if irq >= _FIRST_SHARED else f"vgic.{number}.{irq}@{row['vcpu']}"
            found |= {f"{place}.{key}": row[key] for key in _VIRTUAL if key in row}
    for row in state.list_registers(host):
        assert isinstance(row, dict)
        place = f"{row['vm']}.{row['vcpu']}"
        found[f"vcpu.{place}.in_guest"] = row["in_guest"]
        for index, register in enumerate(row["lr"]):
            if register["value"]:
                found[f"lr.{place}.{index}"] = register["text"]
    for number, tree in enumerate(views["rbtree"]):
        if tree is not None:
            found[f"rbtree.{number}"] = tree
    return found


class Snapshot:
    """Remembers the state of ``host`` from one look to the next."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._last: dict[str, Any] = {}

    def changes(self) -> dict[str, Any]:
        """What is not as it was at the last look: everything at the first."""
        last, now = self._last, paths(self._host)
        self._last = now
        if now == last:
            return {}
        changed = {path: value for path, value in now.items() if path not in last or last[path] != value}
        return changed | {path: None for path in last if path not in now}
