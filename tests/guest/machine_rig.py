"""A virtual machine whose vCPUs execute machine code, in process: code at 0x40000000, MMIO where nothing is."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

from support import CPU_BASE, DIST_BASE, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import boards

RAM, SIZE = 0x4000_0000, 0x10000
MAILBOX = 0x0A00_0000
REDIST_BASE = 0x080A_0000
PROFILE = "linux-6.12"


def core(*field: str | int) -> int:
    """The number of a 64-bit core register, by its place in ``struct kvm_regs``."""
    word = uapi.ffi.offsetof("struct kvm_regs", *field) // 4
    return int(uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE | word)


def system(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The number of a system register."""
    index = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
    return int(uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | index)


PC, PSTATE, SP_EL0, SP_EL1 = core("regs", "pc"), core("regs", "pstate"), core("regs", "sp"), core("sp_el1")
VBAR, MPIDR = system(3, 0, 12, 0, 0), system(3, 0, 0, 0, 5)


#: By the VGIC's version: its type, its frames and where they are.
FRAMES = {
    2: (
        uapi.KVM_DEV_TYPE_ARM_VGIC_V2,
        ((uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, DIST_BASE), (uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, CPU_BASE)),
    ),
    3: (
        uapi.KVM_DEV_TYPE_ARM_VGIC_V3,
        ((uapi.KVM_VGIC_V3_ADDR_TYPE_DIST, DIST_BASE), (uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST, REDIST_BASE)),
    ),
}


class Machine:
    """``vcpus`` of them (all but the first powered off), a VGIC of version ``gic`` (0: none), memory at `RAM`.

    ``width``: 64 or 32 bits.
    """

    def __init__(
        self, vcpus: int = 1, *, flags: int = 0, profile: str = PROFILE, gic: int = 2, width: int = 64
    ) -> None:
        board = replace(boards.load("oracle-virt"), gic_version=gic or 2)
        self.client = client = Client(profile, board)
        self.kernel = client.kernel
        self.vm = client.vm()
        self.vcpus = []
        for number in range(vcpus):
            vcpu = client.vcpu(self.vm, number)
            init = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
            client.ioctl(self.vm, uapi.KVM_ARM_PREFERRED_TARGET, init)
            view = uapi.view("struct kvm_vcpu_init", init)
            view.features[0] = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2 | (1 if number else 0) << uapi.KVM_ARM_VCPU_POWER_OFF
            view.features[0] |= (width == 32) << uapi.KVM_ARM_VCPU_EL1_32BIT
            client.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, init)
            self.vcpus.append(vcpu)
        if gic:
            self._create_vgic(gic)
        self.give_memory(flags)
        self.put(PC, RAM)

    def give_memory(self, flags: int = 0) -> None:
        """To the guest its RAM, to us the run pages."""
        self.ram = mmap.mmap(-1, SIZE)
        self.slot(0, RAM, SIZE, self.ram, flags)
        size = self.client.ioctl(self.client.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
        self._pages = [self.kernel.mmap(vcpu, size) for vcpu in self.vcpus]
        self.runs = [uapi.ffi.from_buffer("struct kvm_run *", page) for page in self._pages]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for call in tuple(self.kernel.host.scheduler.calls):
            call.interrupt()
        self.runs.clear()
        self._pages.clear()  # a mapping holds its file
        self.client.finish()

    def _create_vgic(self, version: int) -> None:
        client = self.client
        kind, frames = FRAMES[version]
        vgic = self.vgic = client.create_device(self.vm, kind)
        for frame, base in frames:
            client.set_u64(vgic, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, frame, base)
        client.set_at(vgic, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT, 0)

    def slot(self, number: int, gpa: int, size: int, memory: mmap.mmap, flags: int = 0) -> None:
        """KVM_SET_USER_MEMORY_REGION."""
        address = uapi.address(memoryview(memory))
        fields = {"slot": number, "guest_phys_addr": gpa, "memory_size": size, "flags": flags}
        self.client.call(
            self.vm,
            uapi.KVM_SET_USER_MEMORY_REGION,
            "kvm_userspace_memory_region",
            userspace_addr=address,
            **fields,
        )

    def code(self, words: Iterable[int], at: int = RAM) -> None:
        """Put machine code into memory."""
        raw = b"".join(word.to_bytes(4, "little") for word in words)
        self.ram[at - RAM : at - RAM + len(raw)] = raw

    def put(self, number: int, value: int, vcpu: int = 0) -> None:
        """KVM_SET_ONE_REG."""
        address = self.client.pointer(value.to_bytes(8, "little"))
        self.client.call(self.vcpus[vcpu], uapi.KVM_SET_ONE_REG, "kvm_one_reg", id=number, addr=address)

    def get(self, number: int, vcpu: int = 0) -> int:
        """KVM_GET_ONE_REG."""
        buffer = bytearray(8)
        address = uapi.address(buffer)
        self.client.call(self.vcpus[vcpu], uapi.KVM_GET_ONE_REG, "kvm_one_reg", id=number, addr=address)
        return int.from_bytes(buffer, "little")

    def x(self, **values: int) -> None:
        """Set general registers: ``x(x0=1, x9=2)``."""
        for name, value in values.items():
            self.put(core("regs", "regs", int(name[1:])), value)

    def run(self, vcpu: int = 0) -> Any:
        """KVM_RUN; the run page."""
        self.kernel.ioctl(self.vcpus[vcpu], uapi.KVM_RUN)
        return self.runs[vcpu]

    def written(self, vcpu: int = 0) -> tuple[int, int, int]:
        """KVM_RUN until a store exits: (address, size, value)."""
        run = self.run(vcpu)
        assert (run.exit_reason, run.mmio.is_write) == (uapi.KVM_EXIT_MMIO, 1)
        data = bytes(uapi.ffi.buffer(run.mmio.data))[: run.mmio.len]
        return run.mmio.phys_addr, run.mmio.len, int.from_bytes(data, "little")

    def read(self, answer: int) -> tuple[int, int]:
        """KVM_RUN until a load exits, which will get ``answer``: (address, size)."""
        run = self.run()
        assert (run.exit_reason, run.mmio.is_write) == (uapi.KVM_EXIT_MMIO, 0)
        uapi.ffi.memmove(run.mmio.data, answer.to_bytes(8, "little"), 8)
        return run.mmio.phys_addr, run.mmio.len
