"""A small board, a VMM on it and guests on strings: what the scenario tests share.

A guest does nothing but spin until the test says what it is to do next, so a test can stop
a scenario between any two steps.
"""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.doors.inprocess import Kernel
from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.guest import Cpu, Script, read, wait_for_interrupt, work, write
from kvmvfio_emu.guest.script import Operation, Routine
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, RegionSpec
from kvmvfio_emu.hw.gich import LR_STATE, lr_text
from kvmvfio_emu.kernel.irq import IrqDesc
from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic
from kvmvfio_emu.kernel.kvm.vgic.state import VirtualIrq
from kvmvfio_emu.kernel.vfio.group import VfioGroup
from kvmvfio_emu.kernel.vfio.platform_irq import PlatformIrq

DIST, CPU = 0x08000000, 0x08010000
DOORBELL = 0x0D000000  #: a guest access there ends KVM_RUN
GSI = 10
NET, DISK, AMBA, PCI = "1000.net", "2000.disk", "3000.amba", "0000:01:00.0"

MASK, UNMASK, TRIGGER = (
    uapi.VFIO_IRQ_SET_ACTION_MASK,
    uapi.VFIO_IRQ_SET_ACTION_UNMASK,
    uapi.VFIO_IRQ_SET_ACTION_TRIGGER,
)

BOARD = Board(
    name="rig",
    devices=(
        DeviceSpec(NET, "none", 1, interrupts=(InterruptSpec(77), InterruptSpec(78), InterruptSpec(79))),
        DeviceSpec(DISK, "none", 2, interrupts=(InterruptSpec(80),), regions=(RegionSpec(0x2000, 0x1000),)),
        DeviceSpec(AMBA, "none", 3, bus="amba", driver="vfio-amba", interrupts=(InterruptSpec(81),)),
        DeviceSpec(PCI, "none", 4, bus="pci", interrupts=(InterruptSpec(82),)),
    ),
)

Step = Operation | Callable[[], object]


class Guest:
    """One vCPU and its KVM_RUN. The program executes what `do` is given, and spins otherwise."""

    def __init__(self, vm: Vm, number: int) -> None:
        self.vm = vm
        self.kernel = vm.rig.kernel
        self.host = vm.rig.host
        self.todo: deque[Step] = deque()
        self.results: list[Any] = []
        self.fd: int = self.kernel.ioctl(vm.fd, uapi.KVM_CREATE_VCPU, number)
        vm.rig.fds.append(self.fd)
        self.model = vm.model.vcpus[-1]
        script = Script(self._main, distributor=DIST, interface=CPU)
        self.cpu: Cpu = script.cpu
        self.model.program = script
        self.call: Any = None
        target = uapi.pack("struct kvm_vcpu_init")
        self.kernel.ioctl(vm.fd, uapi.KVM_ARM_PREFERRED_TARGET, target)
        self.kernel.ioctl(self.fd, uapi.KVM_ARM_VCPU_INIT, target)

    def _main(self, cpu: Cpu) -> Routine:
        while True:
            if not self.todo:
                yield work(1)
                continue
            step = self.todo.popleft()
            self.results.append(step() if callable(step) else (yield step))

    # -- KVM_RUN -----------------------------------------------------------------------------------------------

    def start(self) -> Guest:
        """Begin KVM_RUN; the guest is entered at the first slice."""
        assert self.call is None or self.call.done, "it runs already"
        self.call = self.kernel.start(self.fd, uapi.KVM_RUN)
        return self

    def stop(self) -> None:
        """A signal ends KVM_RUN."""
        self.call.interrupt()
        self.host.settle()

    @property
    def blocked(self) -> bool:
        """Whether it sits in WFI."""
        return self.model.blocked

    def slice(self, count: int = 1) -> None:
        """Let it run for some slices, the host's deferred work between them."""
        for _ in range(count):
            self.call.advance()
            self.host.settle()
            self.host.check()

    def do(self, *steps: Step) -> Any:
        """Let the guest execute ``steps`` and then spin, at least a whole slice. The result of the last step.

        A step is an operation or a function, called at its moment (what a passthrough register write would cause).
        """
        self.todo.extend(steps)
        wanted = len(self.results) + len(steps)
        for _ in range(50):
            if len(self.results) >= wanted or self.call.done or self.blocked:
                break
            self.slice()
        else:
            raise AssertionError("the guest does not get on")
        if not self.call.done and not self.blocked:
            self.slice()
        return self.results[-1] if self.results else None

    # -- what drivers do -----------------------------------------------------------------------------------------

    def boot(self, *spis: int, eoi_mode: int = 0, target: int = 0) -> None:
        """Enable the interrupt controller (and route ``spis`` to vCPU ``target``, and enable them)."""
        steps: list[Step] = [write(DIST, 1), write(CPU + 4, 0xFF), write(CPU, 1 | eoi_mode << 9)]
        for spi in spis:
            steps += [write(DIST + 0x800 + spi, 1 << target, 1), self.enabling(spi)]
        self.do(*steps)

    def enabling(self, spi: int) -> Operation:
        """The write to GICD_ISENABLER."""
        return write(DIST + 0x100 + spi // 32 * 4, 1 << spi % 32)

    def ack(self) -> int:
        """GICC_IAR."""
        value: int = self.do(self.cpu.acknowledge())
        return value

    def eoi(self, irq: int) -> None:
        """GICC_EOIR."""
        self.do(self.cpu.end_of_interrupt(irq))

    def dir(self, irq: int) -> None:
        """GICC_DIR."""
        self.do(self.cpu.deactivate(irq))

    def wfi(self) -> None:
        """WFI."""
        self.do(wait_for_interrupt())

    @property
    def lrs(self) -> list[str]:
        """The list registers in use, in words."""
        return [lr_text(lr) for lr in self.model.interface.lr if lr & LR_STATE]


class Vm:
    """A virtual machine with VGIC, as a VMM sees it, and the model behind it (``model``, ``vgic``)."""

    def __init__(self, rig: Rig, *, vcpus: int = 1, irqs: int | None = None) -> None:
        self.rig = rig
        self.kernel = rig.kernel
        self.fd: int = self.kernel.ioctl(rig.kvm, uapi.KVM_CREATE_VM)
        rig.fds.append(self.fd)
        self.model = rig.vms[-1]
        self.guests = [Guest(self, number) for number in range(vcpus)]
        self.vgic_fd = self.create_device(uapi.KVM_DEV_TYPE_ARM_VGIC_V2)
        if irqs is not None:
            self.set_attr(self.vgic_fd, uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, irqs.to_bytes(4, "little"))
        for frame, address in ((uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, DIST), (uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, CPU)):
            self.set_attr(self.vgic_fd, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, frame, address.to_bytes(8, "little"))
        self._control: int | None = None

    @property
    def vgic(self) -> Vgic:
        """The model's VGIC."""
        return self.model.require_vgic()

    def v(self, gsi: int = GSI) -> VirtualIrq:
        """The virtual interrupt of ``gsi``."""
        return self.vgic.irq(0, gsi + 32)

    # -- devices ---------------------------------------------------------------------------------------------------

    def create_device(self, kind: int, flags: int = 0) -> int:
        """KVM_CREATE_DEVICE."""
        create = uapi.pack("struct kvm_create_device", type=kind, flags=flags)
        self.kernel.ioctl(self.fd, uapi.KVM_CREATE_DEVICE, create)
        fd: int = uapi.view("struct kvm_create_device", create).fd
        if not flags:
            self.rig.fds.append(fd)
        return fd

    def attr(self, verb: int, fd: int, group: int, attr: int, address: int = 0) -> int:
        """An attribute ioctl with a pointer."""
        packed = uapi.pack("struct kvm_device_attr", group=group, attr=attr, addr=address)
        result: int = self.kernel.ioctl(fd, verb, packed)
        return result

    def set_attr(self, fd: int, group: int, attr: int, payload: bytes) -> None:
        """KVM_SET_DEVICE_ATTR."""
        data = uapi.ffi.new("char[]", payload)
        self.attr(uapi.KVM_SET_DEVICE_ATTR, fd, group, attr, int(uapi.ffi.cast("uintptr_t", data)))

    @property
    def control(self) -> int:
        """The KVM-VFIO device, created at its first use."""
        if self._control is None:
            self._control = self.create_device(uapi.KVM_DEV_TYPE_VFIO)
        return self._control

    def _device_irq(self, attr: int, fd: int, index: int, gsi: int) -> None:
        payload = uapi.pack("struct kvm_arch_forwarded_irq", fd=fd, index=index, gsi=gsi)
        self.set_attr(self.control, uapi.KVM_DEV_VFIO_DEVICE, attr, bytes(payload))

    def assign(self, fd: int, index: int = 0, gsi: int = GSI) -> None:
        """ASSIGN_IRQ: forward."""
        self._device_irq(uapi.KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ, fd, index, gsi)

    def deassign(self, fd: int, index: int = 0, gsi: int = GSI) -> None:
        """DEASSIGN_IRQ."""
        self._device_irq(uapi.KVM_DEV_VFIO_DEVICE_DEASSIGN_IRQ, fd, index, gsi)

    def group(self, attr: int, fd: int) -> None:
        """GROUP_ADD or GROUP_DEL."""
        self.set_attr(self.control, uapi.KVM_DEV_VFIO_GROUP, attr, fd.to_bytes(4, "little"))

    # -- interrupts --------------------------------------------------------------------------------------------------

    def irqfd(self, trigger: int, resample: int | None = None, gsi: int = GSI, *, deassign: bool = False) -> None:
        """KVM_IRQFD."""
        flags = uapi.KVM_IRQFD_FLAG_DEASSIGN if deassign else 0
        if resample is not None:
            flags |= uapi.KVM_IRQFD_FLAG_RESAMPLE
        args = uapi.pack("struct kvm_irqfd", fd=trigger, gsi=gsi, flags=flags, resamplefd=resample or 0)
        self.kernel.ioctl(self.fd, uapi.KVM_IRQFD, args)

    def irq_line(self, spi: int, level: int) -> None:
        """KVM_IRQ_LINE on a shared interrupt."""
        packed = uapi.pack("struct kvm_irq_level", irq=uapi.KVM_ARM_IRQ_TYPE_SPI << 24 | spi, level=level)
        self.kernel.ioctl(self.fd, uapi.KVM_IRQ_LINE, packed)


class Assigned:
    """A device given to userspace: container, group, device, and eventfds for each of its interrupts."""

    def __init__(self, rig: Rig, name: str, *, resample: bool = True) -> None:
        self.rig = rig
        self.name = name
        self.kernel = rig.kernel
        self.hw = rig.kernel.device(name)
        self.lines = self.hw.lines
        self.container, self.group, self.fd = rig.open_device(name)
        self.trigger = [rig.eventfd() for _ in self.lines]
        self.resample = [rig.eventfd() for _ in self.lines]
        for index in range(len(self.lines)):
            if resample:
                self.set_eventfd(UNMASK, self.resample[index], index)
            self.set_eventfd(TRIGGER, self.trigger[index], index)

    # -- SET_IRQS ------------------------------------------------------------------------------------------------

    def set_irqs(self, flags: int, index: int = 0, data: bytes = b"", count: int = 1) -> None:
        """VFIO_DEVICE_SET_IRQS."""
        header = uapi.pack("struct vfio_irq_set", argsz=20 + len(data), flags=flags, index=index, count=count)
        self.kernel.ioctl(self.fd, uapi.VFIO_DEVICE_SET_IRQS, header[:20] + data)

    def set_eventfd(self, action: int, eventfd: int, index: int = 0) -> None:
        """Tie an eventfd to an action; -1 unties."""
        self.set_irqs(uapi.VFIO_IRQ_SET_DATA_EVENTFD | action, index, eventfd.to_bytes(4, "little", signed=True))

    def now(self, action: int, index: int = 0) -> None:
        """Do the action at once."""
        self.set_irqs(uapi.VFIO_IRQ_SET_DATA_NONE | action, index)

    # -- the model -------------------------------------------------------------------------------------------------

    def line(self, level: bool, index: int = 0) -> None:
        """Drive an interrupt line."""
        self.lines[index].set(level)

    def desc(self, index: int = 0) -> IrqDesc:
        """The host's descriptor."""
        return self.rig.vfio.devices[self.name].irqs[index]

    def irq(self, index: int = 0) -> PlatformIrq:
        """What the VFIO driver keeps of the interrupt, while the device is open."""
        device: Any = self.vfio_group.devices[self.name]
        return device.irqs[index]

    @property
    def vfio_group(self) -> VfioGroup:
        """The group's model."""
        return self.rig.vfio.groups[self.hw.spec.group]

    @property
    def refs(self) -> int:
        """References to the VFIO device."""
        return self.vfio_group.devices[self.name].refs

    def p(self, index: int = 0) -> str:
        """The physical interrupt: ``en`` or ``dis``, and I, P, A or AP."""
        return self.rig.gic(self.lines[index].hwirq)


@dataclass(frozen=True, slots=True)
class Snap:
    """The state when an event happened: before what the event announces, after what led to it."""

    event: str
    gic: str
    depth: int
    masked: bool
    level: bool
    pending: bool
    queued: bool
    lr: str


class Rig:
    """A booted kernel with a VM and an assigned device, their interrupt connected, forwarded or not.

    ``target`` is the vCPU that the interrupt is routed to; ``settings`` change the profile.
    """

    def __init__(
        self,
        *,
        forwarded: bool = False,
        vcpus: int = 1,
        cpus: int = 1,
        list_registers: int = 4,
        split_eoi: bool = True,
        resample: bool = True,
        target: int = 0,
        eoi_mode: int = 0,
        boot: bool = True,
        profile: str = profiles.DEFAULT,
        **settings: Any,
    ) -> None:
        board = replace(BOARD, cpus=cpus, list_registers=list_registers, split_eoi=split_eoi)
        self.forwarded = forwarded
        self.fds: list[int] = []
        self.eventfds: list[int] = []
        self.kernel = Kernel(replace(profiles.load(profile), **settings), board)
        self.host = self.kernel.host
        self.vfio: Any = self.host.modules["vfio"]
        self.vms: Any = self.host.modules["kvm"].vms  # type: ignore[attr-defined]
        self._mark: Counter[str] = Counter()
        self.events: list[Event] = []
        self.kernel.listen(self.events.append)
        self.kvm = self.open("/dev/kvm")
        self.dev = Assigned(self, NET)
        self.vm = Vm(self, vcpus=vcpus)
        self.guests = self.vm.guests
        self.guest = self.guests[target]
        if boot:
            for guest in self.guests:
                guest.start()
                guest.boot(GSI + 32, target=target, eoi_mode=eoi_mode)
        self.vm.irqfd(self.dev.trigger[0], self.dev.resample[0] if resample else None)
        if forwarded:
            self.vm.assign(self.dev.fd)
        self.mark()

    # -- descriptors -------------------------------------------------------------------------------------------------

    def open(self, path: str) -> int:
        """Open a device node."""
        fd = self.kernel.open(path)
        self.fds.append(fd)
        return fd

    def open_device(self, name: str) -> tuple[int, int, int]:
        """(container, group, device)."""
        container = self.open("/dev/vfio/vfio")
        group = self.open(f"/dev/vfio/{self.kernel.device(name).spec.group}")
        self.kernel.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, bytearray(container.to_bytes(4, "little")))
        self.kernel.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
        return container, group, self.get_device(group, name)

    def get_device(self, group: int, name: str = NET) -> int:
        """VFIO_GROUP_GET_DEVICE_FD."""
        fd: int = self.kernel.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, bytearray(name.encode() + b"\0"))
        self.fds.append(fd)
        return fd

    def eventfd(self) -> int:
        """A new eventfd."""
        fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.eventfds.append(fd)
        self.fds.append(fd)
        return fd

    def count(self, eventfd: int) -> int:
        """Take an eventfd's counter."""
        try:
            return os.eventfd_read(eventfd)
        except BlockingIOError:
            return 0

    def dup(self, fd: int) -> int:
        """Another descriptor of the same file."""
        copy = self.kernel.dup(fd)
        self.fds.append(copy)
        return copy

    def close(self, *fds: int) -> None:
        """Close descriptors, one after the other."""
        for fd in fds:
            self.fds.remove(fd)
            self.kernel.close(fd)
            self.host.check()

    # -- watching ----------------------------------------------------------------------------------------------------

    def gic(self, hwirq: int) -> str:
        """``en`` or ``dis``, and I, P, A or AP."""
        gic = self.host.machine.gic
        return ("en " if gic.is_enabled(hwirq) else "dis ") + gic.state(hwirq)

    def mark(self) -> None:
        """Count from here."""
        self._mark = Counter(self.kernel.counters)
        self.events.clear()

    def n(self, name: str) -> int:
        """How often event ``name`` happened since the mark."""
        return self.kernel.counters[name] - self._mark[name]

    def counts(self, *names: str) -> dict[str, int]:
        """The same of several, without those that did not happen when none is named."""
        if names:
            return {name: self.n(name) for name in names}
        return {name: count for name in self.kernel.counters if (count := self.n(name))}

    def snap(self, event: str) -> Snap:
        """The state now."""
        v, lrs = self.vm.v(), self.guest.model.interface.lr
        held = self.vm.vgic.cpus[self.guest.model.index].lr_of.get((GSI + 32, 0))
        return Snap(
            event=event,
            gic=self.dev.p(),
            depth=self.dev.desc().depth,
            masked=self.dev.irq().masked,
            level=v.level,
            pending=v.pending,
            queued=v.queued,
            lr="" if held is None else lr_text(lrs[held]).removeprefix(f"{GSI + 32} "),
        )

    @contextmanager
    def watched(self, ignore: tuple[str, ...] = ()) -> Iterator[list[Snap]]:
        """A snapshot at every event, taken inside it."""
        snaps: list[Snap] = []
        stop = self.kernel.listen(lambda event: event.name in ignore or snaps.append(self.snap(event.name)))  # type: ignore[func-returns-value]
        yield snaps
        stop()

    # -- idioms --------------------------------------------------------------------------------------------------------

    def hit(self) -> None:
        """The device raises its line; the guest is given time until the virtual interrupt is in a list register."""
        self.dev.line(True)
        self.guest.slice(2)

    def serve(self) -> int:
        """The guest acks, quiets the device, completes."""
        irq = self.guest.ack()
        self.guest.do(lambda: self.dev.line(False))
        self.guest.eoi(irq)
        return irq

    def works(self) -> None:
        """Assert that a new interrupt goes all its way."""
        self.hit()
        assert self.serve() == GSI + 32
        assert self.guest.lrs == []
        assert self.dev.p() == "en I"
        assert not self.dev.irq().masked

    # -- the end -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every KVM_RUN, as a dying process does first."""
        for call in tuple(self.host.scheduler.calls):
            call.interrupt()  # type: ignore[attr-defined]
        self.host.settle()

    def exit(self) -> None:
        """The process exits: its calls end, its descriptors are closed in the order of their numbers."""
        self.stop()
        self.close(*sorted(self.fds))

    def assert_clean(self) -> None:
        """Nothing is left of anything, and all can be had again."""
        host = self.host
        assert self.kernel.open_files() == []
        assert host.eventfds.held() == []
        assert self.vms == []
        assert host.work.waiting == []
        assert host.scheduler.calls == []
        for desc in host.irqs.descs.values():
            assert not host.machine.gic.is_active(desc.hwirq), f"{desc} is active"
            assert not host.machine.gic.is_enabled(desc.hwirq), f"{desc} is unmasked"
            assert (desc.forwarded, desc.handler, desc.depth) == (False, None, 1), desc
        for group in self.vfio.groups.values():
            assert (group.container, group.container_users, group.external_users) == (None, 0, 0)
            assert group.refs == len(group.devices)
            for device in group.devices.values():
                assert (device.refs, device.external_users, device.open_count) == (1, 0, 0), device
        self.kernel.check()

    def assert_reusable(self) -> None:
        """The nodes open again, the device can be had again, a VM created."""
        for name, device in self.vfio.devices.items():
            if device.driver:
                self.open_device(name)
        self.kvm = self.open("/dev/kvm")
        Vm(self)
        self.exit()
        self.assert_clean()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                self.exit()
                self.assert_clean()
        finally:
            for fd in self.fds:
                os.close(fd)
            self.kernel.close_kernel()


@contextmanager
def fails(name: str) -> Iterator[None]:
    """The body is answered with that errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked
        yield
    assert errno.errorcode[caught.value.errno or 0] == name, caught.value


__all__ = [
    "AMBA",
    "CPU",
    "DISK",
    "DIST",
    "DOORBELL",
    "GSI",
    "MASK",
    "NET",
    "PCI",
    "TRIGGER",
    "UNMASK",
    "Assigned",
    "Guest",
    "Rig",
    "Snap",
    "Vm",
    "fails",
    "read",
    "replace",
    "write",
]
