"""KVM_ARM_VCPU_INIT: a vCPU's target and features, and its reset (arch/arm/kvm/arm.c, arch/arm64/kvm/reset.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch
from kvmvfio_emu.kernel.kvm.arch.arm64_registers import Arm64Registers
from kvmvfio_emu.kernel.kvm.arch.arm_registers import Arm32Registers
from kvmvfio_emu.uapi import arm32

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.profiles import Profile

_TARGET_GENERIC_V8 = 5
_POWER_OFF = 1 << uapi.KVM_ARM_VCPU_POWER_OFF
_32BIT = 1 << uapi.KVM_ARM_VCPU_EL1_32BIT
_PSCI_0_2 = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2
_PMU = 1 << uapi.KVM_ARM_VCPU_PMU_V3
#: A 32-bit host's number of the one feature that arm64 has at another.
_PSCI_0_2_OF_ARM = 1 << arm32.KVM_ARM_VCPU_PSCI_0_2
#: Features have the lowest seven bits: those above, and pointer authentication and SVE, which this CPU has not.
_FEATURES = 7
_WORD_BITS, _WORDS = 32, 7


def preferred_target(arch: str) -> int:
    """The vCPU target number of the emulated host: Cortex-A15 on 32-bit ARM, the generic v8 one on arm64."""
    return arm32.KVM_ARM_TARGET_CORTEX_A15 if arch == "arm" else _TARGET_GENERIC_V8


def _supported(profile: Profile) -> int:
    features = _POWER_OFF | _PSCI_0_2
    if profile.capability("KVM_CAP_ARM_EL1_32BIT"):
        features |= _32BIT
    if profile.capability("KVM_CAP_ARM_PMU_V3"):
        features |= _PMU
    return features


def vcpu_init(vcpu: Vcpu, init: Any) -> None:
    """EINVAL another target than the host's, a feature that the CPU has not, or others than before; ENOENT unknown."""
    arch, profile = vcpu.vm.arch, vcpu.host.profile
    assert isinstance(arch, ArmArch)
    if init.target != preferred_target(profile.arch):
        raise KernelError(errno.EINVAL, f"target {init.target} is not the host's CPU")
    features = sum(word << _WORD_BITS * index for index, word in enumerate(init.features))
    if profile.arch == "arm":
        features = _of_arm(features)
    elif not profile.vcpu_features_fixed:
        unknown = features & ~_supported(profile)
        if unknown:
            raise KernelError(errno.ENOENT, f"unknown vCPU features {unknown:#x}")
    elif profile.vcpu_features_per_vm:
        _check_features(features & ~_POWER_OFF, profile)
        _keep_for_vm(arch, features & ~_POWER_OFF)
    else:
        _keep_for_vcpu(vcpu, features, profile)
        _check_width(arch, bool(features & _32BIT))
    before, vcpu.features = vcpu.features, features & ~_POWER_OFF
    vcpu.initialized = True
    vcpu.mp_state = uapi.KVM_MP_STATE_STOPPED if features & _POWER_OFF else uapi.KVM_MP_STATE_RUNNABLE
    if vcpu.registers is not None and vcpu.features == before:
        vcpu.registers.reset()
    else:
        _build(vcpu, arch)


def _of_arm(features: int) -> int:
    """A 32-bit host's features as arm64 has them: EL1_32BIT is not asked for there."""
    unknown = features & ~(_POWER_OFF | _PSCI_0_2_OF_ARM)
    if unknown:
        raise KernelError(errno.ENOENT, f"unknown vCPU features {unknown:#x}")
    return features & _POWER_OFF | _32BIT | (_PSCI_0_2 if features & _PSCI_0_2_OF_ARM else 0)


def _build(vcpu: Vcpu, arch: ArmArch) -> None:
    """The CPU that has these features; what executes code as the one before is of no use to it."""
    engine: object = vcpu.registers.live if vcpu.registers is not None else None
    if vcpu.program is engine:
        vcpu.program = None
    if vcpu.host.profile.arch == "arm":
        vcpu.registers = Arm32Registers(vcpu, arch)
    else:
        vcpu.registers = Arm64Registers(vcpu, arch, vcpu.features)


def _check_features(features: int, profile: Profile) -> None:
    unknown = features >> _FEATURES
    if unknown:
        raise KernelError(errno.ENOENT, f"unknown vCPU features {unknown << _FEATURES:#x}")
    if features & ~_supported(profile):
        raise KernelError(errno.EINVAL, f"the host's CPU has not features {features & ~_supported(profile):#x}")


def _keep_for_vm(arch: ArmArch, features: int) -> None:
    if arch.vcpu_features not in (None, features):
        raise KernelError(errno.EINVAL, f"the virtual machine's vCPUs have features {arch.vcpu_features:#x}")
    arch.vcpu_features = features


def _keep_for_vcpu(vcpu: Vcpu, features: int, profile: Profile) -> None:
    """Bit by bit, as these kernels do: what was taken before a refused bit stays taken."""
    for bit in range(_WORDS * _WORD_BITS):
        wanted = features >> bit & 1
        if wanted and bit >= _FEATURES:
            raise KernelError(errno.ENOENT, f"unknown vCPU feature {bit}")
        if vcpu.initialized and bit < _FEATURES and vcpu.requested >> bit & 1 != wanted:
            raise KernelError(errno.EINVAL, f"the vCPU was initialised with another feature {bit}")
        vcpu.requested |= wanted << bit
    if vcpu.requested & ~_supported(profile):
        unsupported, vcpu.requested = vcpu.requested & ~_supported(profile), 0
        raise KernelError(errno.EINVAL, f"the host's CPU has not features {unsupported:#x}")


def _check_width(arch: ArmArch, is_32bit: bool) -> None:
    if arch.is_32bit not in (None, is_32bit):
        raise KernelError(errno.EINVAL, "all vCPUs of a virtual machine are 32-bit, or none is")
    arch.is_32bit = is_32bit
