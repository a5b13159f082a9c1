"""Coalesced MMIO: a guest's writes that userspace may learn of later, from a ring (virt/kvm/coalesced_mmio.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_ENTRIES = (4096 - uapi.sizeof("struct kvm_coalesced_mmio_ring")) // uapi.sizeof("struct kvm_coalesced_mmio")
_PAGE = 4096


class CoalescedMmio:
    """The zones of a virtual machine: (address, size, is it port I/O)."""

    def __init__(self) -> None:
        self.zones: list[tuple[int, int, bool]] = []

    def register(self, zone: Any) -> None:
        """KVM_REGISTER_COALESCED_MMIO. EINVAL neither memory nor port I/O. The same zone may be there twice."""
        self.zones.append(self._zone(zone))

    def unregister(self, zone: Any) -> None:
        """KVM_UNREGISTER_COALESCED_MMIO: zones that lie within this one go; there need be none."""
        start, size, pio = self._zone(zone)
        self.zones = [one for one in self.zones if not (one[2] == pio and _holds(one, start, size))]

    @staticmethod
    def _zone(zone: Any) -> tuple[int, int, bool]:
        if zone.pio not in (0, 1):
            raise KernelError(errno.EINVAL, f"a zone of kind {zone.pio}")
        return zone.addr, zone.size, bool(zone.pio)

    def take(self, vcpu: Vcpu, address: int, size: int, value: int) -> bool:
        """A guest's write; True when it is in a zone, and the ring had room for it."""
        if not self.zones or not any(not zone[2] and _holds(zone, address, size) for zone in self.zones):
            return False
        # Userspace moves `first`, and may write nonsense there.
        place = uapi.ffi.cast("char *", vcpu.run) + _PAGE * vcpu.host.profile.capability("KVM_CAP_COALESCED_MMIO")
        ring: Any = uapi.ffi.cast("struct kvm_coalesced_mmio_ring *", place)
        last = ring.last
        after = (last + 1) % _ENTRIES
        if last >= _ENTRIES or after == ring.first:
            return False
        entry = ring.coalesced_mmio[last]
        entry.phys_addr, entry.len, entry.pio = address, size, 0
        uapi.ffi.memmove(entry.data, value.to_bytes(8, "little"), size)
        ring.last = after
        return True


def _holds(zone: tuple[int, int, bool], address: int, size: int) -> bool:
    """Whether the zone holds all of ``size`` bytes at ``address``; models coalesced_mmio_in_range."""
    return zone[0] <= address and address + size <= zone[0] + zone[1]
