"""More than one: many interrupts, several vCPUs on one CPU, several devices, several VMs."""

from __future__ import annotations

import gc
import os

import pytest
from scenarios.rig import DISK, DIST, DOORBELL, GSI, Assigned, Rig, Vm, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, read, wait_for_interrupt, work, write
from kvmvfio_emu.guest.script import Routine

V = GSI + 32
both = pytest.mark.parametrize("forwarded", [False, True], ids=["unforwarded", "forwarded"])


def sizes(rig: Rig) -> dict[str, int]:
    """Everything in the host that could grow."""
    host = rig.host
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "files": len(host.files),
        "inodes": len(host.inodes),
        "eventfds": len(host.eventfds.held()),
        "work": len(host.work.waiting),
        "calls": len(host.scheduler.calls),
        "timers": len(host.clock._heap),
        "poller": len(host.poller._callbacks),
        "vms": len(rig.vms),
        "irqfds": len(rig.vm.model.irqfds.active),
        "lrs": len(rig.vm.vgic.cpus[0].lr_of),
        "selected": len(rig.vm.vgic.cpus[0].selected),
        "running": len(rig.guest.model.interface._running),
        "script": len(rig.guest.model.program._results),  # type: ignore[union-attr]
        "stage2": len(rig.vm.model.memory.stage2),
        "cpu": len(host.machine.gic.cpu[0]._running),
        "gic": len(host.machine.gic._active | host.machine.gic._latch),
    }


@both
@pytest.mark.parametrize("waits", [False, True], ids=["computing", "in WFI"])
def test_ten_thousand_interrupts(forwarded: bool, waits: bool) -> None:
    """The device raises its line again a while after each time that the guest quiets it."""
    total, raised, handled = 10_000, 0, 0
    with Rig(forwarded=forwarded, boot=False) as rig:
        line = rig.dev.lines[0]

        def rise() -> None:
            nonlocal raised
            raised += 1
            line.set(True)

        def main(cpu: Cpu) -> Routine:
            yield from cpu.enable_gic()
            yield from cpu.enable_irq(V)
            yield write(DOORBELL, 0)
            while handled < total:
                yield wait_for_interrupt() if waits else work(100)
            yield write(DOORBELL, 1)

        def handler(cpu: Cpu) -> Routine:
            nonlocal handled
            irq = yield cpu.acknowledge()
            if irq == V:
                handled += 1
                line.set(False)
                if raised < total:
                    rig.kernel.after(20 + raised % 7 * 50, rise)
                yield cpu.end_of_interrupt(irq)
            if handled == 100:
                yield write(DOORBELL, 2)

        rig.guest.model.program = Script(main, handler)
        rig.kernel.ioctl(rig.guest.fd, uapi.KVM_RUN)
        rig.mark()
        rise()
        rig.kernel.ioctl(rig.guest.fd, uapi.KVM_RUN)
        assert handled == 100
        rig.events.clear()
        gc.collect()
        before = sizes(rig)
        rig.kernel.ioctl(rig.guest.fd, uapi.KVM_RUN)
        rig.events.clear()
        assert (raised, handled) == (total, total)
        assert rig.n("line_up") == rig.n("guest_iar") == rig.n("guest_eoi") == total
        assert rig.n("eventfd_trigger") == rig.count(rig.dev.trigger[0]) == total
        assert rig.n("hw_deactivate") == (total if forwarded else 0)
        assert rig.n("vmexit_maint") == (0 if forwarded else total)
        assert rig.n("host_irq") == total
        if not waits:
            assert rig.n("vmexit_irq") == total - 1  # the first one came while KVM_RUN was not running
        assert {name: count for name, count in sizes(rig).items() if count > before[name]} == {}


@both
def test_two_vcpus_share_a_physical_cpu(forwarded: bool) -> None:
    """The interrupt finds the other vCPU in the guest: that one exits, its own vCPU takes it at its turn."""
    with Rig(forwarded=forwarded, vcpus=2, target=1) as rig:
        other, guest = rig.guests
        for _ in range(3):
            other.slice()
            rig.mark()
            rig.dev.line(True)
            other.slice()
            assert rig.counts("vmexit_irq", "host_irq", "work") == {"vmexit_irq": 1, "host_irq": 1, "work": 1}
            assert guest.lrs == []
            guest.slice()
            assert rig.n("vmexit_preempt") == 1
            assert guest.lrs == [f"{V} pending HW->109" if forwarded else f"{V} pending EOI"]
            assert guest.ack() == V
            other.slice()  # preempted with the interrupt active
            assert guest.lrs == [f"{V} active HW->109" if forwarded else f"{V} active EOI"]
            assert (other.model.in_guest, guest.model.in_guest) == (True, False)
            guest.do(lambda: rig.dev.line(False))
            guest.eoi(V)
            assert rig.counts("hw_deactivate", "vmexit_maint") == {
                "hw_deactivate": int(forwarded),
                "vmexit_maint": int(not forwarded),
            }
            assert other.lrs == []
            assert rig.dev.p() == "en I"


def test_two_devices_forwarded_in_one_vm() -> None:
    with Rig(forwarded=True) as rig:
        disk = Assigned(rig, DISK)
        rig.vm.irqfd(disk.trigger[0], disk.resample[0], GSI + 1)
        rig.vm.assign(disk.fd, gsi=GSI + 1)
        rig.guest.boot(V, V + 1)
        disk.line(True)
        rig.hit()
        assert rig.guest.lrs == [f"{V} pending HW->109", f"{V + 1} pending HW->112"]
        assert (rig.dev.p(), disk.p()) == ("en AP", "en AP")
        rig.mark()
        assert rig.serve() == V
        assert (rig.dev.p(), disk.p()) == ("en I", "en AP")
        assert rig.guest.ack() == V + 1
        rig.guest.do(lambda: disk.line(False))
        rig.guest.eoi(V + 1)
        assert (rig.dev.p(), disk.p()) == ("en I", "en I")
        assert rig.counts("hw_deactivate", "vmexit_maint", "resample_ack") == {
            "hw_deactivate": 2,
            "vmexit_maint": 0,
            "resample_ack": 0,
        }


def test_one_forwarded_and_one_not_in_one_vm() -> None:
    with Rig(forwarded=True) as rig:
        disk = Assigned(rig, DISK)
        rig.vm.irqfd(disk.trigger[0], disk.resample[0], GSI + 1)
        rig.guest.boot(V, V + 1)
        disk.line(True)
        rig.hit()
        rig.serve()
        assert rig.guest.ack() == V + 1
        rig.guest.do(lambda: disk.line(False))
        rig.guest.eoi(V + 1)
        assert rig.counts("hw_deactivate", "vmexit_maint", "eventfd_resample") == {
            "hw_deactivate": 1,
            "vmexit_maint": 1,
            "eventfd_resample": 1,
        }
        assert (rig.dev.p(), disk.p()) == ("en I", "en I")


def second_vm(rig: Rig) -> Vm:
    vm = Vm(rig)
    vm.guests[0].start()
    vm.guests[0].boot(V)
    return vm


def test_one_interrupt_is_forwarded_to_one_vm_only() -> None:
    with Rig(forwarded=True) as rig:
        vm = second_vm(rig)
        before = rig.dev.refs
        with fails("EBUSY"):
            vm.assign(rig.dev.fd)
        assert rig.dev.refs == before
        with fails("EINVAL"):
            vm.deassign(rig.dev.fd)
        assert rig.dev.desc().forwarded
        assert list(vm.vgic.physmap) == []
        rig.vm.deassign(rig.dev.fd)
        vm.assign(rig.dev.fd)
        assert rig.dev.refs == before


def test_one_eventfd_in_two_vms_injects_into_both() -> None:
    with Rig() as rig:
        vm = second_vm(rig)
        second = rig.eventfd()
        vm.irqfd(rig.dev.trigger[0], second)
        rig.hit()
        other = vm.guests[0]
        other.slice()
        assert rig.guest.lrs == other.lrs == [f"{V} pending EOI"]
        assert rig.serve() == V
        assert not rig.dev.irq().masked
        assert other.ack() == V
        other.eoi(V)
        assert (rig.count(rig.dev.resample[0]), rig.count(second)) == (1, 1)


def test_forwarded_in_one_vm_and_an_irqfd_in_another() -> None:
    """The second VM's interrupt is an ordinary one, whatever the first one's completion does in hardware."""
    with Rig(forwarded=True) as rig:
        vm = second_vm(rig)
        second = rig.eventfd()
        vm.irqfd(rig.dev.trigger[0], second)
        rig.hit()
        other = vm.guests[0]
        other.slice()
        assert (rig.guest.lrs, other.lrs) == ([f"{V} pending HW->109"], [f"{V} pending EOI"])
        assert other.ack() == V
        other.eoi(V)
        assert rig.dev.p() == "en AP"
        assert rig.serve() == V
        assert rig.dev.p() == "en I"


def test_a_guest_that_exits_all_the_time_leaves_others_their_turn_and_time_goes_on() -> None:
    """It polls the distributor, which the host emulates, for what another vCPU does and for what time brings."""
    with Rig(vcpus=2, cpus=2, boot=False) as rig:
        polls = 0
        seen: list[str] = []

        def poller(cpu: Cpu) -> Routine:
            nonlocal polls
            while not (yield read(DIST)) & 1:
                polls += 1
                assert polls < 10_000
            seen.append("the other vCPU")
            while not rig.dev.lines[0].level:
                yield read(DIST)
                polls += 1
                assert polls < 10_000
            seen.append("time")
            while True:
                yield work(1)

        def writer(cpu: Cpu) -> Routine:
            yield work(10)
            yield from cpu.enable_gic()
            while True:
                yield work(1)

        for guest, main in zip(rig.guests, (poller, writer), strict=True):
            guest.model.program = Script(main)
            guest.start()
        rig.kernel.after(5000, lambda: rig.dev.line(True))
        for _ in range(400):
            for guest in rig.guests:
                guest.slice()
        assert seen == ["the other vCPU", "time"]
        rig.dev.line(False)
