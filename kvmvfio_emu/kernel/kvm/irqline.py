"""KVM_IRQ_LINE on ARM: which input a number names (kvm_vm_ioctl_irq_line, arch/arm/kvm/arm.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.arch.base import Arch
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vm import Vm

_FIRST_PPI, _FIRST_SPI = 16, 32
# Bound once: this is the hottest ioctl of a VMM without irqfd.
_CPU, _SPI, _PPI = uapi.KVM_ARM_IRQ_TYPE_CPU, uapi.KVM_ARM_IRQ_TYPE_SPI, uapi.KVM_ARM_IRQ_TYPE_PPI
_TYPE_SHIFT, _TYPE_MASK = uapi.KVM_ARM_IRQ_TYPE_SHIFT, uapi.KVM_ARM_IRQ_TYPE_MASK
_VCPU_SHIFT, _VCPU_MASK = uapi.KVM_ARM_IRQ_VCPU_SHIFT, uapi.KVM_ARM_IRQ_VCPU_MASK
_NUM_MASK = uapi.KVM_ARM_IRQ_NUM_MASK


def drive_line(arch: Arch, level: Any) -> None:
    """Drive the input named by a ``struct kvm_irq_level``: bits 24-31 type, 16-23 vCPU, 0-15 number.

    CPU: the IRQ or FIQ input of a vCPU, only without an in-kernel controller (ENXIO). SPI, PPI: an input of the
    in-kernel controller (ENXIO without). EINVAL for a vCPU or number that does not exist, or another type.
    """
    vm, irq, high = arch.vm, level.irq, bool(level.level)
    kind = irq >> _TYPE_SHIFT
    index = irq >> _VCPU_SHIFT & _VCPU_MASK
    if kind > _TYPE_MASK and vm.host.profile.capability("KVM_CAP_ARM_IRQ_LINE_LAYOUT_2"):
        # The younger layout: the type's upper half continues the vCPU index.
        index += (kind >> 4) * (_VCPU_MASK + 1)
        kind &= _TYPE_MASK
    number = irq & _NUM_MASK
    if kind == _SPI:
        vgic = vm.vgic or vm.require_vgic()
        if number < _FIRST_SPI:
            raise KernelError(errno.EINVAL, f"{number} is no shared peripheral interrupt")
        if vm.host.trace.listening:
            vm.host.trace.remember(vm.history(number))
        vgic.inject(0, number, high)
    elif kind == _PPI:
        vgic = vm.require_vgic()
        vcpu = _vcpu(vm, index)
        if not _FIRST_PPI <= number < _FIRST_SPI:
            raise KernelError(errno.EINVAL, f"{number} is no private peripheral interrupt")
        vm.host.trace.remember(vm.history(number))
        vgic.inject(vcpu.index, number, high)
    elif kind == _CPU:
        if vm.vgic is not None:
            raise KernelError(errno.ENXIO, "the vCPU's inputs belong to the in-kernel interrupt controller")
        vcpu = _vcpu(vm, index)
        if number > uapi.KVM_ARM_IRQ_CPU_FIQ:
            raise KernelError(errno.EINVAL, f"a vCPU has no input {number}")
        vcpu.set_input(number, high)
    else:
        raise KernelError(errno.EINVAL, f"no interrupt type {kind}")


def _vcpu(vm: Vm, index: int) -> Vcpu:
    if vm.host.profile.irq_line_by_id:
        vcpus = [vcpu for vcpu in vm.vcpus if vcpu.number == index]
    else:
        vcpus = vm.vcpus[index : index + 1]
    if not vcpus:
        raise KernelError(errno.EINVAL, f"no vCPU {index}")
    return vcpus[0]
