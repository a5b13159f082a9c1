"""Which VGIC a kernel brings, beside the device types: the older API and limits, chosen once when KVM is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kvmvfio_emu.kernel.kvm.vgic.modern.family import ModernVgics
from kvmvfio_emu.kernel.kvm.vgic.v2 import BitmapVgics

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.kernel.kvm.vm import Vm


class VgicFamily(Protocol):
    """The VGICs that a kernel has on the host's interrupt controller."""

    #: How many vCPUs a virtual machine can have, as far as the host's interrupt controller says; None: no limit.
    max_vcpus: int | None

    def create_irqchip(self, vm: Vm) -> None:
        """KVM_CREATE_IRQCHIP."""

    def set_legacy_address(self, vm: Vm, identifier: int, address: int) -> None:
        """KVM_ARM_SET_DEVICE_ADDR."""


def vgic_family(host: Host) -> VgicFamily:
    """The one of the host's profile."""
    if host.profile.vgic_modern:
        return ModernVgics(host)
    return BitmapVgics(host)
