"""IRQ forward control: a VFIO platform device's interrupt handed to the guest (arch/arm/kvm/kvm_vfio_arm.c, RFC).

The ARM part of the KVM-VFIO device: what it needs from VFIO is an IRQ descriptor, what it does is to flag that
descriptor and to tell the VGIC. Whether the interrupt may be in flight meanwhile is, in the first RFC, the user's
business.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic
from kvmvfio_emu.kernel.vfio import external

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.irq import IrqDesc
    from kvmvfio_emu.kernel.kvm.vm import Vm

_FIRST_SPI = 32


@dataclass(slots=True)
class Forwarding:
    """One forwarded interrupt: (device, index) is its key."""

    device: external.VfioDevice
    index: int
    gsi: int
    desc: IrqDesc


def forward_control(vm: Vm) -> ForwardControl | None:
    """The arch hook; None where the profile or the host's GIC mode has no forwarding."""
    if not vm.host.profile.forward_control or not vm.host.irqs.split_eoi:
        return None
    return ForwardControl(vm)


class ForwardControl:
    """The forwarded interrupts of one virtual machine (kvm_vfio_arch_data).

    ``completes``: de-assignment completes in the host what no list register holds. Off, it shows the wedge that this
    prevents.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.host = vm.host
        self.completes = True
        self.entries: list[Forwarding] = []
        #: De-assigned while a list register held them: the guest completes them, unless it ends before.
        self._left_to_guest: set[IrqDesc] = set()

    def control(self, attr: int, address: int) -> None:
        """Assign or de-assign; the order of the checks is the contract's (section 2.5). A refusal changes nothing."""
        fd, index, gsi = self._payload(address)
        file = self.host.current.fget(fd)
        if self.host.module("vfio") is None:
            raise KernelError(errno.EINVAL, "VFIO is not loaded")
        device = external.device_get_external_user(file)
        try:
            desc = self._irq(external.external_base_device(device), index)
            vgic = self._vgic(gsi)
            if attr == uapi.KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ:
                self._assign(device, index, gsi, desc, vgic)
                external.device_get_external_user(file)  # one reference for each forwarded interrupt
            else:
                self._deassign(device, index, vgic)
        finally:
            external.device_put_external_user(device)

    # -- what the call names -------------------------------------------------------------------------------------

    def _payload(self, address: int) -> tuple[int, int, int]:
        """(fd, index, gsi) of the struct that the profile uses. EFAULT; the later drafts' EINVAL."""
        task, struct = self.host.current, self.host.profile.forward_struct
        size = uapi.sizeof(struct)
        raw = task.copy_from_user(address, size)
        argument = uapi.view(struct, raw)
        if struct == "struct kvm_arch_forwarded_irq":
            return argument.fd, argument.index, argument.gsi
        if argument.argsz < size + 4 * argument.count:
            raise KernelError(errno.EINVAL, f"argsz {argument.argsz} holds no {argument.count} gsis")
        if argument.start != 0 or argument.count != 1:
            raise KernelError(errno.EINVAL, "a platform interrupt has start 0 and count 1")
        gsi = int.from_bytes(task.copy_from_user(address, 4, size), "little")
        return argument.fd, argument.index, gsi

    @staticmethod
    def _irq(base: external.BusDevice, index: int) -> IrqDesc:
        if base.bus != "platform":
            raise KernelError(errno.EINVAL, f"a device on the {base.bus} bus cannot have its interrupt forwarded")
        return base.irq(index)

    def _vgic(self, gsi: int) -> Vgic:
        vgic = self.vm.vgic
        if not isinstance(vgic, Vgic) or not self.vm.vcpus:
            raise KernelError(errno.EINVAL, "the virtual machine needs a VGIC and a vCPU")
        if gsi + _FIRST_SPI >= vgic.limit:
            raise KernelError(errno.EINVAL, f"gsi {gsi} is beyond the VGIC's interrupts")
        return vgic

    # -- the two verbs --------------------------------------------------------------------------------------------

    def _assign(self, device: external.VfioDevice, index: int, gsi: int, desc: IrqDesc, vgic: Vgic) -> None:
        if self._find(device, index) is not None:
            raise KernelError(errno.EINVAL, f"interrupt {index} of the device is forwarded already")
        if vgic.physmap.lookup(gsi + _FIRST_SPI) is not None:
            raise KernelError(errno.EEXIST, f"gsi {gsi} is that of another forwarded interrupt")
        if desc.forwarded:
            raise KernelError(errno.EBUSY, "another virtual machine has the interrupt forwarded")
        self._check_idle(desc)
        vgic.map_forwarded(gsi + _FIRST_SPI, desc.hwirq)
        self.host.irqs.set_forwarded(desc, True)
        self.entries.append(Forwarding(device, index, gsi, desc))
        self.host.event("forward_assign", irq=desc.hwirq, gsi=gsi)

    def _check_idle(self, desc: IrqDesc) -> None:
        policy = self.host.profile.forward_active
        active = self.host.irqs.is_active(desc)
        requested = desc.handler is not None
        if policy == "allow":
            if active or (requested and desc.disabled):
                self.host.event("forward_hazard", irq=desc.hwirq)  # the user's duty, so only noted
        elif policy == "strict" and active:
            raise KernelError(errno.EBUSY, "the physical interrupt is active")
        elif policy == "armed" and requested:
            raise KernelError(errno.EBUSY, "signalling of the interrupt is set up")
        elif policy == "again" and requested and (active or desc.disabled):
            raise KernelError(errno.EAGAIN, "the physical interrupt is active or masked")

    def _deassign(self, device: external.VfioDevice, index: int, vgic: Vgic) -> None:
        entry = self._find(device, index)
        if entry is None:
            raise KernelError(errno.EINVAL, f"interrupt {index} of the device is not forwarded")
        virtual = entry.gsi + _FIRST_SPI
        # In a list register the guest will still complete it; else nobody would, so the host does.
        in_flight = vgic.ready and vgic.in_list_register(virtual)
        vgic.physmap.unmap(virtual, entry.desc.hwirq)
        if in_flight:
            self._left_to_guest.add(entry.desc)
        self._forget(entry, complete=self.completes and not in_flight)

    def cleanup(self) -> None:
        """The KVM-VFIO device goes, after vCPUs and VGIC: only the host's side is left to put right."""
        for entry in tuple(self.entries):
            self._forget(entry, complete=True)
        for desc in self._left_to_guest:
            if not desc.forwarded:  # to another virtual machine by now, whose guest it is that completes it
                self.host.irqs.complete(desc)

    def _forget(self, entry: Forwarding, *, complete: bool) -> None:
        self.entries.remove(entry)
        self.host.irqs.set_forwarded(entry.desc, False)
        if complete:
            self.host.irqs.complete(entry.desc)
        self.host.event("forward_deassign", irq=entry.desc.hwirq, gsi=entry.gsi)
        external.device_put_external_user(entry.device)

    def _find(self, device: external.VfioDevice, index: int) -> Forwarding | None:
        return next((one for one in self.entries if one.device is device and one.index == index), None)

    def check(self) -> None:
        """Raise AssertionError when records, descriptors and the VGIC's map disagree."""
        vgic = self.vm.vgic
        mapped = {node.virt: node.phys for node in vgic.physmap} if isinstance(vgic, Vgic) else {}
        expected = {entry.gsi + _FIRST_SPI: entry.desc.hwirq for entry in self.entries}
        assert mapped == expected, f"the VGIC maps {mapped}, the KVM-VFIO device knows {expected}"
        for entry in self.entries:
            assert entry.desc.forwarded, f"{entry.desc} is recorded as forwarded, but not flagged"
