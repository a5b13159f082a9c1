"""Which execution state a vCPU is in: that of its KVM_ARM_VCPU_INIT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu.guest.machine.engine import MachineGuest

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu


def machine_guest(vcpu: Vcpu) -> MachineGuest:
    """What executes the machine code in the memory of ``vcpu``. binding.EngineError."""
    assert vcpu.registers is not None
    if vcpu.registers.is_32bit:
        from kvmvfio_emu.guest.machine.aarch32.guest import Guest as Guest32

        return Guest32(vcpu)
    from kvmvfio_emu.guest.machine.aarch64.guest import Guest

    return Guest(vcpu)
