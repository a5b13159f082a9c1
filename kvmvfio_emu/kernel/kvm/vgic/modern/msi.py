"""Message signalled interrupts from userspace and from irqfds (vgic-irqfd.c: kvm_set_msi; vgic-its.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.api import UNDEFINED_ADDRESS
from kvmvfio_emu.kernel.kvm.vgic.modern import its_mmio
from kvmvfio_emu.kernel.kvm.vgic.modern.its import Unmapped

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.routing import Message
    from kvmvfio_emu.kernel.kvm.vgic.modern.its import Its
    from kvmvfio_emu.kernel.kvm.vm import Vm


def send(vm: Vm, message: Message) -> bool:
    """Make the message's LPI pending; False when the guest's tables lead nowhere.

    ENODEV no ITS, EINVAL no device id or no ITS at that address, EBUSY ITS or LPIs are off.
    """
    if send_cached(vm, message):
        return True
    its, device = _its(vm, message)
    try:
        its.trigger(device, message.data)
    except Unmapped as nowhere:
        vm.host.event("msi_unmapped", device=device, data=message.data, reason=nowhere.reason)
        return False
    return True


def send_cached(vm: Vm, message: Message) -> bool:
    """The same where nothing may wait, if it was found before (vgic_its_inject_cached_translation)."""
    if vm.lpis.core is None or message.device is None:
        return False
    its = _doorbell(vm, message.address)
    irq = None if its is None else its.cached(message.device, message.data)
    if its is None or irq is None:
        return False
    its.pend(irq)
    return True


def _its(vm: Vm, message: Message) -> tuple[Its, int]:
    if vm.lpis.core is None or not vm.lpis.possible:
        raise KernelError(errno.ENODEV, "the virtual machine has no ITS")
    if message.device is None:
        raise KernelError(errno.EINVAL, "an ITS needs the device id of a message")
    its = _doorbell(vm, message.address)
    if its is None:
        raise KernelError(errno.EINVAL, f"no ITS at {message.address:#x}")
    return its, message.device


def _doorbell(vm: Vm, address: int) -> Its | None:
    """The ITS that has ``address`` in its frames; the kernel takes any of them for the doorbell."""
    for its in vm.lpis.its:
        if its.base != UNDEFINED_ADDRESS and 0 <= address - its.base < its_mmio.FRAME_SIZE:
            return its
    return None
