"""The ITS's tables in guest memory, and how its state is saved to and restored from them (vgic-its.c, ABI revision 0).

Every entry has 8 bytes. A device table may have two levels, whose first holds 8-byte pointers to 64 KiB pages of the
second; KVM keeps its state outside of the tables and writes them only when it is told to.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from kvmvfio_emu.hw import gicv3
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.guestmem import read_guest, visible, write_guest
from kvmvfio_emu.kernel.kvm.vgic.modern import baser

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.its import Device, Its

ENTRY_SIZE = 8
#: Event ids, and with them LPIs, have 16 bits; device ids, too. A collection id has 16 as GITS_TYPER.CIL is 0.
ID_BITS = DEVICE_BITS = COLLECTION_BITS = 16
_TYPE_BITS = {gicv3.GITS_BASER_TYPE_DEVICE: DEVICE_BITS, gicv3.GITS_BASER_TYPE_COLLECTION: COLLECTION_BITS}

_VALID = 1 << 63
_DTE_NEXT_SHIFT, _DTE_NEXT_MAX = 49, (1 << 14) - 1
_DTE_ITT_SHIFT, _DTE_ITT_MASK = 5, (1 << 44) - 1
_DTE_SIZE_MASK = 0x1F
_ITE_NEXT_SHIFT, _ITE_NEXT_MAX = 48, (1 << 16) - 1
_ITE_LPI_SHIFT, _ITE_LPI_MASK = 16, (1 << 32) - 1
_CTE_TARGET_SHIFT, _CTE_TARGET_MASK = 16, (1 << 32) - 1
_COLLECTION_MASK = (1 << 16) - 1
_L1_ADDRESS_MASK = (1 << 52) - (1 << 16)
#: The target of a collection that is not mapped.
UNMAPPED = (1 << 32) - 1

#: Takes (id, entry); the distance to the next id in use, 0 at the last one.
Visit = Callable[[int, int], int]


def entry_address(its: Its, register: int, number: int) -> int | None:
    """Guest address of entry ``number`` of the table that ``register`` (a GITS_BASER) describes.

    None where the table has none or no guest memory is there; models vgic_its_check_id.
    """
    bits = _TYPE_BITS.get(baser.table_type(register))
    if bits is None or number >= 1 << bits:
        return None
    base, size = baser.table_address(register), baser.table_pages(register) * baser.TABLE_PAGE
    each = baser.entry_size(register)
    if not register & gicv3.GITS_BASER_INDIRECT:
        if number >= size // each:
            return None
        address = base + number * each
    else:
        index, rest = divmod(number, baser.TABLE_PAGE // each)
        if index >= size // ENTRY_SIZE:
            return None
        try:
            pointer = _read(its, base + index * ENTRY_SIZE)
        except KernelError:
            return None
        if not pointer & _VALID:
            return None
        address = (pointer & _L1_ADDRESS_MASK) + rest * each
    return address if visible(its.vm, address) else None


def event_fits(its: Its, device: Device, event: int) -> bool:
    """Whether the device's interrupt translation table has an entry for ``event``, in guest memory."""
    return event < 1 << device.event_bits and visible(its.vm, device.itt + event * ENTRY_SIZE)


def clear(its: Its, address: int) -> None:
    """An entry without meaning. EFAULT."""
    _write(its, address, 0)


# -- saving -----------------------------------------------------------------------------------------------------------


def save(its: Its) -> None:
    """KVM_DEV_ARM_ITS_SAVE_TABLES. EINVAL an id that the tables have no place for; EFAULT no guest memory."""
    _save_devices(its)
    _save_collections(its)


def _save_devices(its: Its) -> None:
    if not its.device_table & gicv3.GITS_BASER_VALID:
        return
    for number, following in _in_order(its.devices):
        device = its.devices[number]
        address = entry_address(its, its.device_table, number)
        if address is None:
            raise KernelError(errno.EINVAL, f"the device table has no place for device {number:#x}")
        _save_translations(its, device)
        distance = min(following - number, _DTE_NEXT_MAX)
        itt = (device.itt >> 8) << _DTE_ITT_SHIFT
        _write(its, address, _VALID | distance << _DTE_NEXT_SHIFT | itt | device.event_bits - 1)


def _in_order(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Each number with the next one, the last with itself: no distance to go."""
    ordered = sorted(numbers)
    return zip(ordered, [*ordered[1:], *ordered[-1:]], strict=True)


def _save_translations(its: Its, device: Device) -> None:
    for event, following in _in_order(device.translations):
        translation = device.translations[event]
        if translation.collection is None:
            # The kernel follows a null pointer here; a guest that unmapped the collection must not end the model.
            raise KernelError(errno.EINVAL, f"event {event} of device {device.number:#x} has no collection")
        distance = min(following - event, _ITE_NEXT_MAX)
        value = distance << _ITE_NEXT_SHIFT | translation.irq.intid << _ITE_LPI_SHIFT | translation.collection.number
        _write(its, device.itt + event * ENTRY_SIZE, value)


def _save_collections(its: Its) -> None:
    if not its.collection_table & gicv3.GITS_BASER_VALID:
        return
    address = baser.table_address(its.collection_table)
    end = address + baser.table_pages(its.collection_table) * baser.TABLE_PAGE
    for collection in its.collections.values():
        _write(its, address, _VALID | collection.target << _CTE_TARGET_SHIFT | collection.number)
        address += ENTRY_SIZE
    if address != end:
        clear(its, address)  # says that no more follow


# -- restoring --------------------------------------------------------------------------------------------------------


def restore(its: Its) -> None:
    """KVM_DEV_ARM_ITS_RESTORE_TABLES. EINVAL nonsense in a table, EEXIST a collection twice, EFAULT. Refused, nothing
    of what it read stays."""
    try:
        _restore_collections(its)
    except KernelError:
        its.free_collections()
        raise
    try:
        _restore_devices(its)
    except KernelError:
        its.free_devices()
        its.free_collections()
        raise


def _restore_collections(its: Its) -> None:
    if not its.collection_table & gicv3.GITS_BASER_VALID:
        return
    address = baser.table_address(its.collection_table)
    end = address + baser.table_pages(its.collection_table) * baser.TABLE_PAGE
    while address < end:
        entry = _read(its, address)
        if not entry & _VALID:
            return
        target, number = entry >> _CTE_TARGET_SHIFT & _CTE_TARGET_MASK, entry & _COLLECTION_MASK
        if target != UNMAPPED and its.cpu(target) is None:
            raise KernelError(errno.EINVAL, f"collection {number} goes to vCPU {target}, which does not exist")
        if number in its.collections:
            raise KernelError(errno.EEXIST, f"collection {number} exists")
        if entry_address(its, its.collection_table, number) is None:
            raise KernelError(errno.EINVAL, f"the collection table has no place for collection {number}")
        its.new_collection(number, target)
        address += ENTRY_SIZE


def _restore_devices(its: Its) -> None:
    register = its.device_table
    if not register & gicv3.GITS_BASER_VALID:
        return
    base, size = baser.table_address(register), baser.table_pages(register) * baser.TABLE_PAGE

    def device(number: int, entry: int) -> int:
        return _restore_device(its, number, entry)

    def page(index: int, entry: int) -> int:
        if not entry & _VALID:
            return 1
        first = index * (baser.TABLE_PAGE // ENTRY_SIZE)
        return _scan(its, entry & _L1_ADDRESS_MASK, baser.TABLE_PAGE, first, device)

    _scan(its, base, size, 0, page if register & gicv3.GITS_BASER_INDIRECT else device)


def _restore_device(its: Its, number: int, entry: int) -> int:
    if not entry & _VALID:
        return 1
    event_bits = (entry & _DTE_SIZE_MASK) + 1
    if event_bits > ID_BITS:
        raise KernelError(errno.EINVAL, f"device {number:#x} with {event_bits} bits of event ids")
    if entry_address(its, its.device_table, number) is None:
        raise KernelError(errno.EINVAL, f"the device table has no place for device {number:#x}")
    device = its.new_device(number, (entry >> _DTE_ITT_SHIFT & _DTE_ITT_MASK) << 8, event_bits)
    try:
        _scan(
            its,
            device.itt,
            ENTRY_SIZE << event_bits,
            0,
            lambda event, value: _restore_translation(its, device, event, value),
        )
    except KernelError:
        its.free_device(device)
        raise
    return entry >> _DTE_NEXT_SHIFT & _DTE_NEXT_MAX


def _restore_translation(its: Its, device: Device, event: int, entry: int) -> int:
    lpi = entry >> _ITE_LPI_SHIFT & _ITE_LPI_MASK
    if not lpi:
        return 1
    if lpi < gicv3.FIRST_LPI:
        raise KernelError(errno.EINVAL, f"event {event} of device {device.number:#x} is interrupt {lpi}")
    distance = entry >> _ITE_NEXT_SHIFT
    if event + distance >= 1 << device.event_bits:
        raise KernelError(errno.EINVAL, f"after event {event} comes one that device {device.number:#x} has not")
    collection = its.collections.get(entry & _COLLECTION_MASK)
    if collection is None:
        raise KernelError(errno.EINVAL, f"event {event} of device {device.number:#x} has an unknown collection")
    if not event_fits(its, device, event):
        raise KernelError(errno.EINVAL, f"no guest memory for event {event} of device {device.number:#x}")
    its.new_translation(device, event, lpi, collection)
    return distance


def _scan(its: Its, base: int, size: int, number: int, visit: Visit) -> int:
    """Visit the entries of a table in guest memory. 0: the last one was met; 1: the table ended before."""
    while True:
        distance = visit(number, _read(its, base))
        if not distance:
            return 0
        if distance * ENTRY_SIZE >= size:
            return 1
        number += distance
        base += distance * ENTRY_SIZE
        size -= distance * ENTRY_SIZE


def _read(its: Its, address: int) -> int:
    return int.from_bytes(read_guest(its.vm, address, ENTRY_SIZE), "little")


def _write(its: Its, address: int, value: int) -> None:
    write_guest(its.vm, address, value.to_bytes(ENTRY_SIZE, "little"))
