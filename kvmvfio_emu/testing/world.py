"""A machine with several virtual machines and devices whose interrupts are wired across, and who does what with them.

Deferred work is held until somebody gives it its turn (`World.run_work`). `World.drain` lets everybody do his duty
until nothing happens any more; what is still owed then is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from kvmvfio_emu import Kernel, KvmVfioEmuError, profiles
from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.engine.work import Work
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, RegionSpec
from kvmvfio_emu.hw.gich import LR_HW, LR_STATE
from kvmvfio_emu.profiles import Profile
from kvmvfio_emu.testing.route import Route
from kvmvfio_emu.testing.safeguards import Safeguards
from kvmvfio_emu.testing.vmm import TRIGGER, UNMASK, GuestDriver, VfioDevice, Vm


def _device(number: int, *spis: int) -> DeviceSpec:
    region = RegionSpec(number * 0x1000, 0x1000)
    interrupts = tuple(InterruptSpec(spi) for spi in spis)
    return DeviceSpec(f"{number}000.device", "none", number, regions=(region,), interrupts=interrupts)


BOARD = Board(name="kit", cpus=2, list_registers=2, devices=(_device(1, 77, 78), _device(2, 80), _device(3, 81)))
NAMES = tuple(device.name for device in BOARD.devices)
#: (device, index, virtual machine, gsi): two interrupts go to each virtual machine.
WIRING = ((0, 0, 0, 10), (0, 1, 0, 11), (1, 0, 1, 10), (2, 0, 1, 40))
VCPUS = (2, 1)
#: As few as the wiring needs: each of them costs time.
_IRQS = 96
#: Rounds in which everybody does what is to do; what is not over then goes on for ever.
_ROUNDS = 30
_KEPT_EVENTS = 400


class World:
    """Everything that the state machine acts on; empty at first."""

    def __init__(self, profile: str | Profile = profiles.DEFAULT, safeguards: Safeguards | None = None) -> None:
        self.safeguards = safeguards or Safeguards()
        self.kernel = Kernel(profile, BOARD)
        if not self.kernel.host.profile.is_arm:
            raise KvmVfioEmuError(f"profile {self.kernel.host.profile.name} is no kernel for Arm: it knows no GIC")
        self.host = self.kernel.host
        self.gic = self.host.machine.gic
        self.vfio: Any = self.host.modules["vfio"]
        self.host.scheduler.slice = 2  # small, so that guests can be stopped between few operations
        self._held: dict[Work, None] = {}
        self.host.work.hold = self._hold
        self.events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._unwatch: Callable[[], None] = lambda: None
        self.devices: list[VfioDevice | None] = [None] * len(NAMES)
        self.vms: list[Vm | None] = [None] * len(VCPUS)
        self.models: list[Any] = [None] * len(VCPUS)  #: the kernel's side of ``vms``
        self.routes = [
            Route(self, number, *one, line=self.kernel.device(NAMES[one[0]]).lines[one[1]])
            for number, one in enumerate(WIRING)
        ]
        self.at_boot = self.footprint()

    def watch(self) -> None:
        """Keep the last events from now on; it slows everything down."""
        self._unwatch = self.kernel.listen(self.events.append)

    def _of_vm(self, at: int) -> list[Route]:
        return [route for route in self.routes if route.vm_at == at]

    # -- life -------------------------------------------------------------------------------------------------------

    def open_device(self, at: int) -> None:
        """Take a device from the host."""
        device = self.devices[at] = VfioDevice(self.kernel, NAMES[at])
        for index in range(len(device.lines)):
            next(one for one in self.routes if (one.device_at, one.index) == (at, index)).user_masked = False

    def close_device(self, at: int) -> None:
        """Give it back; its eventfds go, too, and with them their irqfds."""
        device = self.devices[at]
        assert device is not None
        mine = {route: route.credit for route in self.routes if route.device_at == at}
        for route in mine:
            route.irqfd = False
        device.close()
        self.devices[at] = None
        for route, credit in mine.items():  # what is under way still arrives
            route.credit = credit

    def create_vm(self, at: int) -> None:
        """A virtual machine whose guests have their interrupts enabled."""
        vm = self.vms[at] = Vm(self.kernel, vcpus=VCPUS[at], irqs=_IRQS)
        kvm: Any = self.host.modules["kvm"]
        self.models[at] = kvm.vms[-1]
        assert vm.control >= 0  # the KVM-VFIO device exists from now on
        self.safeguards.apply(self.models[at])
        for guest in vm.guests:
            mine = [route for route in self._of_vm(at) if route.guest is guest]
            guest.start().boot(*(route.virtual for route in mine))
            for route in mine:
                route.enabled, route.credit = True, 0

    def close_vm(self, at: int) -> None:
        """End it. What it forwarded is the host's again."""
        vm = self.vms[at]
        assert vm is not None
        for route in self._of_vm(at):
            route.irqfd = route.forwarded = route.enabled = False
        vm.close()
        self.vms[at] = self.models[at] = None

    # -- calls of a VMM; the device and the virtual machine must be there --------------------------------------------

    @staticmethod
    def _both(route: Route) -> tuple[VfioDevice, Vm]:
        device, vm = route.device, route.vm
        assert device is not None
        assert vm is not None
        return device, vm

    def connect(self, route: Route) -> None:
        """KVM_IRQFD; then, as a VMM does, unmask what an earlier connection may have left masked."""
        device, vm = self._both(route)
        vm.irqfd(device.trigger[route.index], route.gsi, device.resample[route.index])
        route.irqfd = True
        route.credit += 1  # the eventfd may have been signalled before
        device.now(UNMASK, route.index)
        route.user_masked = False

    def disconnect(self, route: Route) -> None:
        """KVM_IRQFD with DEASSIGN."""
        device, vm = self._both(route)
        vm.irqfd(device.trigger[route.index], route.gsi, deassign=True)
        route.irqfd = False

    @property
    def forwards(self) -> bool:
        """Whether this kernel can forward interrupts."""
        return bool(self.kernel.host.profile.forward_control)

    def assign(self, route: Route) -> None:
        """Forward it, in the way that the kernel wants; nothing when it says that now is not the time (EAGAIN)."""
        device, vm = self._both(route)
        armed = self.kernel.host.profile.forward_active == "armed"
        if armed:
            device.set_eventfd(TRIGGER, -1, route.index)
        try:
            vm.assign(device.fd, route.index, route.gsi)
            route.forwarded = True
        except BlockingIOError:
            pass
        if armed:
            device.set_eventfd(TRIGGER, device.trigger[route.index], route.index)

    def deassign(self, route: Route) -> None:
        """Forward it no more."""
        device, vm = self._both(route)
        vm.deassign(device.fd, route.index, route.gsi)
        route.forwarded = False

    # -- guests -----------------------------------------------------------------------------------------------------

    @staticmethod
    def usable(guest: GuestDriver) -> bool:
        """Whether it executes something now."""
        return guest.running and not guest.call.vcpu.blocked

    def ack(self, guest: GuestDriver) -> Route | None:
        """The guest asks for an interrupt. AssertionError when it gets one that nobody has signalled."""
        number = guest.ack()
        if number is None:
            return None
        route = next(one for one in self._of_vm(self.vms.index(guest.vm)) if one.virtual == number)
        assert route.credit > 0, f"spurious: {route} was delivered once more than it was signalled"
        route.credit -= 1
        route.taken += 1
        return route

    def quiet(self, guest: GuestDriver) -> None:
        """Its handler makes the device that interrupted last lower its line."""
        for route in self._of_vm(self.vms.index(guest.vm)):
            if route.virtual == guest.handling[-1]:
                route.line.set(False)

    def onward(self, route: Route) -> None:
        """Whoever has the interrupt does the next thing with it: a kernel thread, the guest; else the line rises."""
        guest = route.guest
        if guest is None or not self.usable(guest):
            route.line.set(True)
        elif route.injection_waits:
            self.run_work(next(n for n, work in enumerate(self.held) if work.name.endswith(f"gsi {route.gsi}")))
        elif route.virtual in guest.handling:
            if route.line.level:
                self.quiet(guest)
            else:
                guest.eoi()
        elif route.in_flight and route.enabled:
            self.ack(guest)
        elif route.line.level:
            guest.slice()
        else:
            route.line.set(True)

    # -- deferred work ----------------------------------------------------------------------------------------------

    def _hold(self, work: Work) -> bool:
        self._held[work] = None
        return True

    @property
    def held(self) -> list[Work]:
        """What waits for its turn, oldest first."""
        return [work for work in self._held if work.pending]

    def run_work(self, index: int) -> None:
        """Give one its turn."""
        work = self.held[index]
        del self._held[work]
        self.host.work.admit(work)
        self.host.settle()

    # -- the end ----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Everybody does his duty until nothing happens any more: kernel threads, guests, who has masked a line."""
        guests = [guest for vm in self.vms if vm is not None for guest in vm.guests]
        for route in self.routes:
            if route.user_masked and route.device is not None:
                route.device.now(UNMASK, route.index)
                route.user_masked = False
        for guest in guests:
            if guest.running and not self.usable(guest):
                guest.stop()  # a signal, as its WFI would wait for an interrupt
            if not guest.running:
                guest.start().slice()
            self._finish(guest)
        for route in self.routes:
            if route.guest is not None and not route.enabled:
                route.guest.do(route.guest.enabling(route.virtual))
                route.enabled = True
        for _ in range(_ROUNDS):
            # What came while the guest was busy with the same interrupt waits for an exit, which there is some time.
            if not self._round(guests) and not self._round(guests, leave=True):
                break
        else:
            raise AssertionError("interrupts come for ever, though every handler quiets its device")
        for route in self.routes:
            route.credit = 0

    def _round(self, guests: list[GuestDriver], *, leave: bool = False) -> bool:
        busy = bool(self.held)
        while self.held:
            self.run_work(0)
        for guest in guests:
            if leave:
                guest.stop()
                guest.start()
            while self.ack(guest) is not None:
                self._finish(guest)
                busy = True
        return busy or bool(self.held)

    def _finish(self, guest: GuestDriver) -> None:
        while guest.handling:
            self.quiet(guest)
            guest.eoi()

    def lost(self) -> list[str]:
        """After `drain`: lines that are high though their guests have done all there was to do, and how they stand."""
        return [f"{route}: {route.state()}" for route in self.routes if route.connected and route.line.level]

    def check_list_registers(self) -> None:
        """AssertionError when one with the HW bit is pending and active."""
        for model in self.models:
            for vcpu in () if model is None else model.vcpus:
                for index, lr in vcpu.interface.valid():
                    assert not lr & LR_HW or lr & LR_STATE != LR_STATE, f"LR{index}: {vcpu.interface.text(lr)}"

    def close(self) -> None:
        """Close everything: then all must be as at boot."""
        for at, vm in enumerate(self.vms):
            if vm is not None:
                self.close_vm(at)
        for at, device in enumerate(self.devices):
            if device is not None:
                self.close_device(at)
        while self.held:
            self.run_work(0)
        for route in self.routes:
            route.line.set(False)

    def footprint(self) -> dict[str, Any]:
        """What must be at the end as it was at boot."""
        host = self.host
        kvm: Any = host.modules["kvm"]
        groups = self.vfio.groups.values()
        return {
            "files": host.open_files(),
            "eventfds": len(host.eventfds.held()),
            "virtual machines": len(kvm.vms),
            "calls": len(host.scheduler.calls),
            "work": [work.name for work in (*host.work.waiting, *self.held)],
            "interrupts": [
                (desc.hwirq, desc.depth, desc.forwarded, desc.handler, self.gic.state(desc.hwirq))
                for desc in host.irqs.descs.values()
            ],
            "groups": [(one.number, one.refs, one.container_users, one.external_users) for one in groups],
            "devices": [
                (device.name, device.refs, device.external_users, device.open_count)
                for group in groups
                for device in group.devices.values()
            ],
        }

    def power_off(self) -> None:
        """Whatever came of it, give the real descriptors back."""
        self._unwatch()
        for thing in (*self.vms, *self.devices):
            if thing is not None:
                thing.close()
        self.kernel.close_kernel()
