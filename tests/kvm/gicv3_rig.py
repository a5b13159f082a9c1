"""A virtual machine on a GICv3 host, as the tests of the VGICv3 and of the ITS want it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from support import ADDR, BOARD, CTRL, DIST_REGS, Client

from kvmvfio_emu import uapi

V3, ITS = uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS
DIST, REDIST, REGION = (
    uapi.KVM_VGIC_V3_ADDR_TYPE_DIST,
    uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST,
    uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
)
REDIST_REGS, SYSREGS, LEVEL, ITS_REGS = (
    uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
    uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
    uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
    uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS,
)
INIT = uapi.KVM_DEV_ARM_VGIC_CTRL_INIT
DIST_BASE, REDIST_BASE, ITS_BASE = 0x0800_0000, 0x080A_0000, 0x0900_0000
RAM, RAM_SIZE = 0x4000_0000, 0x40_0000
UNSET = (1 << 64) - 1
GICV3_BOARD = replace(BOARD, gic_version=3)
PROFILE = "linux-6.12"


class Machine:
    """One virtual machine of ``client`` with a VGICv3, and shorthands for its attributes."""

    def __init__(self, client: Client, vcpus: int = 1, *, init: bool = True, ready: bool = True) -> None:
        self.client = client
        self.vm = client.vm()
        self.vcpus = [client.vcpu(self.vm, number, init=init) for number in range(vcpus)]
        self.gic = client.create_device(self.vm, V3)
        self.its = -1
        self.ram = mmap.mmap(-1, RAM_SIZE)
        if ready:
            self.place()
            self.init()

    @property
    def model(self) -> Any:
        """The kernel's side of it."""
        return self.client.host.modules["kvm"].vms[-1]

    def place(self) -> None:
        """Distributor and redistributors get addresses."""
        self.client.set_u64(self.gic, ADDR, DIST, DIST_BASE)
        self.client.set_u64(self.gic, ADDR, REDIST, REDIST_BASE)

    def init(self) -> None:
        """KVM_DEV_ARM_VGIC_CTRL_INIT."""
        self.client.set_at(self.gic, CTRL, INIT, 0)

    def add_ram(self) -> None:
        """Guest memory at `RAM`, of which `ram` is the user's side."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        self.client.call(
            self.vm,
            uapi.KVM_SET_USER_MEMORY_REGION,
            "kvm_userspace_memory_region",
            guest_phys_addr=RAM,
            memory_size=RAM_SIZE,
            userspace_addr=address,
        )

    def add_its(self, base: int | None = ITS_BASE) -> int:
        """An ITS, with its frames at ``base``."""
        self.its = self.client.create_device(self.vm, ITS)
        if base is not None:
            self.client.set_u64(self.its, ADDR, uapi.KVM_VGIC_ITS_ADDR_TYPE, base)
        return self.its

    # -- registers ----------------------------------------------------------------------------------------------

    def dist(self, offset: int, value: int | None = None) -> int:
        """A distributor register, read or (with ``value``) written."""
        return self._u32(DIST_REGS, offset, value)

    def redist(self, offset: int, value: int | None = None, affinity: int = 0) -> int:
        """A redistributor register."""
        return self._u32(REDIST_REGS, affinity << 32 | offset, value)

    def level(self, first: int, value: int | None = None) -> int:
        """32 lines."""
        return self._u32(LEVEL, first, value)

    def sysreg(self, encoding: int, value: int | None = None, affinity: int = 0) -> int:
        """A system register of the CPU interface."""
        return self._u64(self.gic, SYSREGS, affinity << 32 | encoding, value)

    def its_reg(self, offset: int, value: int | None = None) -> int:
        """An ITS register."""
        return self._u64(self.its, ITS_REGS, offset, value)

    def _u32(self, group: int, attr: int, value: int | None) -> int:
        if value is None:
            return self.client.get(self.gic, group, attr)
        return self.client.set_u32(self.gic, group, attr, value)

    def _u64(self, fd: int, group: int, attr: int, value: int | None) -> int:
        if value is None:
            return self.client.get(fd, group, attr, 8)
        return self.client.set_u64(fd, group, attr, value)


def boot_v3(boot: Callable[..., Client], profile: str = PROFILE) -> Client:
    """A kernel on a GICv3 host."""
    return boot(profile, GICV3_BOARD)


def region(index: int, base: int, count: int, flags: int = 0) -> int:
    """The payload of REDIST_REGION."""
    return count << 52 | base | flags << 12 | index
