"""A trace of two runs, written by hand after the records' schema: one interrupt, not forwarded and forwarded."""

from __future__ import annotations

from typing import Any

from kvmvfio_emu.view.sink import Sink

HEADER = {
    "kvmvfio_emu_trace": 1,
    "package": "0.1.0",
    "profile": "rfc-2014",
    "machine": "calxeda-midway",
    "gic": 2,
    "clock": "ns",
}
# time, name, actor, cause, fields, state
_ROWS: list[tuple[int, str, str, int, dict[str, Any], dict[str, Any]]] = [
    (
        0,
        "ioctl",
        "user",
        0,
        {"task": 7, "fd": 5, "file": "vm", "request": "KVM_IRQFD", "number": "0x4020ae76", "in": {"fd": 9, "gsi": 80}},
        {"gic.112.state": "I", "gic.112.enabled": True, "gic.112.line": False, "lr.0.0.0": "empty"},
    ),
    (
        0,
        "ioctl_return",
        "user",
        1,
        {"fd": 5, "file": "vm", "request": "KVM_IRQFD", "result": -1, "errno": "EBUSY", "reason": "taken"},
        {},
    ),
    (1, "ioctl", "user", 0, {"task": 7, "fd": 6, "file": "vcpu", "request": "KVM_RUN", "number": "0xae80"}, {}),
    (1, "vmentry", "CPU", 3, {"vcpu": 0}, {}),
    (5000, "line_up", "device", 0, {"irq": 112, "line": "eth#0"}, {"gic.112.line": True, "gic.112.state": "P"}),
    (5001, "vmexit_irq", "CPU", 5, {"vcpu": 0}, {}),
    (5001, "host_irq", "host irq", 5, {"irq": 112}, {"gic.112.state": "AP", "irq.112.depth": 1}),
    (5001, "eventfd_trigger", "VFIO", 7, {"irq": 112, "device": "eth", "index": 0}, {"vfio.eth.0.masked": True}),
    (5002, "work", "irqfd", 8, {"gsi": 80}, {}),
    (5002, "lr_queued", "VGIC", 9, {"lr": 0, "value": 1, "vcpu": 0}, {"lr.0.0.0": "112 pending EOI"}),
    (5002, "vmentry", "CPU", 3, {"vcpu": 0}, {}),
    (5002, "guest_irq", "guest", 10, {"vcpu": 0}, {}),
    (5003, "guest_iar", "guest", 10, {"irq": 112, "vcpu": 0}, {"rbtree.0": {"virtual": 112, "physical": 112}}),
    (5005, "guest_eoi", "guest", 13, {"irq": 112, "vcpu": 0}, {"gic.112.state": "I", "lr.0.0.0": None}),
    (5005, "guest_eret", "guest", 0, {"vcpu": 0}, {}),
    (5006, "vmexit_wfi", "CPU", 0, {"vcpu": 0}, {"rbtree.0": None}),
    (
        5007,
        "ioctl_return",
        "user",
        3,
        {"fd": 6, "file": "vcpu", "request": "KVM_RUN", "result": 0},
        {"irq.112.depth": 0},
    ),
]


def records(state: bool = True) -> list[dict[str, Any]]:
    """One run's."""
    made = []
    for number, (time, name, actor, cause, fields, changed) in enumerate(_ROWS, 1):
        record: dict[str, Any] = {"n": number, "t": time, "name": name, "actor": actor}
        if cause:
            record["cause"] = cause
        record["f"] = fields
        if state and changed:
            record["s"] = changed
        made.append(record)
    return made


def write(sink: Sink, *, state: bool = True) -> None:
    """Both runs, and the end."""
    for mode in ("unforwarded", "forwarded"):
        sink.begin({**HEADER, "mode": mode})
        for record in records(state):
            sink.record(record)
    sink.close()
