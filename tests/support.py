"""What tests of the in-process door share: a client of an emulated kernel, a board, pages that end in nothing."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pytest

from kvmvfio_emu import Kernel, profiles, uapi
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, RegionSpec
from kvmvfio_emu.kernel.kvm.vfio import KvmVfio

NIC, UART, AMBA, PCI = "10000000.nic", "10010000.uart", "10020000.pl330", "0000:00:01.0"
DIST, CPU = uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, uapi.KVM_VGIC_V2_ADDR_TYPE_CPU
ADDR, DIST_REGS, CPU_REGS, NR_IRQS, CTRL = (
    uapi.KVM_DEV_ARM_VGIC_GRP_ADDR,
    uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
    uapi.KVM_DEV_ARM_VGIC_GRP_CPU_REGS,
    uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    uapi.KVM_DEV_ARM_VGIC_GRP_CTRL,
)
DIST_BASE, CPU_BASE = 0x08000000, 0x08010000
GROUP, GROUP_ADD, GROUP_DEL = (
    uapi.KVM_DEV_VFIO_GROUP,
    uapi.KVM_DEV_VFIO_GROUP_ADD,
    uapi.KVM_DEV_VFIO_GROUP_DEL,
)
DEVICE, ASSIGN, DEASSIGN = (
    uapi.KVM_DEV_VFIO_DEVICE,
    uapi.KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ,
    uapi.KVM_DEV_VFIO_DEVICE_DEASSIGN_IRQ,
)
#: Pointers that no program has: NULL, and two that are mapped nowhere.
BAD_POINTERS = [0, 0x10, (1 << 64) - 1]
#: A descriptor number that is certainly closed.
CLOSED = 0x7FFF


def _device(name: str, group: int, spis: list[InterruptSpec], **more: Any) -> DeviceSpec:
    return DeviceSpec(
        name,
        "none",
        group,
        regions=(RegionSpec(0x10000000 + (group << 16), 0x1000),),
        interrupts=tuple(spis),
        **more,
    )


BOARD = Board(
    name="kvm-tests",
    cpus=2,
    devices=(
        _device(NIC, 1, [InterruptSpec(77), InterruptSpec(78), InterruptSpec(79, level=False)]),
        _device(UART, 2, [InterruptSpec(40)]),
        _device(AMBA, 3, [InterruptSpec(41)], bus="amba", driver="vfio-amba"),
        # A stand-in for vfio-pci: what matters to KVM is the bus that the device is on.
        _device(PCI, 4, [InterruptSpec(42)], bus="pci"),
    ),
)


class Edge:
    """Memory whose last byte is at the end of the world: the page behind it is not accessible."""

    #: An address alone keeps no memory alive, so all of them live on.
    _kept: ClassVar[list[Edge]] = []

    def __init__(self, *, writable: bool = True) -> None:
        self._map = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.end = self._start + mmap.PAGESIZE
        self._writable = writable
        self._kept.append(self)
        self._protect(self.end, 0)

    def put(self, data: bytes | bytearray, *, beyond: int = 0) -> int:
        """Place ``data`` at the very end, or with its last ``beyond`` bytes over the end; its address."""
        address = self.end - len(data) + beyond
        self._protect(self._start, mmap.PROT_READ | mmap.PROT_WRITE)
        ctypes.memmove(address, bytes(data[: len(data) - beyond]), len(data) - beyond)
        if not self._writable:
            self._protect(self._start, mmap.PROT_READ)
        return address

    @staticmethod
    def _protect(address: int, protection: int) -> None:
        libc = ctypes.CDLL(None)
        assert not libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, protection)


def descriptors_of(kernel: Kernel) -> list[int]:
    """All open descriptors of its files, but not those that it keeps for itself."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if kernel._by_cookie(os.lseek(int(name), 0, os.SEEK_CUR)) is not None:
                found.append(int(name))
    return found


class Client:
    """A kernel and a program that uses it. Each method is one call, made as a C program makes it."""

    def __init__(self, profile: str = profiles.DEFAULT, board: Board = BOARD, **changes: Any) -> None:
        self.kernel = Kernel(dataclasses.replace(profiles.load(profile), **changes), board)
        self.host = self.kernel.host
        self.ioctl = self.kernel.ioctl
        self.close = self.kernel.close
        self.vcpus: list[int] = []  #: in the order of their creation, of all virtual machines
        self._kvm: int | None = None
        self._eventfds: list[int] = []
        self._alive: list[Any] = []

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close all that is open; then nothing may be left, and nothing may contradict itself."""
        self.kernel.check()
        for fd in self.descriptors():
            self.kernel.close(fd)
        self.kernel.check()
        assert self.kernel.open_files() == []
        assert self.host.eventfds.held() == [], "the kernel kept an eventfd"
        assert not [desc for desc in self.host.irqs.descs.values() if desc.forwarded]
        self.kernel.close_kernel()
        for fd in self._eventfds:
            os.close(fd)

    def descriptors(self) -> list[int]:
        """All open descriptors of this kernel's files, but not those that the kernel keeps for itself."""
        return descriptors_of(self.kernel)

    # -- errors --------------------------------------------------------------------------------------------------

    def refused(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """``call`` fails with that errno, and leaves the kernel as it was."""
        before = self.state()
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is asserted by its name
            call(*args, **kwargs)
        assert errno.errorcode[caught.value.errno or 0] == name, caught.value.__notes__
        assert self.state() == before
        self.kernel.check()

    def state(self) -> list[Any]:
        """All that a call could change and that a refused one must not."""
        state: list[Any] = [self.kernel.open_files()]
        for vm in self.host.modules["kvm"].vms:
            vgic = vm.vgic
            state += [
                [(vcpu.number, vcpu.initialized, vcpu.signal_mask, vcpu.inputs) for vcpu in vm.vcpus],
                [(device.name, isinstance(device, KvmVfio) and len(device.groups)) for device in vm.devices],
                dict(vm.memory._slots),
                [(irqfd.eventfd, irqfd.gsi) for irqfd in vm.irqfds.active],
                {gsi: len(listeners) for gsi, listeners in vm.ack_notifiers.items()},
                list(vm.bus._doorbells),
                dict(vm.routing._table or {}),
                vgic
                and (
                    vgic.dist_base,
                    getattr(vgic, "cpu_base", None),
                    list(map(repr, getattr(vgic, "physmap", ()))),
                    repr(getattr(getattr(vgic, "redistributors", None), "regions", [])),
                ),
            ]
        state.append([desc.forwarded for desc in self.host.irqs.descs.values()])
        for group in getattr(self.host.modules.get("vfio"), "groups", {}).values():
            state.append((group.refs, group.container_users, group.external_users))
            state += [(device.refs, device.external_users) for device in group.devices.values()]
        return state

    # -- memory --------------------------------------------------------------------------------------------------

    def pointer(self, data: bytes | bytearray) -> int:
        """The address of a copy of ``data`` that lives as long as the client."""
        memory = uapi.ffi.new("char[]", bytes(data))
        self._alive.append(memory)
        return int(uapi.ffi.cast("uintptr_t", memory))

    def call(self, fd: int, request: int, struct: str, /, **fields: int) -> Any:
        """An ioctl with a struct of these fields; the struct as the kernel left it."""
        buffer = uapi.pack(f"struct {struct}", **fields)
        self.ioctl(fd, request, buffer)
        return uapi.view(f"struct {struct}", buffer)

    # -- KVM -----------------------------------------------------------------------------------------------------

    @property
    def kvm(self) -> int:
        """/dev/kvm."""
        if self._kvm is None:
            self._kvm = self.kernel.open("/dev/kvm")
        return self._kvm

    def vm(self) -> int:
        """A new virtual machine."""
        return int(self.ioctl(self.kvm, uapi.KVM_CREATE_VM))

    def vcpu(self, vm: int, number: int = 0, *, init: bool = False) -> int:
        """A new vCPU; with ``init`` also KVM_ARM_VCPU_INIT."""
        vcpu = int(self.ioctl(vm, uapi.KVM_CREATE_VCPU, number))
        self.vcpus.append(vcpu)
        if init:
            target = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
            self.ioctl(vm, uapi.KVM_ARM_PREFERRED_TARGET, target)
            self.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, target)
        return vcpu

    @contextmanager
    def run_page(self, vcpu: int) -> Iterator[Any]:
        """The ``struct kvm_run`` that is shared with a vCPU; the mapping holds its file as long as it lasts."""
        page = self.kernel.mmap(vcpu, self.ioctl(self.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE))
        held = uapi.ffi.from_buffer("struct kvm_run *", page)
        yield held
        uapi.ffi.release(held)
        page.close()

    def create_device(self, vm: int, kind: int, flags: int = 0) -> int:
        """KVM_CREATE_DEVICE; what the kernel left in the field ``fd``, which was all ones before."""
        fields = {"type": kind, "fd": 0xFFFFFFFF, "flags": flags}
        return int(self.call(vm, uapi.KVM_CREATE_DEVICE, "kvm_create_device", **fields).fd)

    def vgic(self, vm: int) -> int:
        """A VGICv2."""
        return self.create_device(vm, uapi.KVM_DEV_TYPE_ARM_VGIC_V2)

    def kvm_vfio(self, vm: int) -> int:
        """A KVM-VFIO device."""
        return self.create_device(vm, uapi.KVM_DEV_TYPE_VFIO)

    def machine(self, vcpus: int = 1) -> tuple[int, int]:
        """(VM, VGIC) with vCPUs that are ready to run and frames that have addresses."""
        vm = self.vm()
        for number in range(vcpus):
            self.vcpu(vm, number, init=True)
        vgic = self.vgic(vm)
        self.set_u64(vgic, ADDR, DIST, DIST_BASE)
        self.set_u64(vgic, ADDR, CPU, CPU_BASE)
        return vm, vgic

    def attr(self, fd: int, request: int, group: int, attr: int, addr: int = 0, flags: int = 0) -> int:
        """KVM_{SET,GET,HAS}_DEVICE_ATTR."""
        fields = {"group": group, "attr": attr, "addr": addr, "flags": flags}
        return int(self.ioctl(fd, request, uapi.pack("struct kvm_device_attr", **fields)))

    def has(self, fd: int, group: int, attr: int, addr: int = 0) -> int:
        """KVM_HAS_DEVICE_ATTR."""
        return self.attr(fd, uapi.KVM_HAS_DEVICE_ATTR, group, attr, addr)

    def set_at(self, fd: int, group: int, attr: int, addr: int) -> int:
        """KVM_SET_DEVICE_ATTR with the payload at an address."""
        return self.attr(fd, uapi.KVM_SET_DEVICE_ATTR, group, attr, addr)

    def get_at(self, fd: int, group: int, attr: int, addr: int) -> int:
        """KVM_GET_DEVICE_ATTR with the payload at an address."""
        return self.attr(fd, uapi.KVM_GET_DEVICE_ATTR, group, attr, addr)

    def set_u32(self, fd: int, group: int, attr: int, value: int) -> int:
        """KVM_SET_DEVICE_ATTR with a u32."""
        return self.set_at(fd, group, attr, self.pointer(value.to_bytes(4, "little")))

    def set_u64(self, fd: int, group: int, attr: int, value: int) -> int:
        """KVM_SET_DEVICE_ATTR with a u64."""
        return self.set_at(fd, group, attr, self.pointer(value.to_bytes(8, "little")))

    def get(self, fd: int, group: int, attr: int, size: int = 4) -> int:
        """KVM_GET_DEVICE_ATTR of ``size`` bytes."""
        buffer = bytearray(size)
        with pinned(buffer) as address:
            self.get_at(fd, group, attr, address)
        return int.from_bytes(buffer, "little")

    def irq_line(self, vm: int, kind: int, number: int, level: int, vcpu: int = 0) -> None:
        """KVM_IRQ_LINE; ``kind`` as in bits 24 to 31."""
        self.call(vm, uapi.KVM_IRQ_LINE, "kvm_irq_level", irq=kind << 24 | vcpu << 16 | number, level=level)

    def irqfd(self, vm: int, fd: int, gsi: int, flags: int = 0, resamplefd: int = 0) -> None:
        """KVM_IRQFD; descriptors as the 32 bits that C passes."""
        fields = {"fd": fd & 0xFFFFFFFF, "gsi": gsi, "flags": flags, "resamplefd": resamplefd & 0xFFFFFFFF}
        self.call(vm, uapi.KVM_IRQFD, "kvm_irqfd", **fields)

    def eventfd(self, value: int = 0) -> int:
        """A new eventfd, closed at the end."""
        self._eventfds.append(os.eventfd(value, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        return self._eventfds[-1]

    # -- VFIO ----------------------------------------------------------------------------------------------------

    def container(self) -> int:
        """/dev/vfio/vfio."""
        return self.kernel.open("/dev/vfio/vfio")

    def group(self, number: int = 1, *, iommu: bool = True) -> int:
        """/dev/vfio/N in a container of its own, which with ``iommu`` has an IOMMU."""
        group, container = self.kernel.open(f"/dev/vfio/{number}"), self.container()
        self.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, bytearray(container.to_bytes(4, "little")))
        if iommu:
            self.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
        return group

    def device(self, name: str = NIC, group: int | None = None) -> int:
        """A VFIO device; of an open ``group``, or its group is opened, too."""
        if group is None:
            group = self.group(next(one.group for one in self.host.machine.board.devices if one.name == name))
        return int(self.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, bytearray(name.encode() + b"\0")))

    def set_irqs(self, device: int, action: int, eventfd: int, index: int = 0) -> None:
        """VFIO_DEVICE_SET_IRQS with one eventfd, -1 for none."""
        header = uapi.pack(
            "struct vfio_irq_set",
            argsz=24,
            flags=uapi.VFIO_IRQ_SET_DATA_EVENTFD | action,
            index=index,
            count=1,
        )
        self.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, header + eventfd.to_bytes(4, "little", signed=True))

    def forward(self, control: int, attr: int, fd: int, index: int = 0, gsi: int = 80) -> None:
        """ASSIGN_IRQ or DEASSIGN_IRQ, in the form of the RFC."""
        fields = {"fd": fd & 0xFFFFFFFF, "index": index, "gsi": gsi}
        payload = self.pointer(uapi.pack("struct kvm_arch_forwarded_irq", **fields))
        self.set_at(control, DEVICE, attr, payload)


@contextmanager
def pinned(buffer: bytearray) -> Iterator[int]:
    """The address of ``buffer``."""
    held = uapi.ffi.from_buffer(buffer)
    yield int(uapi.ffi.cast("uintptr_t", held))
    uapi.ffi.release(held)
