"""The commands that a guest queues for its ITS (Arm IHI 0069, chapter 5; vgic-its.c: vgic_its_handle_command).

A command that makes no sense is passed over, as the architecture has it for this kind of ITS.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.hw import gicv3
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.guestmem import read_guest
from kvmvfio_emu.kernel.kvm.vgic.modern import its_tables
from kvmvfio_emu.kernel.kvm.vgic.modern.its import Collection, Translation, Unmapped

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.its import Its
    from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicCpuV3

SIZE = 32
_QUEUE_ADDRESS = (1 << 52) - (1 << 12)


class Command:
    """Four 64-bit words, and the fields that some command has in them."""

    __slots__ = ("words",)

    def __init__(self, raw: bytes) -> None:
        self.words: tuple[int, ...] = struct.unpack("<4Q", raw)

    def field(self, word: int, shift: int, bits: int) -> int:
        """``bits`` bits of a word."""
        return self.words[word] >> shift & (1 << bits) - 1

    @property
    def code(self) -> int:
        """Which command it is."""
        return self.field(0, 0, 8)

    @property
    def device(self) -> int:
        """Device id."""
        return self.field(0, 32, 32)

    @property
    def event(self) -> int:
        """Event id."""
        return self.field(1, 0, 32)

    @property
    def collection(self) -> int:
        """Collection id."""
        return self.field(2, 0, 16)

    @property
    def valid(self) -> bool:
        """Map (else unmap)."""
        return bool(self.field(2, 63, 1))

    @property
    def target(self) -> int:
        """A redistributor, by vCPU id as GITS_TYPER.PTA is 0."""
        return self.field(2, 16, 32)


def queue_size(its: Its) -> int:
    """Bytes of the command queue."""
    return ((its.cbaser & 0xFF) + 1) << 12


def process(its: Its) -> None:
    """Handle what is queued between GITS_CREADR and GITS_CWRITER, if the ITS is enabled."""
    if not its.enabled:
        return
    base = its.cbaser & _QUEUE_ADDRESS
    while its.cwriter != its.creadr:
        try:
            _handle(its, Command(read_guest(its.vm, base + its.creadr, SIZE)))
        except KernelError as refused:
            its.vm.host.event("its_command_ignored", at=its.creadr, reason=refused.reason)
        its.creadr += SIZE
        if its.creadr == queue_size(its):
            its.creadr = 0


def _handle(its: Its, command: Command) -> None:
    handler = _HANDLERS.get(command.code)
    if handler is None:
        raise Unmapped(f"no ITS command {command.code:#x}")
    handler(its, command)


def _cpu(its: Its, number: int) -> VgicCpuV3:
    cpu = its.cpu(number)
    if cpu is None:
        raise Unmapped(f"no vCPU {number}")
    return cpu


def _translation(its: Its, command: Command) -> Translation:
    found = its.find(command.device, command.event)
    if found is None:
        raise Unmapped(f"event {command.event} of device {command.device:#x} is not mapped")
    return found


def _known_collection(its: Its, command: Command) -> Collection:
    collection = its.collections.get(command.collection)
    if collection is None or not collection.mapped:
        raise Unmapped(f"collection {command.collection} is not mapped")
    return collection


def _collection_place(its: Its, number: int) -> None:
    if its_tables.entry_address(its, its.collection_table, number) is None:
        raise Unmapped(f"the collection table has no place for collection {number}")


def _mapd(its: Its, command: Command) -> None:
    address = its_tables.entry_address(its, its.device_table, command.device)
    if address is None:
        raise Unmapped(f"the device table has no place for device {command.device:#x}")
    event_bits = command.field(1, 0, 5) + 1
    if command.valid and event_bits > its_tables.ID_BITS:
        raise Unmapped(f"device {command.device:#x} with {event_bits} bits of event ids")
    if command.valid:
        its.new_device(command.device, command.field(2, 8, 44) << 8, event_bits)
        return
    old = its.devices.get(command.device)
    if old is not None:
        its.free_device(old)
    its_tables.clear(its, address)


def _mapc(its: Its, command: Command) -> None:
    if not command.valid:
        its.free_collection(command.collection)
        its.forget_cached()
        return
    cpu = _cpu(its, command.target)
    collection = its.collections.get(command.collection)
    if collection is None:
        _collection_place(its, command.collection)
        its.new_collection(command.collection, cpu.number)
        return
    collection.target = cpu.number
    for translation in its.translations():
        if translation.collection is collection:
            translation.irq.target = cpu


def _mapi(its: Its, command: Command) -> None:
    device = its.devices.get(command.device)
    if device is None:
        raise Unmapped(f"device {command.device:#x} is not mapped")
    event = command.event
    if not its_tables.event_fits(its, device, event):
        raise Unmapped(f"device {command.device:#x} has no place for event {event}")
    lpi = command.field(1, 32, 32) if command.code == gicv3.CMD_MAPTI else event
    if not gicv3.FIRST_LPI <= lpi < its.vm.lpis.limit:
        raise Unmapped(f"interrupt {lpi} is no LPI of this guest")
    if event in device.translations:
        return
    collection = its.collections.get(command.collection)
    known = collection is not None
    if collection is None:
        _collection_place(its, command.collection)
        collection = its.new_collection(command.collection)
    try:
        its.new_translation(device, event, lpi, collection)
    except KernelError:
        if not known:
            its.free_collection(command.collection)
        raise


def _movi(its: Its, command: Command) -> None:
    translation = _translation(its, command)
    if translation.mapped is None:
        raise Unmapped(f"event {command.event} of device {command.device:#x} is in no mapped collection")
    translation.collection = collection = _known_collection(its, command)
    its.forget_cached()
    translation.irq.target = its.cpu(collection.target)


def _discard(its: Its, command: Command) -> None:
    translation = _translation(its, command)
    if translation.mapped is None:
        raise Unmapped(f"event {command.event} of device {command.device:#x} is in no mapped collection")
    device = its.devices[command.device]
    its.forget_cached()
    its.free_translation(device, translation)
    its_tables.clear(its, device.itt + command.event * its_tables.ENTRY_SIZE)


def _clear(its: Its, command: Command) -> None:
    _translation(its, command).irq.pending_latch = False


def _int(its: Its, command: Command) -> None:
    its.trigger(command.device, command.event)


def _inv(its: Its, command: Command) -> None:
    its.vm.lpis.configure(_translation(its, command).irq)


def _invall(its: Its, command: Command) -> None:
    its.vm.lpis.invalidate_all(_cpu(its, _known_collection(its, command).target))


def _movall(its: Its, command: Command) -> None:
    source, target = _cpu(its, command.target), _cpu(its, command.field(3, 16, 32))
    if source is not target:
        # The kernel moves every LPI, whoever it went to before.
        for irq in its.vm.lpis:
            irq.target = target
        its.forget_cached()


def _sync(its: Its, command: Command) -> None:
    """Always in sync."""


_HANDLERS: dict[int, Callable[[Its, Command], None]] = {
    gicv3.CMD_MAPD: _mapd,
    gicv3.CMD_MAPC: _mapc,
    gicv3.CMD_MAPI: _mapi,
    gicv3.CMD_MAPTI: _mapi,
    gicv3.CMD_MOVI: _movi,
    gicv3.CMD_MOVALL: _movall,
    gicv3.CMD_DISCARD: _discard,
    gicv3.CMD_CLEAR: _clear,
    gicv3.CMD_INT: _int,
    gicv3.CMD_INV: _inv,
    gicv3.CMD_INVALL: _invall,
    gicv3.CMD_SYNC: _sync,
}
