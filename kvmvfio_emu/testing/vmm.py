"""A small VMM: virtual machine, vCPUs with a guest on strings, an assigned device. What tests hold in their hands.

Each method is one call, made as a C program makes it, so errors are the kernel's. What the calls do not
say (which interrupt is in flight) is read from the model by `kvmvfio_emu.testing.world`, not here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from kvmvfio_emu import uapi
from kvmvfio_emu.guest.script import Cpu, Operation, Routine, Script, wait_for_interrupt, work, write
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.uapi.payloads import kvm_vfio_dev_irq

DIST, INTERFACE = 0x08000000, 0x08010000
FIRST_SPI = 32
MASK, UNMASK, TRIGGER = (
    uapi.VFIO_IRQ_SET_ACTION_MASK,
    uapi.VFIO_IRQ_SET_ACTION_UNMASK,
    uapi.VFIO_IRQ_SET_ACTION_TRIGGER,
)
_EVENTFD, _NONE = uapi.VFIO_IRQ_SET_DATA_EVENTFD, uapi.VFIO_IRQ_SET_DATA_NONE
#: So many slices are enough for any short list of operations; more means that the guest does not get on.
_PATIENCE = 50

Step = Operation | Callable[[], object]


class GuestDriver:
    """One vCPU and its KVM_RUN. The guest executes what `do` is given, one step after the other, and spins otherwise.

    So a test can stop it between any two steps of its interrupt handler.
    """

    def __init__(self, vm: Vm, number: int) -> None:
        self.kernel = vm.kernel
        self.vm = vm
        self.number = number
        self.fd: int = vm.kernel.ioctl(vm.fd, uapi.KVM_CREATE_VCPU, number)
        self.cpu: Cpu
        self.call: Any = None
        self.handling: list[int] = []  #: acknowledged and not completed, the last one last
        self._todo: deque[Step] = deque()
        self._results: list[Any] = []
        self._begun = 0  #: steps ever given to it
        target = uapi.pack("struct kvm_vcpu_init")
        vm.kernel.ioctl(vm.fd, uapi.KVM_ARM_PREFERRED_TARGET, target)
        vm.kernel.ioctl(self.fd, uapi.KVM_ARM_VCPU_INIT, target)
        script = Script(self._main, distributor=DIST, interface=INTERFACE)
        self.cpu = script.cpu
        vm.kernel.attach_guest(number, script, fd=self.fd)

    def _main(self, cpu: Cpu) -> Routine:
        while True:
            if not self._todo:
                yield work(1)
                continue
            step = self._todo.popleft()
            self._results.append(step() if callable(step) else (yield step))

    @property
    def running(self) -> bool:
        """Whether it is in KVM_RUN."""
        return self.call is not None and not self.call.done

    def start(self) -> Self:
        """Begin KVM_RUN; the guest is entered at its first slice."""
        self.call = self.kernel.start(self.fd, uapi.KVM_RUN)
        return self

    def stop(self) -> None:
        """A signal ends KVM_RUN."""
        self.call.interrupt()

    def slice(self) -> None:
        """Let it go on for a slice."""
        self.call.advance()

    def begin(self, step: Step) -> None:
        """Let the guest execute ``step`` when it gets that far."""
        self._todo.append(step)
        self._begun += 1

    def wait(self) -> None:
        """WFI; returns when the guest waits, or something was there already. KvmVfioEmuError as `do`."""
        self.begin(wait_for_interrupt())
        for _ in range(_PATIENCE):
            if self.call.vcpu.blocked or len(self._results) >= self._begun:
                return
            self.call.advance()
        raise KvmVfioEmuError("the guest does not get on")

    def do(self, *steps: Step) -> Any:
        """Let the guest execute ``steps``; the result of the last. A step is an operation, or a function to call."""
        for step in steps:
            self.begin(step)
        for _ in range(_PATIENCE):
            if len(self._results) >= self._begun:
                return self._results[-1]
            if not self.running:
                raise KvmVfioEmuError("the guest is not running")
            self.call.advance()
        raise KvmVfioEmuError("the guest does not get on")

    # -- what drivers do ---------------------------------------------------------------------------------------------

    def boot(self, *spis: int) -> Self:
        """Enable the interrupt controller, and shared interrupts ``spis`` (GIC ids) with this vCPU as their target.

        They, and those that share a GICD_ICFGR with them, are level-sensitive then.
        """
        steps: list[Step] = [write(DIST, 1), write(INTERFACE + 4, 0xFF), write(INTERFACE, 1)]
        steps += [write(DIST + 0xC00 + register * 4, 0) for register in sorted({spi // 16 for spi in spis})]
        for spi in spis:
            steps += [write(DIST + 0x800 + spi, 1 << self.number, 1), self.enabling(spi)]
        self.do(*steps)
        return self

    @staticmethod
    def enabling(irq: int) -> Operation:
        """The write to GICD_ISENABLER."""
        return write(DIST + 0x100 + irq // 32 * 4, 1 << irq % 32)

    def ack(self) -> int | None:
        """GICC_IAR; None when there is nothing."""
        irq: int = self.do(self.cpu.acknowledge()) & 0x3FF
        if irq >= 1020:
            return None
        self.handling.append(irq)
        return irq

    def eoi(self) -> int:
        """GICC_EOIR of what was acknowledged last."""
        irq = self.handling.pop()
        self.do(self.cpu.end_of_interrupt(irq))
        return irq


class Vm:
    """A virtual machine with a GICv2 (on kernels for Arm), and the KVM-VFIO device when it is first used.

    ``irqs``: how many interrupts its GIC has, a multiple of 32 from 64 on; the kernel's default when None.
    """

    def __init__(self, kernel: Any, *, vcpus: int = 0, irqs: int | None = None) -> None:
        self.kernel = kernel
        self._fds: list[int] = []
        self.kvm = self._keep(kernel.open("/dev/kvm"))
        self.fd = self._keep(kernel.ioctl(self.kvm, uapi.KVM_CREATE_VM, 0))
        self._control: int | None = None
        self.vgic: int | None = None
        self.guests: list[GuestDriver] = []
        for _ in range(vcpus):
            self.vcpu()
        if vcpus:
            self.create_vgic(irqs)

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def forget(self, fd: int) -> None:
        """Somebody else has closed ``fd``."""
        self._fds.remove(fd)

    def vcpu(self) -> GuestDriver:
        """A new vCPU (of a kernel for Arm), with its next number."""
        guest = GuestDriver(self, len(self.guests))
        self._keep(guest.fd)
        self.guests.append(guest)
        return guest

    def create_vgic(self, irqs: int | None = None) -> int:
        """A VGICv2 with its frames at `DIST` and `INTERFACE`, for ``irqs`` interrupts."""
        self.vgic = self.create_device(uapi.KVM_DEV_TYPE_ARM_VGIC_V2)
        if irqs is not None:
            self.set_attr(self.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, irqs.to_bytes(4, "little"))
        for frame, address in ((uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, DIST), (uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, INTERFACE)):
            self.set_attr(self.vgic, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, frame, address.to_bytes(8, "little"))
        return self.vgic

    def create_device(self, kind: int) -> int:
        """KVM_CREATE_DEVICE; its descriptor."""
        create = uapi.pack("struct kvm_create_device", type=kind)
        self.kernel.ioctl(self.fd, uapi.KVM_CREATE_DEVICE, create)
        return self._keep(uapi.view("struct kvm_create_device", create).fd)

    def set_attr(self, fd: int, group: int, attr: int, payload: bytes) -> None:
        """KVM_SET_DEVICE_ATTR."""
        data = uapi.ffi.new("char[]", payload)
        address = int(uapi.ffi.cast("uintptr_t", data))
        packed = uapi.pack("struct kvm_device_attr", group=group, attr=attr, addr=address)
        self.kernel.ioctl(fd, uapi.KVM_SET_DEVICE_ATTR, packed)

    @property
    def control(self) -> int:
        """The KVM-VFIO device, created at its first use."""
        if self._control is None:
            self._control = self.create_device(uapi.KVM_DEV_TYPE_VFIO)
        return self._control

    def group(self, attr: int, fd: int) -> None:
        """KVM_DEV_VFIO_GROUP_ADD or _DEL."""
        self.set_attr(self.control, uapi.KVM_DEV_VFIO_GROUP, attr, fd.to_bytes(4, "little"))

    def assign(self, device: int, index: int, gsi: int, attr: int = uapi.KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ) -> None:
        """Forward interrupt ``index`` of VFIO device ``device`` as ``gsi``."""
        struct = self.kernel.host.profile.forward_struct
        if struct == "struct kvm_vfio_dev_irq":  # since draft 4: an array follows
            payload = kvm_vfio_dev_irq.build({"fd": device, "index": index, "start": 0, "gsi": [gsi]})
        else:
            payload = bytes(uapi.pack(struct, fd=device, index=index, gsi=gsi))
        self.set_attr(self.control, uapi.KVM_DEV_VFIO_DEVICE, attr, payload)

    def deassign(self, device: int, index: int, gsi: int) -> None:
        """End it."""
        self.assign(device, index, gsi, uapi.KVM_DEV_VFIO_DEVICE_DEASSIGN_IRQ)

    def irqfd(self, trigger: int, gsi: int, resample: int | None = None, *, deassign: bool = False) -> None:
        """KVM_IRQFD."""
        flags = uapi.KVM_IRQFD_FLAG_DEASSIGN if deassign else 0
        if resample is not None:
            flags |= uapi.KVM_IRQFD_FLAG_RESAMPLE
        packed = uapi.pack("struct kvm_irqfd", fd=trigger, gsi=gsi, flags=flags, resamplefd=resample or 0)
        self.kernel.ioctl(self.fd, uapi.KVM_IRQFD, packed)

    def descriptors(self) -> tuple[int, ...]:
        """Those that `close` closes."""
        return tuple(self._fds)

    def close(self) -> None:
        """End every KVM_RUN, close everything, last opened first."""
        for guest in self.guests:
            if guest.running:
                guest.stop()
        while self._fds:
            self.kernel.close(self._fds.pop())


class VfioDevice:
    """A device taken from the host: container, group, device, and two eventfds for each interrupt.

    ``name``: the board's first platform device when None. ``armed``: tie the eventfds at once.
    """

    def __init__(self, kernel: Any, name: str | None = None, *, armed: bool = True) -> None:
        self.kernel = kernel
        self.name = name or self._first(kernel)
        self.hw = kernel.device(self.name)
        self.lines = self.hw.lines
        self._fds: list[int] = []
        self._eventfds: list[int] = []
        self.container = self._keep(kernel.open("/dev/vfio/vfio"))
        self.group = self._keep(kernel.open(f"/dev/vfio/{self.hw.spec.group}"))
        kernel.ioctl(self.group, uapi.VFIO_GROUP_SET_CONTAINER, self.container.to_bytes(4, "little"))
        kernel.ioctl(self.container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
        named = bytearray(self.name.encode() + b"\0")
        self.fd = self._keep(kernel.ioctl(self.group, uapi.VFIO_GROUP_GET_DEVICE_FD, named))
        self.trigger = [self._eventfd() for _ in self.lines]
        self.resample = [self._eventfd() for _ in self.lines]
        if armed:
            for index in range(len(self.lines)):
                self.arm(index)

    @staticmethod
    def _first(kernel: Any) -> str:
        names = [name for name, device in kernel.host.machine.devices.items() if device.spec.bus == "platform"]
        if not names:
            raise KvmVfioEmuError("the board has no platform device: name one, or choose another board")
        return str(names[0])

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _eventfd(self) -> int:
        self._eventfds.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        return self._eventfds[-1]

    def arm(self, index: int = 0) -> None:
        """Tie interrupt ``index`` to its eventfds; a level-sensitive one can be unmasked by its second."""
        if self.hw.spec.interrupts[index].level:
            self.set_eventfd(UNMASK, self.resample[index], index)
        self.set_eventfd(TRIGGER, self.trigger[index], index)

    def set_irqs(self, flags: int, index: int = 0, data: bytes = b"", count: int = 1) -> None:
        """VFIO_DEVICE_SET_IRQS."""
        header = uapi.pack("struct vfio_irq_set", argsz=20 + len(data), flags=flags, index=index, count=count)
        self.kernel.ioctl(self.fd, uapi.VFIO_DEVICE_SET_IRQS, header[:20] + data)

    def set_eventfd(self, action: int, eventfd: int, index: int = 0) -> None:
        """Tie an eventfd to an action, -1: untie."""
        self.set_irqs(_EVENTFD | action, index, eventfd.to_bytes(4, "little", signed=True))

    def now(self, action: int, index: int = 0) -> None:
        """Do the action at once."""
        self.set_irqs(_NONE | action, index)

    def signals(self, index: int = 0) -> int:
        """How often the interrupt was signalled since the last time this was asked."""
        try:
            return os.eventfd_read(self.trigger[index])
        except BlockingIOError:
            return 0

    def forget(self, fd: int) -> None:
        """Somebody else has closed ``fd``."""
        self._fds.remove(fd)

    def descriptors(self) -> tuple[int, ...]:
        """Those of the kernel's files that `close` closes."""
        return tuple(self._fds)

    def close(self) -> None:
        """Close everything, last opened first."""
        while self._fds:
            self.kernel.close(self._fds.pop())
        while self._eventfds:
            self.kernel.close(self._eventfds.pop())
