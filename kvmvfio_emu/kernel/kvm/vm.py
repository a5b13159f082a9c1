"""A virtual machine: what it owns, who holds it, and the order in which it goes (struct kvm, virt/kvm/kvm_main.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import NOBODY, File
from kvmvfio_emu.kernel.kvm.coalesced import CoalescedMmio
from kvmvfio_emu.kernel.kvm.ioeventfd import IoBus
from kvmvfio_emu.kernel.kvm.irqfd import Irqfds
from kvmvfio_emu.kernel.kvm.memory import Memory
from kvmvfio_emu.kernel.kvm.routing import Routing
from kvmvfio_emu.kernel.kvm.vgic.modern.lpi import Lpis
from kvmvfio_emu.kernel.usercopy import UserMemory

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.device import KvmDevice
    from kvmvfio_emu.kernel.kvm.module import Kvm
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vgic.api import Vgic


class Vm:
    """``struct kvm``. Held by its own descriptor and by those of its vCPUs and devices; the last one destroys it."""

    def __init__(self, kvm: Kvm, mm: UserMemory, machine_type: int = 0) -> None:
        self.kvm = kvm
        self.host = kvm.host
        self.mm = mm
        phys_bits = kvm.arch.phys_bits(kvm, machine_type)
        self.vcpus: list[Vcpu] = []
        self.devices: list[KvmDevice] = []
        self.memory = Memory(kvm.host.profile.capability("KVM_CAP_NR_MEMSLOTS"), phys_bits, kvm.arch.beyond_errno)
        self.bus = IoBus()
        self.coalesced = CoalescedMmio()
        self.routing = Routing(kvm.arch.chips)
        self.irqfds = Irqfds(self)
        self.vgic: Vgic | None = None
        self.lpis = Lpis(self)
        self.arch = kvm.arch(self)
        #: Told when the guest completes a level interrupt: gsi -> listeners (kvm_irq_ack_notifier).
        self.ack_notifiers: dict[int, list[Callable[[], None]]] = {}
        #: Its own descriptors' files, its vCPUs' and its devices': what holds it.
        self.files: list[File] = []
        kvm.vms.append(self)

    # -- references -----------------------------------------------------------------------------------------

    def get(self, file: File) -> None:
        """One more holder; models kvm_get_kvm."""
        self.files.append(file)

    def put(self, file: File) -> None:
        """One holder less; models kvm_put_kvm."""
        self.files.remove(file)
        if not self.files:
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

    def kill(self) -> None:
        """Nobody may use it any more, but to close it; models kvm_vm_dead."""
        self.host.event("vm_dead")
        for file in self.files:
            file.owner = NOBODY

    # -- interrupts --------------------------------------------------------------------------------------------

    def set_irq(self, gsi: int, level: bool) -> int:
        """Drive what ``gsi`` leads to. Models kvm_set_irq.

        Below zero: it led nowhere, or everywhere it led lost it; 0: merged with one that waits; else to how many it
        went.
        """
        before = self.host.trace.begin("set_irq", gsi=gsi, level=int(level))
        status = -1
        for target in self.routing.targets(gsi):
            try:
                result = self.arch.drive(target, level)
            except KernelError as refused:
                self.host.event("irq_lost", gsi=gsi, reason=refused.reason)
                continue
            if result >= 0:
                status = result + max(status, 0)
        self.host.trace.end(before)
        return status

    def history(self, intid: int) -> tuple[str, int, int]:
        """The key under which the trace keeps the last step of guest interrupt ``intid``."""
        return ("virq", id(self), intid)

    def raise_irq(self, gsi: int) -> bool:
        """Raise ``gsi`` where nothing may wait; False when that must be left to `set_irq`.

        Models kvm_arch_set_irq_inatomic. What it raises nobody lowers: a level-sensitive interrupt stays high.
        """
        targets = self.routing.targets(gsi)
        return len(targets) == 1 and self.arch.raise_now(targets[0], gsi)

    def notify_acked(self, pin: int) -> None:
        """The guest completed the interrupt of ``pin`` of the VGIC; models kvm_notify_acked_irq."""
        gsi = self.routing.gsi(0, pin)
        if gsi is None:
            return
        trace = self.host.trace
        before = trace.resume(trace.origin(self.history(pin + 32)) if trace.listening else 0)
        try:
            for listener in tuple(self.ack_notifiers.get(gsi, ())):
                listener()
        finally:
            trace.end(before)

    def require_vgic(self) -> Vgic:
        """The VGIC, or ENXIO when the virtual machine has none."""
        if self.vgic is None:
            raise KernelError(errno.ENXIO, "the virtual machine has no in-kernel interrupt controller")
        return self.vgic

    def check(self) -> None:
        """Raise AssertionError when the state contradicts itself."""
        assert self.files, "a virtual machine without a holder"
        if self.vgic is not None:
            self.vgic.check()
        for vcpu in self.vcpus:
            vcpu.check()
        for device in self.devices:
            device.check()
        self.irqfds.check()
