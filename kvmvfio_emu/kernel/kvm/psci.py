"""Calls of firmware: PSCI, and what else SMCCC has (arch/arm64/kvm/hypercalls.c, psci.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kvmvfio_emu import uapi
from kvmvfio_emu.guest.base import Call, CpuOff, Exit, Hypercall, PowerOff, Reset, Wfi
from kvmvfio_emu.kernel.kvm.arch.arm import ArmArch

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_PSCI_1_0 = 0x10000
_64BIT, _MASK = 1 << 30, (1 << 64) - 1
_SMCCC_VERSION, _SMCCC_FEATURES, _SMCCC_1_1 = 0x80000000, 0x80000001, 0x10001
_AFFINITY = 0xFF00FFFFFF
_ON, _OFF = 0, 1
_TOS_NOT_PRESENT = 2

_SERVED = {
    uapi.PSCI_0_2_FN_PSCI_VERSION,
    uapi.PSCI_0_2_FN_CPU_SUSPEND,
    uapi.PSCI_0_2_FN64_CPU_SUSPEND,
    uapi.PSCI_0_2_FN_CPU_OFF,
    uapi.PSCI_0_2_FN_CPU_ON,
    uapi.PSCI_0_2_FN64_CPU_ON,
    uapi.PSCI_0_2_FN_AFFINITY_INFO,
    uapi.PSCI_0_2_FN64_AFFINITY_INFO,
    uapi.PSCI_0_2_FN_MIGRATE_INFO_TYPE,
    uapi.PSCI_0_2_FN_SYSTEM_OFF,
    uapi.PSCI_0_2_FN_SYSTEM_RESET,
}
#: The functions of PSCI 0.1, which a vCPU without the feature PSCI_0_2 has.
_OLD = {
    uapi.KVM_PSCI_FN_CPU_OFF: uapi.PSCI_0_2_FN_CPU_OFF,
    uapi.KVM_PSCI_FN_CPU_ON: uapi.PSCI_0_2_FN64_CPU_ON,
}


class Caller(Protocol):
    """The registers of who calls."""

    def argument(self, number: int) -> int:
        """General register ``number``, 0 to 17."""

    def answer(self, value: int) -> None:
        """Put the result into register 0."""


def call(vcpu: Vcpu, caller: Caller, *, smc: bool, number: int) -> Exit:
    """Serve an HVC, or a trapped SMC, with ``number`` in the instruction. Returns what KVM_RUN does then."""
    function = caller.argument(0) & 0xFFFFFFFF
    arch = vcpu.vm.arch
    assert isinstance(arch, ArmArch)
    firmware = arch.firmware
    action = firmware.action(function)
    if (smc and (number or not vcpu.host.profile.smc_served)) or action == uapi.KVM_SMCCC_FILTER_DENY:
        caller.answer(uapi.PSCI_RET_NOT_SUPPORTED & _MASK)
        return Call()
    if action == uapi.KVM_SMCCC_FILTER_FWD_TO_USER:
        return Hypercall(function, uapi.KVM_HYPERCALL_EXIT_SMC if smc else 0)
    psci_0_2 = bool(vcpu.features >> uapi.KVM_ARM_VCPU_PSCI_0_2 & 1)
    version = firmware.get(uapi.KVM_REG_ARM_PSCI_VERSION, psci_0_2=psci_0_2)
    if not psci_0_2:
        function = _OLD.get(function, 0)
    elif not _allowed(vcpu, function):
        function = 0
    value, leave = _serve(vcpu, caller, function, version)
    if value is not None:
        caller.answer(value & _MASK)
    return leave


def _serve(vcpu: Vcpu, caller: Caller, function: int, version: int) -> tuple[int | None, Exit]:
    narrow = 0xFFFFFFFF if not function & _64BIT else _MASK
    value = uapi.PSCI_RET_NOT_SUPPORTED
    match function:
        case uapi.PSCI_0_2_FN_PSCI_VERSION:
            value = version
        case uapi.PSCI_0_2_FN_CPU_SUSPEND | uapi.PSCI_0_2_FN64_CPU_SUSPEND:
            caller.answer(uapi.PSCI_RET_SUCCESS)
            return None, Wfi()
        case uapi.PSCI_0_2_FN_CPU_OFF:
            return None, CpuOff()
        case uapi.PSCI_0_2_FN_CPU_ON | uapi.PSCI_0_2_FN64_CPU_ON:
            value = _cpu_on(vcpu, *(caller.argument(number) & narrow for number in (1, 2, 3)), version=version)
        case uapi.PSCI_0_2_FN_AFFINITY_INFO | uapi.PSCI_0_2_FN64_AFFINITY_INFO:
            value = _affinity_info(vcpu, caller.argument(1) & narrow, caller.argument(2) & narrow)
        case uapi.PSCI_0_2_FN_MIGRATE_INFO_TYPE:
            value = _TOS_NOT_PRESENT
        case uapi.PSCI_0_2_FN_SYSTEM_OFF:
            return uapi.PSCI_RET_INTERNAL_FAILURE, PowerOff()
        case uapi.PSCI_0_2_FN_SYSTEM_RESET:
            return uapi.PSCI_RET_INTERNAL_FAILURE, Reset()
        case uapi.PSCI_1_0_FN_PSCI_FEATURES if version >= _PSCI_1_0:
            asked = caller.argument(1) & 0xFFFFFFFF
            known = asked in _SERVED or asked in (_SMCCC_VERSION, uapi.PSCI_1_0_FN_PSCI_FEATURES)
            value = 0 if known and _allowed(vcpu, asked) else uapi.PSCI_RET_NOT_SUPPORTED
        case x if x == _SMCCC_VERSION and version >= _PSCI_1_0:
            value = _SMCCC_1_1
    return value, Call()


def _allowed(vcpu: Vcpu, function: int) -> bool:
    """A 32-bit caller has no 64-bit functions; models kvm_psci_check_allowed_function."""
    return not function & _64BIT or vcpu.registers is None or not vcpu.registers.is_32bit


def _cpu_on(source: Vcpu, affinity: int, entry: int, context: int, *, version: int) -> int:
    """Models kvm_psci_vcpu_on."""
    target = next((vcpu for vcpu in source.vm.vcpus if _affinity(vcpu) == affinity & _AFFINITY), None)
    if target is None or target.registers is None:
        return uapi.PSCI_RET_INVALID_PARAMS
    if not target.powered_off:
        return uapi.PSCI_RET_ALREADY_ON if version > 1 else uapi.PSCI_RET_INVALID_PARAMS
    big_endian = source.registers is not None and source.registers.big_endian
    target.registers.start(entry, context, big_endian=big_endian)
    target.mp_state = uapi.KVM_MP_STATE_RUNNABLE
    target.kick()
    return uapi.PSCI_RET_SUCCESS


def _affinity_info(source: Vcpu, affinity: int, level: int) -> int:
    """Models kvm_psci_vcpu_affinity_info."""
    if level > 3:
        return uapi.PSCI_RET_INVALID_PARAMS
    mask = _AFFINITY & ~((1 << 8 * level) - 1)
    matching = [vcpu for vcpu in source.vm.vcpus if _affinity(vcpu) & mask == affinity & mask]
    if not matching:
        return uapi.PSCI_RET_INVALID_PARAMS
    return _OFF if all(vcpu.powered_off for vcpu in matching) else _ON


def _affinity(vcpu: Vcpu) -> int:
    return (vcpu.registers.system["MPIDR_EL1"] if vcpu.registers is not None else vcpu.mpidr) & _AFFINITY
