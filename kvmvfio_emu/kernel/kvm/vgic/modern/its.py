"""A virtual interrupt translation service: (device id, event id) -> LPI on a vCPU (arch/arm64/kvm/vgic/vgic-its.c).

Devices, their translations and the collections (event -> vCPU) live here, outside of guest memory; the guest changes
them by commands (`its_commands`), userspace saves and restores them (`its_tables`).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvmvfio_emu.hw import gicv3
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.api import UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern.baser import ITS_BASER
from kvmvfio_emu.kernel.kvm.vgic.modern.its_tables import ENTRY_SIZE, UNMAPPED

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.lpi import Lpi
    from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicCpuV3
    from kvmvfio_emu.kernel.kvm.vm import Vm


@dataclass(slots=True, eq=False)
class Collection:
    """Events of this collection go to the vCPU with id ``target``."""

    number: int
    target: int = UNMAPPED

    @property
    def mapped(self) -> bool:
        """Whether there is a target (its_is_collection_mapped)."""
        return self.target != UNMAPPED


@dataclass(slots=True, eq=False)
class Translation:
    """What an event of a device becomes (its_ite)."""

    event: int
    irq: Lpi
    collection: Collection | None

    @property
    def mapped(self) -> Collection | None:
        """The collection, if it has a target."""
        return self.collection if self.collection is not None and self.collection.mapped else None


@dataclass(slots=True, eq=False)
class Device:
    """A device id with its interrupt translation table at guest address ``itt``."""

    number: int
    itt: int
    event_bits: int
    translations: dict[int, Translation] = field(default_factory=dict)


class Unmapped(KernelError):
    """The guest's tables lead nowhere: the guest's mistake, which a command or an MSI passes over."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)


class Its:
    """One ITS of ``vm``."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.base = UNDEFINED_ADDRESS
        self.enabled = False
        self.cbaser = self.cwriter = self.creadr = 0
        self.device_table = _initial(gicv3.GITS_BASER_TYPE_DEVICE)
        self.collection_table = _initial(gicv3.GITS_BASER_TYPE_COLLECTION)
        self.set_revision(0)
        self.devices: dict[int, Device] = {}
        self.collections: dict[int, Collection] = {}
        #: Translations in use: they are found again without a look at the tables.
        self._cache: dict[tuple[int, int], Lpi] = {}

    def cpu(self, number: int) -> VgicCpuV3 | None:
        """The VGIC's part of the vCPU with id ``number``."""
        core = self.vm.lpis.core
        return None if core is None else next((cpu for cpu in core.cpus if cpu.number == number), None)

    def set_revision(self, revision: int) -> None:
        """The layout of the tables, with the entry sizes that the guest reads in GITS_BASERn. EINVAL not 0."""
        if revision:
            raise KernelError(errno.EINVAL, f"no ITS tables of revision {revision}")
        self.revision = revision
        size = ENTRY_SIZE - 1 << gicv3.GITS_BASER_ENTRY_SIZE_SHIFT
        self.device_table = self.device_table & ~gicv3.GITS_BASER_ENTRY_SIZE_MASK | size
        self.collection_table = self.collection_table & ~gicv3.GITS_BASER_ENTRY_SIZE_MASK | size

    def reset(self) -> None:
        """KVM_DEV_ARM_ITS_CTRL_RESET: all but the address and the fields that the tables' revision sets."""
        self.collection_table &= ~gicv3.GITS_BASER_VALID
        self.device_table &= ~gicv3.GITS_BASER_VALID
        self.cbaser = self.creadr = self.cwriter = 0
        self.enabled = False
        self.free_devices()
        self.free_collections()

    # -- devices, translations, collections ---------------------------------------------------------------------------

    def new_device(self, number: int, itt: int, event_bits: int) -> Device:
        """Map device id ``number``, in the place of what was mapped there."""
        old = self.devices.get(number)
        if old is not None:
            self.free_device(old)
        device = self.devices[number] = Device(number, itt, event_bits)
        return device

    def free_device(self, device: Device) -> None:
        """Unmap it with all of its events."""
        for translation in tuple(device.translations.values()):
            self.free_translation(device, translation)
        self.forget_cached()
        del self.devices[device.number]

    def free_devices(self) -> None:
        """Unmap all."""
        for device in tuple(self.devices.values()):
            self.free_device(device)

    def new_translation(self, device: Device, event: int, lpi: int, collection: Collection) -> None:
        """Map an event to an LPI. EFAULT the LPI's bytes are in no guest memory."""
        target = self.cpu(collection.target) if collection.mapped else None
        device.translations[event] = Translation(event, self.vm.lpis.add(lpi, target), collection)

    def free_translation(self, device: Device, translation: Translation) -> None:
        """Unmap an event."""
        del device.translations[translation.event]
        self.vm.lpis.put(translation.irq)

    def find(self, device: int, event: int) -> Translation | None:
        """The translation of an event."""
        found = self.devices.get(device)
        return None if found is None else found.translations.get(event)

    def new_collection(self, number: int, target: int = UNMAPPED) -> Collection:
        """A collection without events."""
        collection = self.collections[number] = Collection(number, target)
        return collection

    def free_collection(self, number: int) -> None:
        """Unmap a collection, if it is there; its events then go nowhere."""
        collection = self.collections.pop(number, None)
        if collection is not None:
            for translation in self.translations():
                if translation.collection is collection:
                    translation.collection = None

    def free_collections(self) -> None:
        """Unmap all."""
        for number in tuple(self.collections):
            self.free_collection(number)

    def translations(self) -> list[Translation]:
        """All events that are mapped."""
        return [one for device in self.devices.values() for one in device.translations.values()]

    # -- signalling ---------------------------------------------------------------------------------------------------

    def cached(self, device: int, event: int) -> Lpi | None:
        """What `resolve` found before, if nothing was changed since."""
        return self._cache.get((device, event))

    def forget_cached(self) -> None:
        """Something changed."""
        self._cache.clear()

    def resolve(self, device: int, event: int) -> Lpi:
        """The LPI of an event. EBUSY the ITS or the target's LPIs are off; `Unmapped`."""
        if not self.enabled:
            raise KernelError(errno.EBUSY, "the ITS is disabled")
        found = self.find(device, event)
        collection = None if found is None else found.mapped
        cpu = None if collection is None else self.cpu(collection.target)
        if found is None or cpu is None:
            raise Unmapped(f"event {event} of device {device:#x} is mapped to no vCPU")
        if not cpu.lpis_enabled:
            raise KernelError(errno.EBUSY, f"LPIs are disabled for vCPU {cpu.number}")
        self._cache[device, event] = found.irq
        return found.irq

    def trigger(self, device: int, event: int) -> None:
        """Make the LPI of an event pending. Errors as `resolve`."""
        self.pend(self.resolve(device, event))

    def pend(self, irq: Lpi) -> None:
        """Make an LPI pending."""
        irq.pending_latch = True
        self.vm.lpis.queue(irq)


def _initial(kind: int) -> int:
    return ITS_BASER.initial | gicv3.GITS_BASER_PAGE_SIZE_64K | kind << gicv3.GITS_BASER_TYPE_SHIFT
