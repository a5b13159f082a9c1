"""The CPU interface of a virtual GICv3 as userspace saves and restores it (arch/arm64/kvm/vgic-sys-reg-v3.c).

Each register is named by its 16-bit encoding and has 64 bits. The values are those that KVM keeps for ICH_VMCR_EL2,
which need not be what the hardware makes of them once a guest runs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kvmvfio_emu.hw import gicv3 as g
from kvmvfio_emu.hw import ich
from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vgic.modern.v3 import VgicCpuV3

_SRE = g.ICC_SRE_SRE | g.ICC_SRE_DFB | g.ICC_SRE_DIB


class SystemRegister(NamedTuple):
    """How a register is read and written. Both may refuse with EINVAL."""

    name: str
    get: Callable[[VgicCpuV3], int]
    put: Callable[[VgicCpuV3, int], None]


def _put_pmr(cpu: VgicCpuV3, value: int) -> None:
    cpu.interface.pmr = value & 0xFF


def _put_bpr0(cpu: VgicCpuV3, value: int) -> None:
    cpu.interface.bpr = value & 7


def _get_bpr1(cpu: VgicCpuV3) -> int:
    return min(cpu.interface.bpr + 1, 7) if cpu.interface.common_bpr else cpu.interface.abpr


def _put_bpr1(cpu: VgicCpuV3, value: int) -> None:
    if not cpu.interface.common_bpr:
        cpu.interface.abpr = value & 7


def _get_ctlr(cpu: VgicCpuV3) -> int:
    fixed = g.ICC_CTLR_PRI_BITS_MASK | g.ICC_CTLR_ID_BITS_MASK
    own = cpu.priority_bits - 1 << g.ICC_CTLR_PRI_BITS_SHIFT | cpu.id_bits << g.ICC_CTLR_ID_BITS_SHIFT
    return cpu.interface.control & ~fixed | own


def _put_ctlr(cpu: VgicCpuV3, value: int) -> None:
    # Field by field, so that those before a refused one are set.
    priority_bits = ((value & g.ICC_CTLR_PRI_BITS_MASK) >> g.ICC_CTLR_PRI_BITS_SHIFT) + 1
    if priority_bits > cpu.priority_bits:
        raise KernelError(errno.EINVAL, f"{priority_bits} bits of priority, here are {cpu.priority_bits}")
    cpu.priority_bits = priority_bits
    id_bits = (value & g.ICC_CTLR_ID_BITS_MASK) >> g.ICC_CTLR_ID_BITS_SHIFT
    if id_bits > cpu.id_bits:
        raise KernelError(errno.EINVAL, f"ICC_CTLR_EL1.IDbits {id_bits}, here it is {cpu.id_bits}")
    cpu.id_bits = id_bits
    if bool(value & g.ICC_CTLR_SEIS) != ich.SERROR_SUPPORT or bool(value & g.ICC_CTLR_A3V) != ich.AFFINITY3_VALID:
        raise KernelError(errno.EINVAL, "SEIS or A3V of another interrupt controller")
    cpu.interface.common_bpr = bool(value & g.ICC_CTLR_CBPR)
    cpu.interface.eoi_mode = int(bool(value & g.ICC_CTLR_EOIMODE))


def _put_sre(cpu: VgicCpuV3, value: int) -> None:
    if not value & g.ICC_SRE_SRE:
        raise KernelError(errno.EINVAL, "the system registers cannot be turned off")


def _put_group0(cpu: VgicCpuV3, value: int) -> None:
    cpu.interface.enabled0 = bool(value & 1)


def _put_group1(cpu: VgicCpuV3, value: int) -> None:
    cpu.interface.enabled = bool(value & 1)


def _active_priorities(group: int, index: int) -> SystemRegister:
    def need(cpu: VgicCpuV3) -> list[int]:
        # One register for up to 5 bits, two for 6, four for 7.
        if index > {7: 3, 6: 1}.get(cpu.priority_bits, 0):
            raise KernelError(errno.EINVAL, f"{cpu.priority_bits} bits of priority need no ICC_AP{group}R{index}_EL1")
        registers = cpu.interface.active_priorities[group]
        registers.extend([0] * (index + 1 - len(registers)))
        return registers

    def put(cpu: VgicCpuV3, value: int) -> None:
        need(cpu)[index] = value & 0xFFFFFFFF

    return SystemRegister(f"ICC_AP{group}R{index}_EL1", lambda cpu: need(cpu)[index], put)


#: Encoding -> register.
REGISTERS = {
    g.ICC_PMR_EL1: SystemRegister("ICC_PMR_EL1", lambda cpu: cpu.interface.pmr, _put_pmr),
    g.ICC_BPR0_EL1: SystemRegister("ICC_BPR0_EL1", lambda cpu: cpu.interface.bpr, _put_bpr0),
    **{encoding: _active_priorities(0, index) for index, encoding in enumerate(g.ICC_AP0R_EL1)},
    **{encoding: _active_priorities(1, index) for index, encoding in enumerate(g.ICC_AP1R_EL1)},
    g.ICC_BPR1_EL1: SystemRegister("ICC_BPR1_EL1", _get_bpr1, _put_bpr1),
    g.ICC_CTLR_EL1: SystemRegister("ICC_CTLR_EL1", _get_ctlr, _put_ctlr),
    g.ICC_SRE_EL1: SystemRegister("ICC_SRE_EL1", lambda cpu: _SRE, _put_sre),
    g.ICC_IGRPEN0_EL1: SystemRegister("ICC_IGRPEN0_EL1", lambda cpu: int(cpu.interface.enabled0), _put_group0),
    g.ICC_IGRPEN1_EL1: SystemRegister("ICC_IGRPEN1_EL1", lambda cpu: int(cpu.interface.enabled), _put_group1),
}
