"""A virtual machine: what it owns, who holds it, and the order in which it goes (struct kvm, virt/kvm/kvm_main.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.ioeventfd import IoBus
from kvmvfio_emu.kernel.kvm.irqfd import Irqfds
from kvmvfio_emu.kernel.kvm.memory import Memory
from kvmvfio_emu.kernel.kvm.routing import Routing
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.device import KvmDevice
    from kvmvfio_emu.kernel.kvm.module import Kvm
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic


class Vm:
    """``struct kvm``. Held by its own descriptor and by those of its vCPUs and devices; the last one destroys it."""

    def __init__(self, kvm: Kvm, mm: UserMemory) -> None:
        self.kvm = kvm
        self.host = kvm.host
        self.mm = mm
        self.vcpus: list[Vcpu] = []
        self.devices: list[KvmDevice] = []
        self.memory = Memory(kvm.host.profile.capability("KVM_CAP_NR_MEMSLOTS"))
        self.bus = IoBus()
        self.routing = Routing()
        self.irqfds = Irqfds(self)
        self.vgic: Vgic | None = None
        #: Told when the guest completes a level interrupt: gsi -> listeners (kvm_irq_ack_notifier).
        self.ack_notifiers: dict[int, list[Callable[[], None]]] = {}
        self._users = 0
        kvm.vms.append(self)

    # -- references -----------------------------------------------------------------------------------------

    def get(self) -> None:
        """One more holder; models kvm_get_kvm."""
        self._users += 1

    def put(self) -> None:
        """One holder less; models kvm_put_kvm."""
        self._users -= 1
        if not self._users:
            self._destroy()

    def _destroy(self) -> None:
        # The order of kvm_destroy_vm: vCPUs and VGIC go before the devices, so a device cannot use them to clean up.
        self.host.event("vm_destroy")
        self.routing.clear()
        self.bus.clear()
        for vcpu in self.vcpus:
            vcpu.destroy()
        self.vcpus.clear()
        if self.vgic is not None:
            self.vgic.destroy()
            self.vgic = None
        for device in self.devices:
            device.destroy()
        self.devices.clear()
        self.memory.clear()
        self.kvm.vms.remove(self)

    # -- interrupts --------------------------------------------------------------------------------------------

    def set_irq(self, gsi: int, level: bool) -> None:
        """Drive guest interrupt line ``gsi``; what the VGIC refuses is lost silently. Models kvm_set_irq."""
        self.host.event("set_irq", gsi=gsi, level=int(level))
        pin = self.routing.pin(gsi)
        if pin is None or self.vgic is None:
            return
        try:
            self.vgic.inject(0, pin + 32, level)
        except KernelError as refused:
            self.host.event("irq_lost", gsi=gsi, reason=refused.reason)

    def notify_acked(self, gsi: int) -> None:
        """The guest completed ``gsi``; models kvm_notify_acked_irq."""
        for listener in tuple(self.ack_notifiers.get(gsi, ())):
            listener()

    def require_vgic(self) -> Vgic:
        """The VGIC, or ENXIO when the virtual machine has none."""
        if self.vgic is None:
            raise KernelError(errno.ENXIO, "the virtual machine has no in-kernel interrupt controller")
        return self.vgic

    def check(self) -> None:
        """Raise AssertionError when the state contradicts itself."""
        assert self._users > 0, "a virtual machine without a holder"
        if self.vgic is not None:
            self.vgic.check()
        for vcpu in self.vcpus:
            vcpu.check()
        for device in self.devices:
            device.check()
        self.irqfds.check()
