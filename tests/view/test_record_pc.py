"""Where the guest is, in records: as programs and disassemblers write it."""

from __future__ import annotations

from typing import Any

from kvmvfio_emu import Kernel
from kvmvfio_emu.view.record import Recorder


def test_the_guests_pc_is_hexadecimal_in_every_record() -> None:
    records: list[dict[str, Any]] = []
    with Kernel() as kernel:
        kernel.listen(Recorder(kernel.host, records.append))
        kernel.host.trace.show("guest_irq", vcpu=0, pc=0x1098)
        kernel.host.trace.show("guest_exception", vcpu=0, pc=0x1098, esr=0x2000000)
        kernel.host.trace.show("guest_irq", vcpu=0)
    assert [record["f"] for record in records] == [
        {"vcpu": 0, "pc": "0x1098"},
        {"vcpu": 0, "pc": "0x1098", "esr": "0x2000000"},
        {"vcpu": 0},
    ]
