"""Many interrupts, few list registers, and the second hit of a forwarded one: sections 3.6 and 3.7 of the contract."""

from __future__ import annotations

import pytest
from scenarios.rig import DIST, GSI, TRIGGER, Rig, write

from kvmvfio_emu import uapi
from kvmvfio_emu.hw.gich import HCR_UIE

V = GSI + 32


def test_more_pending_interrupts_than_list_registers() -> None:
    spis = [50, 51, 52, 53, 54]
    with Rig(list_registers=2) as rig:
        rig.guest.boot(*spis)
        rig.guest.stop()
        for spi in spis:
            rig.vm.irq_line(spi, 1)
        rig.guest.start().slice()
        interface = rig.guest.model.interface
        assert rig.guest.lrs == ["50 pending EOI", "51 pending EOI"]
        assert interface.hcr & HCR_UIE
        assert rig.vm.vgic.oracle == {0}
        rig.mark()
        taken = []
        for _ in spis:
            irq = rig.guest.ack()
            taken.append(irq)
            rig.guest.do(lambda irq=irq: rig.vm.vgic.inject(0, irq, False))
            rig.guest.eoi(irq)
        assert taken == spis
        assert not interface.hcr & HCR_UIE
        assert (rig.guest.lrs, rig.vm.vgic.oracle) == ([], set())


def test_a_level_that_does_not_change_kicks_nobody() -> None:
    with Rig(list_registers=2) as rig:
        rig.guest.boot(50, 51, 52)
        for spi in (50, 51, 52):
            rig.vm.irq_line(spi, 1)
        rig.guest.slice(2)
        assert rig.guest.lrs == ["50 pending EOI", "51 pending EOI"]
        rig.mark()
        rig.vm.irq_line(50, 1)
        rig.vm.irq_line(52, 1)  # waits for a list register
        assert rig.guest.model.forced is None
        assert rig.counts() == {}


def test_underflow_exits_when_the_guest_is_about_to_run_dry() -> None:
    with Rig(list_registers=2) as rig:
        rig.vm.assign(rig.dev.fd, 0, gsi=40)
        rig.vm.assign(rig.dev.fd, 1, gsi=41)
        rig.vm.assign(rig.dev.fd, 2, gsi=42)
        for index in range(3):
            if index:
                rig.vm.irqfd(rig.dev.trigger[index], rig.dev.resample[index], gsi=40 + index)
        rig.vm.irqfd(rig.dev.trigger[0], deassign=True)
        rig.vm.irqfd(rig.dev.trigger[0], rig.dev.resample[0], gsi=40)
        rig.guest.boot(72, 73, 74)
        for index in range(3):
            rig.dev.line(True, index)
        rig.guest.slice(2)
        assert rig.guest.lrs == ["72 pending HW->109", "73 pending HW->110"]
        assert [rig.dev.p(index) for index in range(3)] == ["en AP"] * 3
        for index in range(3):
            rig.mark()
            assert rig.guest.ack() == 72 + index
            rig.guest.do(lambda index=index: rig.dev.line(False, index))
            rig.guest.eoi(72 + index)
            assert rig.n("hw_deactivate") == 1
            assert rig.n("vmexit_maint") == (1 if index == 0 else 0)  # the underflow, not the completion
        assert [rig.dev.p(index) for index in range(3)] == ["en I"] * 3
        assert rig.guest.lrs == []


def hit_twice(rig: Rig) -> None:
    rig.hit()
    rig.serve()
    rig.hit()


def test_with_the_fix_the_second_hit_is_delivered() -> None:
    with Rig(forwarded=True) as rig:
        hit_twice(rig)
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        v = rig.vm.v()
        assert (v.level, v.pending, v.queued) == (False, False, False)
        assert rig.dev.p() == "en I"


def test_without_the_fix_the_second_hit_is_lost() -> None:
    with Rig(forwarded=True) as rig:
        rig.vm.vgic.forwarded_fix = False
        hit_twice(rig)
        assert rig.n("set_irq") == 2
        assert rig.guest.lrs == []
        v = rig.vm.v()
        assert (v.level, v.queued) == (True, True)  # as it was left: nobody lowers it
        assert rig.guest.ack() == 1023
        assert rig.dev.p() == "en AP"  # for ever


def test_a_hit_before_the_empty_list_register_was_seen() -> None:
    """The vCPU is on another CPU than the interrupt: injection overtakes sync."""
    with Rig(forwarded=True, cpus=2, vcpus=2, target=1) as rig:
        rig.guests[0].stop()
        rig.hit()
        rig.guest.ack()
        with rig.watched() as seen:
            rig.guest.eoi(V)  # the line is still high
        injected = next(snap for snap in seen if snap.event == "set_irq")
        assert injected.lr == "invalid HW->109"
        assert [snap.event for snap in seen].index("set_irq") < [snap.event for snap in seen].index("vmexit_kick")
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        assert rig.n("guest_iar") == 2
        assert rig.dev.p() == "en I"


def test_a_hit_while_it_is_active_waits_and_is_never_pending_and_active() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        rig.dev.now(TRIGGER)  # what hardware cannot do: a hit of an active interrupt
        rig.guest.slice(2)
        assert rig.guest.lrs == [f"{V} active HW->109"]
        assert rig.vm.v().pending
        rig.guest.do(lambda: rig.dev.line(False))
        rig.guest.eoi(V)
        rig.guest.model.force_exit("kick")  # any exit
        rig.guest.slice()
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        assert rig.guest.lrs == []


def test_hits_before_the_guest_acks_are_one() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        for _ in range(3):
            rig.dev.now(TRIGGER)
            rig.guest.slice(2)
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        rig.guest.model.force_exit("kick")
        rig.guest.slice()
        assert rig.guest.lrs == []


def test_an_ordinary_level_interrupt_is_not_queued_twice() -> None:
    with Rig() as rig:
        rig.guest.boot(60)
        rig.vm.irq_line(60, 1)
        rig.guest.slice(2)
        assert rig.guest.ack() == 60
        rig.vm.irq_line(60, 0)
        rig.vm.irq_line(60, 1)
        rig.guest.slice(2)
        assert rig.guest.lrs == ["60 active EOI"]  # queued: it waits for the EOI
        rig.guest.eoi(60)
        assert rig.guest.lrs == ["60 pending EOI"]
        rig.vm.irq_line(60, 0)


def test_an_ordinary_edge_interrupt_piggybacks() -> None:
    with Rig() as rig:
        rig.guest.do(write(DIST + 0xC00 + 60 // 16 * 4, 2 << 60 % 16 * 2))
        rig.guest.boot(60)
        rig.vm.irq_line(60, 1)
        rig.guest.slice(2)
        assert rig.guest.ack() == 60
        rig.vm.irq_line(60, 1)
        rig.guest.slice(2)
        assert rig.guest.lrs == ["60 pending+active"]
        rig.guest.eoi(60)
        assert rig.guest.lrs == ["60 pending"]


def test_a_forwarded_irq_line_from_userspace_is_delivered_and_harmless() -> None:
    with Rig(forwarded=True) as rig:
        rig.vm.irq_line(V, 1)
        rig.guest.slice(2)
        assert rig.guest.lrs == [f"{V} pending HW->109"]
        assert rig.serve() == V
        assert rig.dev.p() == "en I"
        rig.works()


@pytest.mark.parametrize("forwarded", [False, True])
def test_save_and_restore_access_moves_a_pending_one_back_and_loses_nothing(forwarded: bool) -> None:
    with Rig(forwarded=forwarded) as rig:
        rig.hit()
        rig.guest.stop()
        value = read_pending(rig)
        assert value >> V % 32 & 1
        assert rig.guest.lrs == []
        rig.guest.start().slice()
        assert rig.guest.lrs == [f"{V} pending HW->109" if forwarded else f"{V} pending EOI"]
        assert rig.serve() == V
        assert (rig.dev.p(), rig.dev.irq().masked) == ("en I", False)


def read_pending(rig: Rig) -> int:
    """GICD_ISPENDR through KVM_GET_DEVICE_ATTR."""
    data = uapi.ffi.new("uint32_t *")
    address = int(uapi.ffi.cast("uintptr_t", data))
    offset = 0x200 + V // 32 * 4
    rig.vm.attr(uapi.KVM_GET_DEVICE_ATTR, rig.vm.vgic_fd, uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, address)
    return int(data[0])
