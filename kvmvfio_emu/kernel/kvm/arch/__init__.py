"""What KVM has for each architecture: struct kvm_arch, and the kvm_arch_* functions that the common part calls.

`arch_of` is the one place where the profile's architecture decides.
"""

from __future__ import annotations

from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch
from kvmvfio_emu.kernel.kvm.arch.base import Arch
from kvmvfio_emu.kernel.kvm.arch.x86 import X86Arch

__all__ = ["Arch", "ArmArch", "X86Arch", "arch_of"]


def arch_of(name: str) -> type[Arch]:
    """The class for a profile's ``arch``."""
    return X86Arch if name == "x86_64" else ArmArch
