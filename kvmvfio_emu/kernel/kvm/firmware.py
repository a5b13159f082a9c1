"""What firmware a guest meets: its registers, and the filter of its calls (arch/arm64/kvm/hypercalls.c)."""

from __future__ import annotations

import errno
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError

_PSCI_0_1 = 0x1
#: What a vCPU with PSCI 0.2 can have, from the oldest to the newest, by the profile's ``psci``.
_PSCI = {"0.2": 0x2, "1.0": 0x10000, "1.1": 0x10001}
_WORKAROUNDS = (
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1,
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2,
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3,
)
#: Firmware services that a guest may see: one bit each, all on at first.
_SERVICES = {
    uapi.KVM_REG_ARM_STD_BMAP: 0b1,  # random numbers
    uapi.KVM_REG_ARM_STD_HYP_BMAP: 0b1,  # stolen time
    uapi.KVM_REG_ARM_VENDOR_HYP_BMAP: 0b11,  # feature discovery, PTP clock
}
#: In the kernel's order.
REGISTERS = (uapi.KVM_REG_ARM_PSCI_VERSION, *_WORKAROUNDS, *_SERVICES)
#: Function numbers that SMCCC keeps for itself, as 32-bit and as 64-bit calls.
_ARCHITECTURE_CALLS = ((0x80000000, 0x8000FFFF), (0xC0000000, 0xC000FFFF))


class Firmware:
    """One virtual machine's. ``psci``: the newest version of it that the kernel has."""

    def __init__(self, psci: str) -> None:
        newest = _PSCI[psci]
        self._versions = [version for version in _PSCI.values() if version <= newest]
        self._psci: int | None = None
        self._services = dict(_SERVICES)
        #: Ranges of function numbers, first and last, with what becomes of calls in them.
        self._filter: list[tuple[int, int, int]] = []

    def get(self, register: int, *, psci_0_2: bool) -> int:
        """The value of one of `REGISTERS`, to a vCPU with or without PSCI 0.2. ENOENT another."""
        if register == uapi.KVM_REG_ARM_PSCI_VERSION:
            return (self._psci or self._versions[-1]) if psci_0_2 else _PSCI_0_1
        if register in _WORKAROUNDS:
            return 0  # the host's CPU is vulnerable, and its firmware has no mitigation
        if register not in self._services:
            raise KernelError(errno.ENOENT, f"no firmware register {register:#x}")
        return self._services[register]

    def set(self, register: int, value: int, *, psci_0_2: bool, has_run: bool) -> None:
        """ENOENT; EINVAL a version or feature that there is not; EBUSY services after the first KVM_RUN."""
        if register == uapi.KVM_REG_ARM_PSCI_VERSION:
            if value not in (self._versions if psci_0_2 else (_PSCI_0_1,)):
                raise KernelError(errno.EINVAL, f"PSCI version {value:#x} on a vCPU with PSCI 0.2 = {psci_0_2}")
            self._psci = value
        elif register in _WORKAROUNDS:
            # Level 1 of the second one says "unknown", which a kernel without mitigation can promise, too.
            promised = register == uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2 and value == 1
            if value and not promised:
                raise KernelError(errno.EINVAL, f"workaround level {value:#x} is better than the host's")
        elif register in self._services:
            if value & ~_SERVICES[register]:
                raise KernelError(errno.EINVAL, f"services {value:#x}: there are {_SERVICES[register]:#x}")
            if has_run and value != self._services[register]:
                raise KernelError(errno.EBUSY, "a vCPU has run with other firmware services")
            self._services[register] = value
        else:
            raise KernelError(errno.ENOENT, f"no firmware register {register:#x}")

    def set_filter(self, filter_: Any, *, has_run: bool) -> None:
        """KVM_ARM_VM_SMCCC_FILTER with a ``struct kvm_smccc_filter``. EINVAL, EBUSY, EEXIST a range that overlaps."""
        first, last = int(filter_.base), int(filter_.base + filter_.nr_functions - 1 & 0xFFFFFFFF)
        if any(filter_.pad) or last < first or filter_.action > uapi.KVM_SMCCC_FILTER_FWD_TO_USER:
            raise KernelError(errno.EINVAL, f"filter of {first:#x} .. {last:#x} with action {filter_.action}")
        if has_run:
            raise KernelError(errno.EBUSY, "a vCPU has run")
        taken = (*_ARCHITECTURE_CALLS, *((low, high) for low, high, _ in self._filter))
        if any(low <= last and first <= high for low, high in taken):
            raise KernelError(errno.EEXIST, f"{first:#x} .. {last:#x} overlaps calls that are filtered or reserved")
        self._filter.append((first, last, filter_.action))

    def action(self, function: int) -> int:
        """What becomes of a guest's call: KVM_SMCCC_FILTER_*."""
        return next((act for low, high, act in self._filter if low <= function <= high), uapi.KVM_SMCCC_FILTER_HANDLE)
