"""Boots a Linux kernel, arm64 or 32-bit Arm, on vCPUs that execute it; a serial port is all that this VMM emulates.

python docs/examples/linux.py [--cpus N] [--gic v2|v3] [--initrd FILE] [--append WORDS] IMAGE

Needs the extra `vcpu`, and dtc (Debian: device-tree-compiler). IMAGE is an arm64 Image or a 32-bit zImage.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import mmap
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.uapi import arm32

DIST, CPU_INTERFACE, REDISTRIBUTORS, UART = 0x08000000, 0x08010000, 0x080A0000, 0x09000000
RAM, RAM_SIZE = 0x40000000, 0x10000000
DEVICE_TREE, INITRD = RAM + 0x08000000, RAM + 0x08100000
ARM64_MAGIC, ZIMAGE_MAGIC = b"ARM\x64", 0x016F2818

TREE = """/dts-v1/;
/ {{
    #address-cells = <2>; #size-cells = <2>; compatible = "linux,dummy-virt"; interrupt-parent = <&gic>;
    chosen {{ bootargs = "{arguments}"; linux,initrd-start = <0 {initrd}>; linux,initrd-end = <0 {initrd_end}>; }};
    memory@{ram:x} {{ device_type = "memory"; reg = <0 {ram} 0 {ram_size}>; }};
    cpus {{ #address-cells = <1>; #size-cells = <0>; {cpus} }};
    psci {{ compatible = "arm,psci-0.2"; method = "hvc"; }};
    timer {{
        compatible = "arm,armv{version}-timer"; always-on;
        interrupts = <1 13 0x304>, <1 14 0x304>, <1 11 0x304>, <1 10 0x304>;
    }};
    gic: interrupt-controller@{dist:x} {{
        compatible = "{gic}"; #interrupt-cells = <3>; interrupt-controller;
        reg = <0 {dist} 0 0x10000>, <0 {other} 0 {other_size}>;
    }};
    clock: clock {{ compatible = "fixed-clock"; #clock-cells = <0>; clock-frequency = <24000000>; }};
    serial@{uart:x} {{
        compatible = "arm,pl011", "arm,primecell"; arm,primecell-periphid = <0x00341011>;
        reg = <0 {uart} 0 0x1000>; interrupts = <0 1 4>;
        clocks = <&clock>, <&clock>; clock-names = "uartclk", "apb_pclk";
    }};
}};
"""
CPU = 'cpu@{n} {{ device_type = "cpu"; compatible = "arm,cortex-a{model}"; reg = <{n}>; enable-method = "psci"; }};'


class Vgic(NamedTuple):
    """One version: the KVM device, its second frame beside the distributor, and what the device tree says."""

    kind: int
    dist: int
    other: int
    other_at: int
    other_size: int
    compatible: str


VGICS = {
    "v2": Vgic(
        uapi.KVM_DEV_TYPE_ARM_VGIC_V2,
        uapi.KVM_VGIC_V2_ADDR_TYPE_DIST,
        uapi.KVM_VGIC_V2_ADDR_TYPE_CPU,
        CPU_INTERFACE,
        0x10000,
        "arm,cortex-a15-gic",
    ),
    "v3": Vgic(
        uapi.KVM_DEV_TYPE_ARM_VGIC_V3,
        uapi.KVM_VGIC_V3_ADDR_TYPE_DIST,
        uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST,
        REDISTRIBUTORS,
        0xF60000,
        "arm,gic-v3",
    ),
}


class Uart:
    """A PL011 that always has room; ``show`` gets each byte that the guest sends. It receives nothing."""

    DATA, FLAGS, RAW_STATUS, MASKED_STATUS = 0x00, 0x18, 0x3C, 0x40
    BOTH_EMPTY = 0x90

    def __init__(self, show: Callable[[bytes], object]) -> None:
        self.show = show
        self.registers = {self.FLAGS: self.BOTH_EMPTY}

    def read(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset == self.DATA:
            self.show(bytes((value & 0xFF,)))
        elif offset not in (self.FLAGS, self.RAW_STATUS, self.MASKED_STATUS):
            self.registers[offset] = value


class Machine:
    """``cpus`` vCPUs that start ``image``; the console goes to ``show``. ``gic``: a key of `VGICS`."""

    def __init__(
        self,
        kernel: Kernel,
        image: bytes,
        *,
        cpus: int,
        gic: str,
        initrd: bytes,
        append: str,
        show: Callable[[bytes], object],
    ) -> None:
        self.kernel = kernel
        self.is_32bit = kernel.host.profile.arch == "arm"
        self.uart = Uart(show)
        system = kernel.open("/dev/kvm")
        self.vm = kernel.ioctl(system, uapi.KVM_CREATE_VM)
        self.vcpus = [self.create_vcpu(number) for number in range(cpus)]
        self.vgic = VGICS[gic]
        self.create_vgic()
        self.ram = mmap.mmap(-1, RAM_SIZE)
        region = {"guest_phys_addr": RAM, "memory_size": RAM_SIZE, "userspace_addr": uapi.address(memoryview(self.ram))}
        kernel.ioctl(
            self.vm, uapi.KVM_SET_USER_MEMORY_REGION, uapi.pack("struct kvm_userspace_memory_region", **region)
        )
        entry = RAM + (0x8000 if self.is_32bit else 0x200000 + struct.unpack_from("<Q", image, 8)[0])
        self.load(entry, image)
        self.load(INITRD, initrd)
        self.load(DEVICE_TREE, self.device_tree(cpus, len(initrd), append))
        for number, value in self.start(entry).items():
            raw = bytearray(value.to_bytes(8, "little"))
            one = uapi.pack("struct kvm_one_reg", id=number, addr=uapi.address(raw))
            kernel.ioctl(self.vcpus[0], uapi.KVM_SET_ONE_REG, one)
        size = kernel.ioctl(system, uapi.KVM_GET_VCPU_MMAP_SIZE)
        self.pages = [kernel.mmap(vcpu, size) for vcpu in self.vcpus]
        self.runs: list[Any] = [uapi.ffi.from_buffer("struct kvm_run *", page) for page in self.pages]

    def create_vcpu(self, number: int) -> int:
        """All but the first wait for CPU_ON."""
        vcpu = self.kernel.ioctl(self.vm, uapi.KVM_CREATE_VCPU, number)
        init = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
        self.kernel.ioctl(self.vm, uapi.KVM_ARM_PREFERRED_TARGET, init)
        psci = arm32.KVM_ARM_VCPU_PSCI_0_2 if self.is_32bit else uapi.KVM_ARM_VCPU_PSCI_0_2
        features = 1 << psci | (number > 0) << uapi.KVM_ARM_VCPU_POWER_OFF
        uapi.view("struct kvm_vcpu_init", init).features[0] = features
        self.kernel.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, init)
        return int(vcpu)

    def create_vgic(self) -> None:
        """Its frames are where the device tree says."""
        create = uapi.pack("struct kvm_create_device", type=self.vgic.kind)
        self.kernel.ioctl(self.vm, uapi.KVM_CREATE_DEVICE, create)
        device = uapi.view("struct kvm_create_device", create).fd
        group = uapi.KVM_DEV_ARM_VGIC_GRP_ADDR
        for frame, address in ((self.vgic.dist, DIST), (self.vgic.other, self.vgic.other_at)):
            raw = bytearray(address.to_bytes(8, "little"))
            attr = uapi.pack("struct kvm_device_attr", group=group, attr=frame, addr=uapi.address(raw))
            self.kernel.ioctl(device, uapi.KVM_SET_DEVICE_ATTR, attr)
        group, init = uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT
        attr = uapi.pack("struct kvm_device_attr", group=group, attr=init)
        with contextlib.suppress(OSError):  # the oldest kernels have no such attribute: the first KVM_RUN does it
            self.kernel.ioctl(device, uapi.KVM_HAS_DEVICE_ATTR, attr)
            self.kernel.ioctl(device, uapi.KVM_SET_DEVICE_ATTR, attr)

    def load(self, address: int, data: bytes) -> None:
        """Put ``data`` into guest memory."""
        self.ram[address - RAM : address - RAM + len(data)] = data

    def device_tree(self, cpus: int, initrd: int, append: str) -> bytes:
        """What Linux is told of this machine."""
        model, version = (15, 7) if self.is_32bit else (72, 8)
        text = TREE.format(
            arguments=f"console=ttyAMA0 earlycon=pl011,{UART:#x} panic=-1 {append}".strip(),
            initrd=INITRD,
            initrd_end=INITRD + initrd,
            ram=RAM,
            ram_size=RAM_SIZE,
            cpus=" ".join(CPU.format(n=n, model=model) for n in range(cpus)),
            version=version,
            dist=DIST,
            other=self.vgic.other_at,
            other_size=self.vgic.other_size,
            gic=self.vgic.compatible,
            uart=UART,
        )
        if not initrd:
            text = text.replace(f"linux,initrd-start = <0 {INITRD}>; linux,initrd-end = <0 {INITRD}>;", "")
        return subprocess.run(
            ["dtc", "-q", "-O", "dtb"], input=text.encode(), stdout=subprocess.PIPE, check=True
        ).stdout

    def start(self, entry: int) -> dict[int, int]:
        """Register numbers and values as Linux wants them (Documentation/arm64/booting.rst, arm/booting.rst)."""
        if self.is_32bit:
            core = uapi.KVM_REG_ARM | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_CORE | arm32.KVM_REGS["usr_regs"]
            return {core + 1: 0xFFFFFFFF, core + 2: DEVICE_TREE, core + 15: entry}
        core = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE
        x0, pc = (uapi.ffi.offsetof("struct kvm_regs", "regs", name) // 4 for name in ("regs", "pc"))
        return {core | x0: DEVICE_TREE, core | pc: entry}

    def run(self) -> int:
        """Until the guest switches the machine off or resets it: KVM_SYSTEM_EVENT_*."""
        calls = [self.kernel.start(vcpu, uapi.KVM_RUN) for vcpu in self.vcpus]
        while True:
            self.kernel.run(1)
            for number, call in enumerate(calls):
                if not call.done:
                    continue
                if call.error is not None:
                    raise call.error.oserror()
                run = self.runs[number]
                if run.exit_reason == uapi.KVM_EXIT_SYSTEM_EVENT:
                    for other in calls:
                        other.interrupt()
                    return int(run.system_event.type)
                self.access(run)
                calls[number] = self.kernel.start(self.vcpus[number], uapi.KVM_RUN)

    def access(self, run: Any) -> None:
        """An exit that is not the last one: of the serial port, or of nothing."""
        offset = run.mmio.phys_addr - UART
        if run.exit_reason != uapi.KVM_EXIT_MMIO or not 0 <= offset < 0x1000:
            raise OSError(errno.ENXIO, f"exit {run.exit_reason}, address {run.mmio.phys_addr:#x}")
        if run.mmio.is_write:
            self.uart.write(offset, int.from_bytes(bytes(run.mmio.data)[: run.mmio.len], "little"))
        else:
            uapi.ffi.memmove(run.mmio.data, self.uart.read(offset).to_bytes(8, "little"), 8)


def profile_of(image: bytes) -> str:
    """The host that executes it. ValueError: neither an arm64 Image nor a zImage."""
    if image[0x38:0x3C] == ARM64_MAGIC:
        return "linux-6.12"
    if len(image) > 0x28 and struct.unpack_from("<I", image, 0x24)[0] == ZIMAGE_MAGIC:
        return "rfc-2014-arm"
    raise ValueError("neither an arm64 Image nor a 32-bit zImage; a compressed Image has to be unpacked")


def main() -> None:
    """Boot, and show the console."""
    parser = argparse.ArgumentParser(description="Boot Linux on vCPUs that execute machine code.")
    parser.add_argument("image", type=Path, help="an arm64 Image, or a 32-bit zImage")
    parser.add_argument("--cpus", type=int, default=1, help="how many vCPUs (default 1)")
    parser.add_argument("--gic", choices=VGICS, default="v2", help="the interrupt controller (default v2)")
    parser.add_argument("--initrd", type=Path, help="an initial file system")
    parser.add_argument("--append", default="", help="further words for the kernel's command line")
    asked = parser.parse_args()
    image = asked.image.read_bytes()
    initrd = asked.initrd.read_bytes() if asked.initrd else b""

    def show(byte: bytes) -> None:
        sys.stdout.buffer.write(byte)
        sys.stdout.buffer.flush()

    with Kernel(profile_of(image), "calxeda-midway", gic=int(asked.gic[1:])) as kernel:
        machine = Machine(kernel, image, cpus=asked.cpus, gic=asked.gic, initrd=initrd, append=asked.append, show=show)
        event = machine.run()
    print("reset" if event == uapi.KVM_SYSTEM_EVENT_RESET else "switched off")


if __name__ == "__main__":
    main()
