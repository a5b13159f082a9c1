"""The VGICs that Linux 4.7 and later have on the host's interrupt controller (vgic-init.c, vgic_v2_probe)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.modern.device import create_vgic
from kvmvfio_emu.kernel.kvm.vgic.modern.device_v2 import VgicV2Device, set_legacy_address
from kvmvfio_emu.kernel.kvm.vgic.modern.v2 import VgicV2

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host
    from kvmvfio_emu.kernel.kvm.vm import Vm

#: A GICv2 has eight CPU interfaces, which also hold how many vCPUs can be created before a VGIC is.
_V2_MAX_CPUS = 8


class ModernVgics:
    """A GICv2 gives VGICv2s, a GICv3 VGICv3s and ITSs (its GICv2 compatibility is optional, and not there)."""

    def __init__(self, host: Host) -> None:
        self._has_v2 = host.machine.board.gic_version == 2 and host.profile.offers(VgicV2Device.when)
        self.max_vcpus = _V2_MAX_CPUS if self._has_v2 else None

    def create_irqchip(self, vm: Vm) -> None:
        """A VGICv2. ENODEV where the host cannot give one; else as `create_vgic`."""
        if not self._has_v2:
            raise KernelError(errno.ENODEV, "the host's interrupt controller cannot give a VGICv2")
        create_vgic(vm, VgicV2)

    def set_legacy_address(self, vm: Vm, identifier: int, address: int) -> None:
        """As `device_v2.set_legacy_address`."""
        set_legacy_address(vm, identifier, address)
