"""What either generation of the VGIC knows of one shared interrupt, for the state machine's view from outside."""

from __future__ import annotations

from kvmvfio_emu.hw.gich import lr_virtual_id
from kvmvfio_emu.kernel.kvm.vgic.api import PRIVATE
from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic
from kvmvfio_emu.kernel.kvm.vgic.modern.core import VgicCore
from kvmvfio_emu.kernel.kvm.vm import Vm


def list_register(vm: Vm, number: int) -> int | None:
    """The list register that holds interrupt ``number``; None when none does.

    The old VGIC also knows of one whose interrupt is over and that it has not taken back yet.
    """
    vgic = vm.vgic
    if isinstance(vgic, Vgic) and vgic.ready:
        for cpu in vgic.cpus:
            held = cpu.lr_of.get((number, 0))
            if held is not None:
                return cpu.vcpu.interface.lr[held]
    elif vgic is not None and vgic.ready:
        for vcpu in vm.vcpus:
            for _, lr in vcpu.interface.valid():
                if lr_virtual_id(lr) == number:
                    return lr
    return None


def waits(vm: Vm, number: int) -> bool:
    """Whether interrupt ``number`` is to be delivered, or is being handled, list registers apart."""
    vgic = vm.vgic
    if isinstance(vgic, Vgic) and vgic.ready:
        old = vgic.irq(0, number)
        return old.pending or old.level or old.queued
    if isinstance(vgic, VgicCore) and vgic.ready:
        irq = vgic.spis[number - PRIVATE]
        return irq.pending or irq.active or irq.vcpu is not None
    return False
