"""One emulated host kernel: the hardware below it, what it shares between its parts, and when deferred things run.

KVM and VFIO are put in by `kernel.boot`; this file knows neither.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.poller import Poller
from kvmvfio_emu.engine.scheduler import Scheduler
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.engine.work import WorkQueue
from kvmvfio_emu.guest.base import GuestProgram
from kvmvfio_emu.hw.machine import Machine
from kvmvfio_emu.kernel.cpu import HostCpu
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.eventfd import EventFdTable
from kvmvfio_emu.kernel.faults import Fault, Faults
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.irq import IrqSubsystem
from kvmvfio_emu.kernel.task import Task
from kvmvfio_emu.kernel.usercopy import UserMemory
from kvmvfio_emu.profiles import Profile

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu


class Module(Protocol):
    """A part of the kernel that boot puts in: KVM, VFIO."""

    def check(self) -> None:
        """Raise AssertionError when its state contradicts itself."""


class Mirror(Protocol):
    """Memory that userspace has mapped and that shows something of the kernel's."""

    def sync(self) -> None:
        """Take in what userspace changed, show what is now."""


class Host:
    """The kernel as its parts see it. Single-threaded: a "lock" is a stretch of code that nothing splits."""

    current: Task

    def __init__(self, machine: Machine, profile: Profile, clock: Clock, trace: Trace) -> None:
        self.machine = machine
        self.profile = profile
        self.clock = clock
        self.trace = trace
        self.event = trace.event
        self.work = WorkQueue(trace)
        self.poller = Poller()
        self.eventfds = EventFdTable(self)
        self.files: dict[int, File] = {}  #: all open files, for `check` and listings
        self.nodes: dict[str, Callable[[], File]] = {}  #: device nodes: path -> open
        self.inodes: dict[tuple[int, int], File] = {}  #: (device, inode) of a file's backing, kept by the doors
        #: What a new vCPU of that number executes, if the user or the board says so.
        self.guest_program: Callable[[int], GuestProgram | None] = lambda number: None
        #: The same by default: for a vCPU that has no such program, and no memory at its PC.
        self.default_guest: Callable[[int], GuestProgram | None] | None = None
        #: What executes the machine code in a vCPU's memory when it has no program.
        self.guest_engine: Callable[[Vcpu], GuestProgram | None] = lambda vcpu: None
        self.call_fd = -1  #: the descriptor of the ioctl in progress, as its caller knows it
        self.faults: Faults | None = None  #: what is to go wrong; None while nothing is
        self.scheduler = Scheduler()
        self.mirrors: list[Mirror] = []
        self.modules: dict[str, Module] = {}
        self.views: list[Callable[[], dict[str, Any]]] = []  #: what modules add to `sysfs.tree`
        self.irqs = IrqSubsystem(
            machine.gic,
            trace,
            split_eoi=machine.board.split_eoi,
            lazy_disable=profile.gic_lazy_disable,
        )
        self.cpus = [HostCpu(interface, self.irqs.handle_irq) for interface in machine.gic.cpu]
        for cpu in self.cpus:
            machine.gic.handlers[cpu.index] = cpu.interrupt

    def open(self, path: str) -> File:
        """A new open file for device node ``path``. ENOENT when there is no such node."""
        opener = self.nodes.get(path)
        if opener is None:
            raise KernelError(errno.ENOENT, f"no device node {path}")
        return opener()

    def mapped_device(self, mm: UserMemory, address: int) -> tuple[File, int] | None:
        """The device file mapped at user ``address`` and the offset in it; None when it is ordinary memory."""
        vma = mm.find_vma(address)
        file = None if vma is None else self.inodes.get((vma.device, vma.inode))
        if vma is None or file is None or not file.is_device_memory:
            return None
        return file, vma.offset + address - vma.start

    def inject(self, text: str) -> Callable[[], None]:
        """Let something go wrong, as `faults.Faults.add` reads it; returns the function that ends it."""
        faults = self.faults or Faults()
        fault: Fault = faults.add(text)
        self.faults = faults
        self.trace.ask(True)

        def stop() -> None:
            faults.remove(fault)
            if not faults and self.faults is faults:
                self.faults = None
                self.trace.ask(False)

        return stop

    def settle(self) -> None:
        """Do all that is due now: news from real descriptors, then deferred work, until neither is left."""
        while self.poller.poll() or self.work.waiting:
            while self.work.waiting:
                self.work.run_one()

    def sync_mirrors(self) -> None:
        """Make all mapped memory agree with what it shows; the doors call it at each entry and before they return."""
        for mirror in tuple(self.mirrors):
            mirror.sync()

    def power_off(self) -> None:
        """Give all real descriptors back. Nothing is released as at a last close; nothing works any more."""
        for file in self.files.values():
            file.abandon()
        self.eventfds.abandon()
        self.poller.close()

    def open_files(self) -> list[str]:
        """The kinds of all files that are open, sorted: empty when everything was given back."""
        return sorted(file.kind for file in self.files.values())

    def check(self) -> None:
        """Raise AssertionError when any part's state contradicts itself or another's."""
        self.machine.gic.check()
        self.irqs.check()
        for module in self.modules.values():
            module.check()
        for eventfd in self.eventfds.held():
            assert eventfd._count > 0, f"{eventfd!r} is held by nobody"

    def module(self, name: str) -> Module | None:
        """A part by its name, the way symbol_get finds one; None when it was not built in."""
        return self.modules.get(name)
