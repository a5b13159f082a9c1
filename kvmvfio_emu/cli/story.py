"""The story that the demo tells: a small VMM that assigns an xgmac, forwards its interrupt or not, and counts.

Everything here is what a VMM does on a real kernel, in the same order with the same structs; only `Kernel` stands
for the operating system. Read it as an example.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field

from kvmvfio_emu import uapi
from kvmvfio_emu.doors.inprocess import Kernel
from kvmvfio_emu.guest.base import GuestProgram
from kvmvfio_emu.guest.xgmac import GIC_CPU, GIC_DISTRIBUTOR, GSI, REGISTERS, program
from kvmvfio_emu.hw.devices.xgmac import Xgmac
from kvmvfio_emu.view.record import Recorder
from kvmvfio_emu.view.sink import Record

DEVICE = "fff51000.ethernet"

#: What is counted of one interrupt, in the order in which people read it.
COUNTERS = (
    "vmexit_irq",
    "vmexit_kick",
    "vmexit_maint",
    "host_irq",
    "host_irq_lazy",
    "host_irq_maint",
    "eventfd_trigger",
    "eventfd_resample",
    "work",
    "gicd_mask",
    "gicd_unmask",
    "set_irq",
    "resample_ack",
    "vmentry",
    "guest_iar",
    "guest_eoi",
    "hw_deactivate",
)


@dataclass
class Telling:
    """What happened: the counters of each interrupt, and the steps of the first."""

    counters: list[dict[str, int]] = field(default_factory=list)
    steps: list[Record] = field(default_factory=list)

    def one(self) -> dict[str, int]:
        """The counters of one interrupt; all of them must agree, or there is no such thing."""
        first = self.counters[0]
        for number, other in enumerate(self.counters):
            if other != first:
                raise AssertionError(f"interrupt {number} took {other}, the first one {first}")
        return first


def tell(kernel: Kernel, *, forward: bool, interrupts: int) -> Telling:
    """Run ``interrupts`` level interrupts through ``kernel``, forwarded or not."""
    return Vmm(kernel, forward=forward).run(interrupts)


class Vmm:
    """The VMM. Descriptors stay open until the end, as in a program that lives as long as its guest."""

    def __init__(self, kernel: Kernel, *, forward: bool, irqs: int = 256, guest: GuestProgram | None = None) -> None:
        self.kernel = kernel
        self.guest = guest or program(0)  #: what the vCPU executes
        self.irqs = irqs  #: interrupts of the virtual controller
        self.control: int | None = None
        self.trigger = os.eventfd(0, os.EFD_NONBLOCK)
        self.resample = os.eventfd(0, os.EFD_NONBLOCK)
        self.container = kernel.open("/dev/vfio/vfio")
        self.groups: list[int] = []
        self.device = self.open_device(DEVICE, kernel.device(DEVICE).spec.group)
        self.vm, self.vcpu = self.create_vm()
        self.map_registers()
        if forward:
            self.forward(self.device, 0, GSI)  # before anything is signalled: in flight, the later drafts refuse it
        self.connect()

    def open_device(self, name: str, number: int) -> int:
        """Group ``number`` into the container (the first one brings the IOMMU), then device ``name`` of it."""
        kernel, container = self.kernel, bytearray(self.container.to_bytes(4, "little"))
        group = kernel.open(f"/dev/vfio/{number}")
        kernel.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, container)
        if not self.groups:
            kernel.ioctl(self.container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
        self.groups.append(group)
        device: int = kernel.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, bytearray(name.encode() + b"\0"))
        return device

    def set_irqs(self, device: int, action: int, eventfd: int) -> None:
        """Tie ``eventfd`` to an action of the device's main interrupt."""
        size = uapi.sizeof("struct vfio_irq_set") + 4
        flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | action
        header = uapi.pack("struct vfio_irq_set", argsz=size, flags=flags, count=1)
        self.kernel.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, header + eventfd.to_bytes(4, "little"))

    def create_vm(self) -> tuple[int, int]:
        """A virtual machine with a VGICv2, and its first vCPU."""
        kernel = self.kernel
        self.kvm = kernel.open("/dev/kvm")
        vm = kernel.ioctl(self.kvm, uapi.KVM_CREATE_VM)
        vcpu = self.create_vcpus(vm)[0]
        self.vgic = self.create_device(vm, uapi.KVM_DEV_TYPE_ARM_VGIC_V2)
        for frame, address in (
            (uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, GIC_DISTRIBUTOR),
            (uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, GIC_CPU),
        ):
            self.set_attr(self.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, frame, address.to_bytes(8, "little"))
        self.set_attr(self.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, self.irqs.to_bytes(4, "little"))
        if self.has_attr(self.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT):
            self.set_attr(self.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT, b"")
        return vm, vcpu

    def create_vcpus(self, vm: int) -> list[int]:
        """One that executes the guest's program."""
        kernel = self.kernel
        assert self.guest is not None
        kernel.attach_guest(0, self.guest)
        vcpu = kernel.ioctl(vm, uapi.KVM_CREATE_VCPU, 0)
        target = uapi.pack("struct kvm_vcpu_init")
        kernel.ioctl(vm, uapi.KVM_ARM_PREFERRED_TARGET, target)
        kernel.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, target)
        return [vcpu]

    def create_device(self, vm: int, device_type: int) -> int:
        """An in-kernel device."""
        create = uapi.pack("struct kvm_create_device", type=device_type)
        self.kernel.ioctl(vm, uapi.KVM_CREATE_DEVICE, create)
        return int(uapi.view("struct kvm_create_device", create).fd)

    def set_attr(self, device: int, group: int, attr: int, payload: bytes) -> None:
        """KVM_SET_DEVICE_ATTR; the payload is passed by address, as in C."""
        data = bytearray(payload)
        attribute = uapi.pack("struct kvm_device_attr", group=group, attr=attr, addr=uapi.address(data))
        self.kernel.ioctl(device, uapi.KVM_SET_DEVICE_ATTR, attribute)

    def has_attr(self, device: int, group: int, attr: int) -> bool:
        """KVM_HAS_DEVICE_ATTR: how a VMM learns what the kernel can do."""
        try:
            attribute = uapi.pack("struct kvm_device_attr", group=group, attr=attr)
            self.kernel.ioctl(device, uapi.KVM_HAS_DEVICE_ATTR, attribute)
        except OSError:
            return False
        return True

    def map_registers(self) -> None:
        """Give the guest the device's registers, as memory: its accesses do not exit. Map what it shares with KVM."""
        self.registers = self.map_device(self.device, 0)
        size = self.kernel.ioctl(self.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
        self.run_page = self.kernel.mmap(self.vcpu, size)

    def map_device(self, device: int, slot: int) -> mmap.mmap:
        """Region 0 of ``device`` as the guest's memory slot ``slot``, one page after another."""
        info = uapi.pack("struct vfio_region_info", argsz=uapi.sizeof("struct vfio_region_info"), index=0)
        self.kernel.ioctl(device, uapi.VFIO_DEVICE_GET_REGION_INFO, info)
        region = uapi.view("struct vfio_region_info", info)
        registers = self.kernel.mmap(device, region.size, offset=region.offset)
        memory = uapi.pack(
            "struct kvm_userspace_memory_region",
            slot=slot,
            guest_phys_addr=REGISTERS + slot * 0x1000,
            memory_size=region.size,
            userspace_addr=uapi.address(memoryview(registers)),
        )
        self.kernel.ioctl(self.vm, uapi.KVM_SET_USER_MEMORY_REGION, memory)
        return registers

    def connect(self) -> None:
        """The device's eventfds become a guest interrupt and its end."""
        self.tie(self.device, self.trigger, self.resample, GSI)

    def tie(self, device: int, trigger: int, resample: int, gsi: int) -> None:
        """Two eventfds between ``device`` and ``gsi``: irqfd with resampling."""
        irqfd = uapi.pack(
            "struct kvm_irqfd",
            fd=trigger,
            gsi=gsi,
            flags=uapi.KVM_IRQFD_FLAG_RESAMPLE,
            resamplefd=resample,
        )
        self.kernel.ioctl(self.vm, uapi.KVM_IRQFD, irqfd)
        self.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, resample)
        self.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_TRIGGER, trigger)

    def forward_all(self, name: str, number: int) -> None:
        """Forward every interrupt of device ``name``, in IOMMU group ``number``."""
        device = self.open_device(name, number)
        for index, interrupt in enumerate(self.kernel.device(name).spec.interrupts):
            self.forward(device, index, interrupt.spi)

    def forward(self, device: int, index: int, gsi: int) -> None:
        """The subject of it all: let the guest's EOI complete the physical interrupt."""
        if self.control is None:
            self.control = self.create_device(self.vm, uapi.KVM_DEV_TYPE_VFIO)
        if self.kernel.host.profile.forward_struct == "struct kvm_arch_forwarded_irq":
            payload = uapi.pack("struct kvm_arch_forwarded_irq", fd=device, index=index, gsi=gsi)
        else:  # drafts 4 to 6 take a list of gsis
            size = uapi.sizeof("struct kvm_vfio_dev_irq") + 4
            payload = uapi.pack("struct kvm_vfio_dev_irq", argsz=size, fd=device, index=index, start=0, count=1)
            payload += gsi.to_bytes(4, "little")
        group, attr = uapi.KVM_DEV_VFIO_DEVICE, uapi.KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ
        self.set_attr(self.control, group, attr, bytes(payload))

    def run(self, interrupts: int) -> Telling:
        """KVM_RUN until the guest has handled them all; a frame arrives while it computes."""
        kernel, telling = self.kernel, Telling()
        hardware = kernel.device(DEVICE)
        assert isinstance(hardware, Xgmac)
        kernel.ioctl(self.vcpu, uapi.KVM_RUN)  # until the driver is ready
        for number in range(interrupts):
            before = dict(kernel.counters)
            stop = kernel.listen(Recorder(kernel.host, telling.steps.append)) if number == 0 else None
            kernel.after(5000, hardware.raise_interrupt)
            kernel.ioctl(self.vcpu, uapi.KVM_RUN)
            if stop is not None:
                stop()
            telling.counters.append({name: kernel.counters[name] - before.get(name, 0) for name in COUNTERS})
        return telling
