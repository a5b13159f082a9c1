"""What keeps forwarding safe, each as a switch, so that a property can be shown to find what it is there for.

Two are duties of those who call (the first RFC leaves them to the user), two are the kernel's own. Switching one off
is for tests of tests: nothing outside of this kit does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.kvm.vfio import KvmVfio
from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vm import Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class Safeguards:
    """All on, unless said otherwise."""

    #: The VMM forwards an interrupt only while it is not in flight (the seed's "not active" rule).
    assign_when_idle: bool = True
    #: The guest disables an interrupt (GICD_ICENABLER) only while it is not under way to it.
    disable_when_idle: bool = True
    #: De-assignment completes in the host what no list register holds (`ForwardControl.completes`).
    deassign_completes: bool = True
    #: Patch 1 of the series: no double bookkeeping for forwarded interrupts (`Vgic.forwarded_fix`).
    forwarded_fix: bool = True

    def apply(self, vm: Vm) -> None:
        """Put the kernel's own two as they are here."""
        if isinstance(vm.vgic, Vgic):
            vm.vgic.forwarded_fix = self.forwarded_fix
        for device in vm.devices:
            if isinstance(device, KvmVfio) and device.forward is not None:
                device.forward.completes = self.deassign_completes
