"""An ITS with tables in guest memory, and the commands that a guest would queue for it."""

from __future__ import annotations

import struct

from gicv3_rig import ITS_BASE, RAM, Machine

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import gicv3 as g

# Where the guest has its tables.
DEVICES, COLLECTIONS, QUEUE, PROPERTIES, PENDING = (RAM + place * 0x10000 for place in range(5))
ITT, SECOND_ITT, LEVEL2 = (RAM + place * 0x10000 for place in range(6, 9))
CTLR, IIDR, TYPER, CBASER, CWRITER, CREADR, BASER0, BASER1 = 0, 4, 8, 0x80, 0x88, 0x90, 0x100, 0x108
VALID, INDIRECT = 1 << 63, 1 << 62
DEVICE, EVENT, LPI = 0x10, 3, 8200
PROPERTY = 0xA1  # enabled, priority 0xA0


class Guest:
    """Tables set up, ITS and LPIs of every vCPU enabled unless ``enable`` is false; commands go through the queue."""

    def __init__(self, machine: Machine, *, enable: bool = True) -> None:
        self.machine = machine
        machine.add_ram()
        if machine.its < 0:
            machine.add_its()
        machine.redist(g.GICR_PROPBASER, PROPERTIES & 0xFFFFFFFF | 15)
        for vcpu in range(len(machine.vcpus)):
            machine.redist(g.GICR_PENDBASER, self.pending(vcpu), affinity=vcpu)
        self.poke(PROPERTIES, bytes([PROPERTY]) * 0x2000)
        machine.its_reg(BASER0, VALID | DEVICES | 1)
        machine.its_reg(BASER1, VALID | COLLECTIONS)
        machine.its_reg(CBASER, VALID | QUEUE)
        if enable:
            machine.its_reg(CTLR, 1)
            for vcpu in range(len(machine.vcpus)):
                machine.redist(g.GICR_CTLR, 1, affinity=vcpu)

    @staticmethod
    def pending(vcpu: int) -> int:
        """The vCPU's pending table."""
        return PENDING + vcpu * 0x10000

    # -- memory -------------------------------------------------------------------------------------------------------

    def poke(self, address: int, data: bytes) -> None:
        """Write guest memory."""
        self.machine.ram[address - RAM : address - RAM + len(data)] = data

    def peek(self, address: int, size: int = 8) -> int:
        """Read guest memory."""
        return int.from_bytes(self.machine.ram[address - RAM : address - RAM + size], "little")

    # -- commands -----------------------------------------------------------------------------------------------------

    def command(self, *words: int) -> None:
        """Queue four words and have them processed."""
        at = self.machine.its_reg(CWRITER)
        self.poke(QUEUE + at, struct.pack("<4Q", *words, *[0] * (4 - len(words))))
        self.machine.its_reg(CWRITER, (at + 32) % 0x1000)

    def mapd(self, device: int = DEVICE, itt: int = ITT, bits: int = 4, *, valid: bool = True) -> None:
        """Map a device."""
        self.command(g.CMD_MAPD | device << 32, bits - 1, itt | valid << 63)

    def mapc(self, collection: int = 0, target: int = 0, *, valid: bool = True) -> None:
        """Map a collection."""
        self.command(g.CMD_MAPC, 0, collection | target << 16 | valid << 63)

    def mapti(self, event: int = EVENT, lpi: int = LPI, collection: int = 0, device: int = DEVICE) -> None:
        """Map an event."""
        self.command(g.CMD_MAPTI | device << 32, event | lpi << 32, collection)

    def one_event(self) -> None:
        """The usual mapping: one device, one collection, one event."""
        self.mapd()
        self.mapc()
        self.mapti()

    def on_event(self, code: int, event: int = EVENT, device: int = DEVICE, collection: int = 0) -> None:
        """A command about one event."""
        self.command(code | device << 32, event, collection)

    # -- what became of it --------------------------------------------------------------------------------------------

    def signal(
        self, event: int = EVENT, device: int = DEVICE, *, flags: int = uapi.KVM_MSI_VALID_DEVID, at: int = -1
    ) -> int:
        """KVM_SIGNAL_MSI."""
        address = ITS_BASE + g.GITS_TRANSLATER if at < 0 else at
        message = uapi.pack(
            "struct kvm_msi",
            address_lo=address & 0xFFFFFFFF,
            address_hi=address >> 32,
            data=event,
            flags=flags,
            devid=device,
        )
        return int(self.machine.client.ioctl(self.machine.vm, uapi.KVM_SIGNAL_MSI, message))

    def lpi(self, number: int = LPI) -> tuple[bool, bool, int, int | None] | None:
        """(pending, enabled, priority, target) of an LPI; None when it is not there."""
        irq = self.machine.model.lpis.get(number)
        return irq and (irq.pending_latch, irq.enabled, irq.priority, irq.target and irq.target.number)
