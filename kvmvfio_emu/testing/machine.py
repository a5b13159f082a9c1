"""The main state machine: lives of devices, virtual machines, irqfds and forwarded interrupts, in any order.

Each rule is one step of one actor (a device, a kernel thread, a guest, a VMM), so what Hypothesis chooses is the
order in which they interleave, and what it shrinks is that order. Subclass it to add steps of your own, or to change
``profile`` and ``safeguards``; `kvmvfio_emu.testing.world` has what the steps act on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from kvmvfio_emu import profiles
from kvmvfio_emu.profiles import Profile
from kvmvfio_emu.testing import wrong
from kvmvfio_emu.testing.coverage import Coverage
from kvmvfio_emu.testing.route import Route
from kvmvfio_emu.testing.safeguards import Safeguards
from kvmvfio_emu.testing.script import Scripted
from kvmvfio_emu.testing.vmm import MASK, TRIGGER, UNMASK, GuestDriver
from kvmvfio_emu.testing.world import NAMES, VCPUS, WIRING, World

#: One interrupt gets most of the steps, or all would stay near their beginnings.
ROUTES = st.sampled_from([0, 0, 0, 0, *range(len(WIRING))])
_ALL = 2 ** len(WIRING) - 1
GUESTS = st.integers(0, sum(VCPUS) - 1)
#: Mostly none ends: what ends takes its wedges with it.
LIVES = st.integers(0, 3 * (len(NAMES) + len(VCPUS)))
#: Steps from a line's rise to the guest's completion, and one too many.
AFTER = st.integers(0, 6)

_F = TypeVar("_F", bound=Callable[..., None])


def step(**arguments: st.SearchStrategy[Any]) -> Callable[[_F], _F]:
    """As `hypothesis.stateful.rule`. The step is written down for `Life.replay`, and `Life.always` must hold after it.

    Unless `Life.acts`: then nothing is done.
    """

    def mark(function: _F) -> _F:
        @wraps(function)
        def taken(self: Life, **values: Any) -> None:
            if self.acts:
                self.coverage.steps += 1
                self.script.append(f"{function.__name__}({', '.join(f'{k}={v!r}' for k, v in values.items())})")
                function(self, **values)
                self.always()

        declare: Any = rule  # its overloads do not know of arguments that are passed on
        marked: _F = declare(**arguments)(taken)
        return marked

    return mark


class Life(Scripted, RuleBasedStateMachine):
    """Several virtual machines and devices from boot to power-off."""

    #: Which kernel.
    profile: ClassVar[str | Profile] = profiles.DEFAULT
    #: What is switched off.
    safeguards: ClassVar[Safeguards] = Safeguards()
    #: What all examples of the class together have reached; each subclass has its own.
    coverage: ClassVar[Coverage] = Coverage()
    #: Whether anything is done at all: without, the same rules and arguments, to see what Hypothesis itself costs.
    acts: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.coverage = Coverage()
        # Which lines of the model only failing orders run explains little, and finding out takes most of the time.
        case: Any = cls.TestCase
        case.settings = settings(case.settings, phases=[one for one in case.settings.phases if one != Phase.explain])

    def __init__(self) -> None:
        super().__init__()
        self.world: World = None  # type: ignore[assignment]
        self.route: Route | None = None  #: what the last step was about

    @initialize(forwarded=st.sampled_from([0, _ALL, _ALL]) | st.integers(0, _ALL))
    def boot(self, forwarded: int) -> None:
        """Everything is there and connected; ``forwarded`` has a bit for each interrupt that is forwarded."""
        if not self.acts:
            return
        self.script.append(f"boot(forwarded={forwarded})")
        world = self.world = World(self.profile, self.safeguards)
        self.coverage.examples += 1
        for at in range(len(NAMES)):
            world.open_device(at)
        for at in range(len(VCPUS)):
            world.create_vm(at)
        for route in world.routes:
            world.connect(route)
            if world.forwards and forwarded >> route.number & 1:
                world.assign(route)
        if self.watched:
            world.watch()
        self.always()

    # -- choosing -----------------------------------------------------------------------------------------------------

    def at(self, number: int, after: int = 0) -> Route:
        """The interrupt that a step is about, when it has gone so many steps `onward`."""
        self.route = self.world.routes[number]
        for _ in range(after):
            self.world.onward(self.route)
        return self.route

    def guest(self, number: int) -> GuestDriver | None:
        """A vCPU, if its virtual machine is there."""
        for at, count in enumerate(VCPUS):
            if number < count:
                vm = self.world.vms[at]
                return None if vm is None else vm.guests[number]
            number -= count
        raise AssertionError("no such vCPU")

    def busy(self, number: int) -> GuestDriver | None:
        """A vCPU that executes something."""
        guest = self.guest(number)
        return guest if guest is not None and self.world.usable(guest) else None

    # -- devices and kernel threads -----------------------------------------------------------------------------------

    @step(number=ROUTES)
    def line_up(self, number: int) -> None:
        """The device wants something."""
        self.at(number).line.set(True)

    @step(number=ROUTES)
    def line_down(self, number: int) -> None:
        """It wants it no more, whether or not it was served."""
        self.at(number).line.set(False)

    @step(number=ROUTES)
    def onward(self, number: int) -> None:
        """Whoever has the interrupt now takes one step with it: without this the far states are hardly reached."""
        self.world.onward(self.at(number))

    @step(number=st.integers(0, 3))
    def work(self, number: int) -> None:
        """One piece of deferred work gets its turn."""
        if held := self.world.held:
            self.world.run_work(number % len(held))

    # -- guests -------------------------------------------------------------------------------------------------------

    @step(number=GUESTS)
    def guest_acks(self, number: int) -> None:
        """GICC_IAR."""
        if (guest := self.busy(number)) is not None and (taken := self.world.ack(guest)) is not None:
            self.route = taken

    @step(number=GUESTS)
    def guest_quiets(self, number: int) -> None:
        """Its handler makes the device lower its line."""
        if (guest := self.busy(number)) is not None and guest.handling:
            self.world.quiet(guest)

    @step(number=GUESTS)
    def guest_ends(self, number: int) -> None:
        """GICC_EOIR."""
        if (guest := self.busy(number)) is not None and guest.handling:
            guest.eoi()

    @step(number=GUESTS)
    def guest_goes_on(self, number: int) -> None:
        """A slice; without one the guest hears of nothing."""
        if (guest := self.guest(number)) is not None and guest.running:
            guest.slice()

    @step(number=GUESTS)
    def guest_waits(self, number: int) -> None:
        """WFI."""
        if (guest := self.busy(number)) is not None:
            guest.wait()

    @step(number=ROUTES, after=AFTER)
    def guest_disables(self, number: int, after: int) -> None:
        """GICD_ICENABLER. A guest with care only does it while the interrupt is not under way to it."""
        route = self.at(number, after)
        if route.guest is None or not self.world.usable(route.guest):
            return
        if not (self.safeguards.disable_when_idle and (route.in_flight or route.rising)):
            route.guest.do(route.guest.cpu.disable_irq(route.virtual))
            route.enabled = False

    @step(number=ROUTES)
    def guest_enables(self, number: int) -> None:
        """GICD_ISENABLER."""
        route = self.at(number)
        if route.guest is not None and self.world.usable(route.guest):
            route.guest.do(route.guest.enabling(route.virtual))
            route.enabled = True

    # -- VMMs ---------------------------------------------------------------------------------------------------------

    @step(number=GUESTS)
    def vcpu_stops_or_starts(self, number: int) -> None:
        """KVM_RUN ends by a signal, or begins."""
        if (guest := self.guest(number)) is not None:
            if guest.running:
                guest.stop()
            else:
                guest.start()

    @step(number=ROUTES)
    def mask(self, number: int) -> None:
        """VFIO_DEVICE_SET_IRQS, MASK."""
        if (route := self.at(number)).device is not None:
            route.device.now(MASK, route.index)
            route.user_masked = True

    @step(number=ROUTES)
    def unmask(self, number: int) -> None:
        """VFIO_DEVICE_SET_IRQS, UNMASK."""
        if (route := self.at(number)).device is not None:
            route.device.now(UNMASK, route.index)
            route.user_masked = False

    @step(number=ROUTES)
    def loopback(self, number: int) -> None:
        """VFIO_DEVICE_SET_IRQS, TRIGGER without data: as if it had come."""
        if (route := self.at(number)).device is not None:
            route.device.now(TRIGGER, route.index)

    @step(number=ROUTES)
    def connect_or_disconnect(self, number: int) -> None:
        """KVM_IRQFD."""
        route = self.at(number)
        if route.device is not None and route.vm is not None:
            (self.world.disconnect if route.irqfd else self.world.connect)(route)

    @step(number=ROUTES, after=AFTER)
    def assign(self, number: int, after: int) -> None:
        """Forward it. A VMM with care only does so while it is not in flight."""
        route = self.at(number, after)
        if route.device is None or route.vm is None or route.forwarded or not self.world.forwards:
            return
        if not (self.safeguards.assign_when_idle and route.in_flight):
            self.world.assign(route)

    @step(number=ROUTES, after=AFTER)
    def deassign(self, number: int, after: int) -> None:
        """Forward it no more, at whatever moment."""
        if (route := self.at(number, after)).forwarded and route.device is not None:
            self.world.deassign(route)

    @step(at=LIVES)
    def life(self, at: int) -> None:
        """A device (the first numbers) or a virtual machine: all of its descriptors are closed, or made anew.

        Numbers beyond them are nobody's. A forwarded interrupt stays so while its virtual machine lives, whether or
        not its device is open.
        """
        world = self.world
        if at < len(NAMES):
            (world.open_device if world.devices[at] is None else world.close_device)(at)
        elif (at := at - len(NAMES)) < len(VCPUS):
            (world.create_vm if world.vms[at] is None else world.close_vm)(at)

    @step(number=ROUTES, which=st.sampled_from(sorted(wrong.CALLS)))
    def refused(self, number: int, which: str) -> None:
        """A call that must be refused, with its errno, and change nothing."""
        error = wrong.refused(self.at(number), which)
        if error is not None:
            self.coverage.refusal(which, error)

    @step()
    def everybody_finishes(self) -> None:
        """All do their duty until nothing happens any more; then each line that is high is a lost interrupt."""
        self.settle()

    # -- what holds ---------------------------------------------------------------------------------------------------

    def always(self) -> None:
        """After each step: references balance, the tree is valid, no list register for hardware is pending and active,

        and no forwarded interrupt is masked by VFIO, though users may mask what they like. A subclass may add to it.
        """
        self.world.host.check()
        self.world.check_list_registers()
        for route in self.world.routes:
            if route.forwarded and route.masked:
                assert route.user_masked, f"{route} is forwarded, and masked by VFIO"
        if self.route is not None:
            self.coverage.state(self.route)

    def settle(self) -> None:
        """`everybody_finishes`."""
        self.world.drain()
        lost = self.world.lost()
        assert not lost, "lost: " + "; ".join(lost)

    def end(self) -> None:
        """Of every order of steps: nothing is lost, each line works still, and when all is closed all is as at boot."""
        self.settle()
        connected = [(route, route.taken) for route in self.world.routes if route.connected]
        for route, _ in connected:
            route.line.set(True)
        self.settle()
        for route, before in connected:
            assert route.taken == before + 1, f"{route}: one interrupt came {route.taken - before} times"
        self.world.close()
        now = self.world.footprint()
        left = {name: (now[name], was) for name, was in self.world.at_boot.items() if now[name] != was}
        assert not left, f"not as at boot (now, then): {left}"

    def teardown(self) -> None:
        """`end`, unless a step has failed already; then everything is given back."""
        if self.world is None:
            return
        try:
            if sys.exc_info()[0] is None:
                self.end()
        finally:
            if sys.exc_info()[0] is not None:
                self.explain()
            self.world.power_off()
