"""The VMM of vmm.c in Python and in process: loads the guest of baremetal/ and counts what its interrupts take.

python docs/examples/vmm.py [--profile PROFILE] [-32] [unforwarded|forwarded] [INTERRUPTS] [VCPUS]
"""

from __future__ import annotations

import argparse
import mmap
import struct
from pathlib import Path
from typing import Any

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli.story import COUNTERS, DEVICE, Vmm
from kvmvfio_emu.uapi import arm32

IMAGES = Path(__file__).with_name("baremetal")
RAM, SHARED, DOORBELL = 0x10000, 0x40, 0x0D000000
POWER_OFF = 1 << uapi.KVM_ARM_VCPU_POWER_OFF
#: By the host's architecture and the width of the guest's CPU: its image, and the vCPU's features.
GUESTS = {
    ("arm64", 64): ("guest.bin", 1 << uapi.KVM_ARM_VCPU_PSCI_0_2),
    ("arm64", 32): ("guest32.bin", 1 << uapi.KVM_ARM_VCPU_PSCI_0_2 | 1 << uapi.KVM_ARM_VCPU_EL1_32BIT),
    ("arm", 32): ("guest32.bin", 1 << arm32.KVM_ARM_VCPU_PSCI_0_2),
}


class MachineVmm(Vmm):
    """`Vmm` is the one of the demo: VFIO and eventfds are its; here the guest is machine code, on ``vcpus`` CPUs."""

    def __init__(self, kernel: Kernel, *, forward: bool, vcpus: int = 1, waits: bool = False, width: int = 64) -> None:
        self.ram = mmap.mmap(-1, RAM)
        name, self.features = GUESTS[kernel.host.profile.arch, width]
        image = (IMAGES / name).read_bytes()
        self.ram[: len(image)] = image
        self.ram[SHARED : SHARED + 16] = struct.pack("<QQ", vcpus, waits)
        self.count = vcpus
        super().__init__(kernel, forward=forward)
        self.others = [kernel.start(vcpu, uapi.KVM_RUN) for vcpu in self.vcpus[:-1]]
        self.vcpu = self.vcpus[-1]  # the one that takes the interrupt

    def create_vcpus(self, vm: int) -> list[int]:
        """Each starts at address 0; all but the first wait for CPU_ON."""
        kernel, self.vcpus = self.kernel, []
        for number in range(self.count):
            vcpu = kernel.ioctl(vm, uapi.KVM_CREATE_VCPU, number)
            init = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
            kernel.ioctl(vm, uapi.KVM_ARM_PREFERRED_TARGET, init)
            uapi.view("struct kvm_vcpu_init", init).features[0] = self.features | (POWER_OFF if number else 0)
            kernel.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, init)
            self.vcpus.append(vcpu)
        memory = uapi.pack(
            "struct kvm_userspace_memory_region",
            slot=1,
            memory_size=RAM,
            userspace_addr=uapi.address(memoryview(self.ram)),
        )
        kernel.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION, memory)
        return self.vcpus

    @property
    def shared(self) -> tuple[int, int]:
        """(interrupts handled, what start.S or start32.S tells of an exception that nobody expected)."""
        handled, fault = struct.unpack("<QQ", self.ram[SHARED + 16 : SHARED + 32])
        return handled, fault

    def run_until_doorbell(self) -> None:
        """KVM_RUN. RuntimeError: the guest has something to complain about."""
        self.kernel.ioctl(self.vcpu, uapi.KVM_RUN)
        if self.shared[1]:
            raise RuntimeError(f"the guest took an exception: {self.shared[1]:#x}")

    def handle(self, interrupts: int) -> dict[str, int]:
        """What ``interrupts`` of them counted, by the model's counters."""
        kernel = self.kernel
        hardware: Any = kernel.device(DEVICE)
        self.run_until_doorbell()  # the driver is ready
        before = dict(kernel.counters)
        for _ in range(interrupts):
            kernel.after(5000, hardware.raise_interrupt)
            self.run_until_doorbell()
        return {name: kernel.counters[name] - before.get(name, 0) for name in (*COUNTERS, "line_up")}


def main() -> None:
    """Run it and print the counters."""
    parser = argparse.ArgumentParser(description="What interrupts of a machine code guest take.")
    parser.add_argument("-32", action="store_const", const=32, default=64, dest="width", help="a 32-bit guest")
    parser.add_argument("--profile", default="rfc-2014", help="the kernel; rfc-2014-arm is one of a 32-bit host")
    parser.add_argument("mode", nargs="?", choices=("unforwarded", "forwarded"), default="unforwarded")
    parser.add_argument("interrupts", nargs="?", type=int, default=1)
    parser.add_argument("vcpus", nargs="?", type=int, default=1)
    asked = parser.parse_args()
    forward, vcpus = asked.mode == "forwarded", asked.vcpus
    with Kernel(asked.profile, "calxeda-midway") as kernel:
        vmm = MachineVmm(kernel, forward=forward, vcpus=vcpus, waits=vcpus > 1, width=asked.width)
        for name, count in vmm.handle(asked.interrupts).items():
            print(f"{name:18}{count}")
        print(f"{'handled':18}{vmm.shared[0]}")
        for call in vmm.others:
            call.interrupt()


if __name__ == "__main__":
    main()
