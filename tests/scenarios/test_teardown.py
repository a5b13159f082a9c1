"""Who holds what, and what is left when it goes: sections 2.7 and 2.8 of the contract, in every order of closing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios.rig import GSI, NET, TRIGGER, Rig, Vm, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.vfio import external

V = GSI + 32


def destroy_vm(rig: Rig) -> None:
    rig.stop()
    vm = rig.vm
    rig.close(vm.fd, vm.vgic_fd, *(guest.fd for guest in rig.guests), *([vm.control] if vm._control else []))
    assert rig.vms == []


# -- 2.7: reference counts --------------------------------------------------------------------------------------------


def test_a_vm_is_held_by_its_own_its_vcpus_and_its_devices_descriptors() -> None:
    with Rig(vcpus=2) as rig:
        model = rig.vm.model
        assert len(model.files) == 4  # VM, two vCPUs, VGIC
        fds = [rig.vm.fd, rig.guests[0].fd, rig.vm.control, rig.vm.vgic_fd, rig.guests[1].fd]
        assert len(model.files) == 5
        rig.stop()
        for left, fd in zip((4, 3, 2, 1, 0), fds, strict=True):
            assert rig.vms == [model]
            rig.close(fd)
            assert len(model.files) == left
        assert rig.vms == []


def test_a_groups_container_users() -> None:
    with Rig() as rig:
        group = rig.dev.vfio_group
        assert group.container_users == 2  # SET_CONTAINER, the device
        second = rig.get_device(rig.dev.group)
        assert group.container_users == 3
        rig.vm.group(uapi.KVM_DEV_VFIO_GROUP_ADD, rig.dev.group)
        assert group.container_users == 4
        rig.vm.assign(rig.dev.fd)
        assert group.container_users == 4  # a forwarded interrupt is none
        rig.close(rig.dev.group)
        assert group.container_users == 3
        rig.close(rig.dev.fd)
        assert group.container_users == 2
        rig.close(second)
        assert group.container_users == 1
        assert group.container is not None
        destroy_vm(rig)
        assert group.container_users == 0
        assert group.container is None


def test_a_groups_references() -> None:
    with Rig() as rig:
        group = rig.dev.vfio_group
        assert group.refs == 2  # its file, its device
        rig.vm.group(uapi.KVM_DEV_VFIO_GROUP_ADD, rig.dev.group)
        assert group.refs == 3
        rig.close(rig.dev.group)
        assert group.refs == 2
        destroy_vm(rig)
        assert group.refs == 1


def test_a_devices_references() -> None:
    with Rig() as rig:
        assert rig.dev.refs == 2  # the bound driver, the descriptor
        rig.vm.assign(rig.dev.fd, 0, GSI)
        rig.vm.assign(rig.dev.fd, 1, GSI + 1)
        assert rig.dev.refs == 4
        second = rig.get_device(rig.dev.group)
        assert rig.dev.refs == 5
        rig.vm.deassign(second, 1)
        assert rig.dev.refs == 4
        rig.close(second, rig.dev.fd)
        assert rig.dev.refs == 2
        destroy_vm(rig)
        assert rig.dev.refs == 1


def test_a_duplicate_is_no_reference_but_keeps_the_file() -> None:
    with Rig(forwarded=True) as rig:
        copies = [rig.dup(fd) for fd in (rig.dev.fd, rig.dev.group, rig.vm.fd, rig.vm.control)]
        assert rig.dev.refs == 3
        rig.close(rig.dev.fd, rig.dev.group, rig.vm.fd, rig.vm.control)
        assert (rig.dev.refs, rig.dev.vfio_group.container_users) == (3, 2)
        rig.works()
        assert len(rig.vm.model.irqfds.active) == 1
        rig.vm.fd = copies[2]
        rig.vm._control = copies[3]
        rig.vm.deassign(copies[0])
        rig.close(copies[0])
        assert (rig.dev.refs, rig.dev.p()) == (1, "dis I")


def test_kvm_run_in_progress_holds_the_vcpus_file() -> None:
    """As fdget does: the vCPU's descriptor may be closed by another thread while the ioctl runs."""
    with Rig() as rig:
        rig.close(rig.guest.fd, rig.vm.fd, rig.vm.vgic_fd)
        assert len(rig.vms) == 1
        rig.guest.slice(3)
        rig.guest.stop()
        assert rig.vms == []


# -- 2.8: the rows ----------------------------------------------------------------------------------------------------


def test_kvm_vfio_goes_with_forwarded_interrupts_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left_when_group_went = []
    put = external.group_put_external_user

    def spied(group: external.VfioGroup) -> None:
        left_when_group_went.append(group.devices[NET].external_users)
        put(group)

    with Rig(forwarded=True) as rig:
        rig.vm.group(uapi.KVM_DEV_VFIO_GROUP_ADD, rig.dev.group)
        rig.vm.assign(rig.dev.fd, 1, GSI + 1)
        rig.hit()
        rig.dev.line(False)
        monkeypatch.setattr(external, "group_put_external_user", spied)
        destroy_vm(rig)
        assert [rig.dev.desc(index).forwarded for index in (0, 1)] == [False, False]
        assert rig.dev.p() == "en I"
        assert rig.n("host_deactivate") == 1  # only of the active one
        assert rig.dev.refs == 2
        assert left_when_group_went == [0]  # interrupts before groups
        assert rig.dev.vfio_group.container_users == 2


def test_closing_the_kvm_vfio_descriptor_changes_nothing() -> None:
    with Rig(forwarded=True) as rig:
        rig.vm.group(uapi.KVM_DEV_VFIO_GROUP_ADD, rig.dev.group)
        before = rig.dev.refs, rig.dev.vfio_group.container_users
        rig.close(rig.vm.control)
        assert (rig.dev.refs, rig.dev.vfio_group.container_users) == before
        assert rig.dev.desc().forwarded
        rig.works()
        assert rig.n("hw_deactivate") == 1


def test_closing_the_vm_descriptor_ends_the_irqfds_though_the_vm_lives() -> None:
    with Rig(forwarded=True) as rig:
        rig.close(rig.vm.fd)
        assert len(rig.vms) == 1
        rig.count(rig.dev.trigger[0])
        rig.mark()
        rig.hit()
        assert rig.counts("eventfd_trigger", "work", "set_irq") == {"eventfd_trigger": 1, "work": 0, "set_irq": 0}
        assert rig.count(rig.dev.trigger[0]) == 1
        assert rig.guest.lrs == []
        rig.dev.line(False)
        rig.guest.slice(3)
        assert rig.dev.p() == "en A"  # for ever: nobody completes it
        rig.dev.line(True)
        rig.guest.slice(3)
        assert rig.n("host_irq") == 1
        rig.stop()
        rig.close(rig.guest.fd, rig.vm.vgic_fd, rig.vm.control)
        assert rig.dev.p() == "dis P"  # cleaned up; the line is high, so it came again, unforwarded


def test_closing_the_device_while_forwarded() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        group = rig.dev.vfio_group
        rig.close(rig.dev.fd)
        desc = rig.dev.desc()
        assert rig.dev.p() == "dis P"  # masked, and not active any more
        assert desc.handler is None
        assert desc.forwarded  # and so are map, record and reference
        assert [(node.virt, node.phys) for node in rig.vm.vgic.physmap] == [(V, desc.hwirq)]
        assert rig.dev.refs == 2
        assert group.container_users == 1
        rig.close(rig.dev.group)
        assert group.container is None  # dissolved, though KVM holds the device
        rig.guest.eoi(V)  # no crash
        assert rig.guest.lrs == []
        rig.mark()
        rig.dev.line(False)
        rig.hit()
        assert rig.counts("host_irq", "eventfd_trigger") == {"host_irq": 0, "eventfd_trigger": 0}


def test_deassign_after_the_device_was_closed_takes_a_new_descriptor() -> None:
    with Rig(forwarded=True) as rig:
        rig.close(rig.dev.fd)
        with fails("EBADF"):
            rig.vm.deassign(rig.dev.fd)
        again = rig.get_device(rig.dev.group)
        rig.vm.deassign(again)
        assert not rig.dev.desc().forwarded
        assert rig.dev.refs == 2


def test_a_device_opened_again_is_forwarded_at_once() -> None:
    with Rig(forwarded=True) as rig:
        rig.close(rig.dev.fd)
        rig.dev.fd = rig.get_device(rig.dev.group)
        rig.dev.set_eventfd(TRIGGER, rig.dev.trigger[0])
        rig.works()
        assert rig.counts("hw_deactivate", "resample_ack") == {"hw_deactivate": 1, "resample_ack": 0}


@pytest.mark.parametrize("how", ["deassign", "vm"])
def test_unbinding_the_driver_waits_for_the_forwarded_interrupt(how: str) -> None:
    with Rig(forwarded=True) as rig:
        assert not rig.vfio.unbind(NET)
        assert not rig.vfio.unbind(NET)
        group = rig.dev.vfio_group
        if how == "deassign":
            rig.vm.deassign(rig.dev.fd)
            assert not rig.vfio.unbind(NET)  # the descriptor
            rig.close(rig.dev.fd)
        else:
            rig.close(rig.dev.fd)
            assert not rig.vfio.unbind(NET)  # the forwarded interrupt
            destroy_vm(rig)
        assert group.devices == {}
        assert rig.vfio.devices[NET].driver == ""
        assert rig.n("driver_unbound") == 1
        assert not rig.dev.desc().forwarded


def test_removing_the_trigger_while_forwarded() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        rig.dev.set_eventfd(TRIGGER, -1)
        assert rig.dev.p() == "dis P"
        assert rig.dev.desc().handler is None
        assert rig.dev.desc().forwarded
        rig.guest.do(lambda: rig.dev.line(False))
        rig.guest.eoi(V)
        rig.dev.set_eventfd(TRIGGER, rig.dev.trigger[0])
        rig.works()
        assert rig.n("resample_ack") == 0


def test_the_order_in_which_a_vm_goes() -> None:
    order: list[str] = []
    with Rig(forwarded=True) as rig:
        model = rig.vm.model

        def note(event: object) -> None:
            if getattr(event, "name", "") == "forward_deassign":
                order.append(f"vcpus {len(model.vcpus)}, vgic {model.vgic is not None}")

        rig.kernel.listen(note)
        destroy_vm(rig)
    assert order == ["vcpus 0, vgic False"]


# -- any order at all -------------------------------------------------------------------------------------------------


def idle(rig: Rig) -> None:
    pass


def pending(rig: Rig) -> None:
    rig.hit()


def active(rig: Rig) -> None:
    rig.hit()
    rig.guest.ack()


def active_and_quiet(rig: Rig) -> None:
    active(rig)
    rig.dev.line(False)


def completed_but_unseen(rig: Rig) -> None:
    rig.hit()
    rig.serve()


def not_delivered(rig: Rig) -> None:
    rig.guest.stop()
    rig.dev.line(True)


def retired(rig: Rig) -> None:
    active(rig)
    rig.guest.do(rig.guest.cpu.disable_irq(V))


STAGES: list[Callable[[Rig], None]] = [
    idle,
    pending,
    active,
    active_and_quiet,
    completed_but_unseen,
    not_delivered,
    retired,
]


def grouped(forwarded: bool) -> Rig:
    rig = Rig(forwarded=forwarded)
    rig.vm.group(uapi.KVM_DEV_VFIO_GROUP_ADD, rig.dev.group)
    return rig


@settings(max_examples=150, deadline=None)
@given(data=st.data(), forwarded=st.booleans(), stage=st.sampled_from(STAGES), stopped=st.booleans())
def test_closing_everything_in_any_order(
    data: st.DataObject, forwarded: bool, stage: Callable[[Rig], None], stopped: bool
) -> None:
    with grouped(forwarded) as rig:
        stage(rig)
        if stopped:
            rig.stop()
        for fd in data.draw(st.permutations(rig.fds)):
            rig.close(fd)
        rig.stop()
        rig.assert_clean()
        rig.dev.line(False)
        rig.assert_reusable()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("forwarded", [False, True])
def test_the_process_exits(stage: Callable[[Rig], None], forwarded: bool) -> None:
    with grouped(forwarded) as rig:
        stage(rig)
        rig.exit()
        rig.assert_clean()
        rig.assert_reusable()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_with_duplicates_only_the_last_close_counts(data: st.DataObject) -> None:
    with grouped(True) as rig:
        active(rig)
        rig.stop()
        for fd in tuple(rig.fds):
            if fd not in rig.eventfds:
                rig.dup(fd)
        for fd in data.draw(st.permutations(rig.fds)):
            rig.close(fd)
        rig.assert_clean()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), stage=st.sampled_from(STAGES))
def test_the_work_queue_may_take_its_items_in_any_order(data: st.DataObject, stage: Callable[[Rig], None]) -> None:
    with grouped(True) as rig:
        rig.host.work.policy = lambda waiting: data.draw(st.integers(0, len(waiting) - 1))
        stage(rig)
        for fd in data.draw(st.permutations(rig.eventfds)):
            rig.close(fd)


def test_eventfds_closed_first_end_irqfd_and_virqfd() -> None:
    with Rig(forwarded=True) as rig:
        rig.close(*rig.eventfds)
        assert rig.vm.model.irqfds.active == []
        rig.hit()
        assert rig.guest.lrs == []
        assert rig.dev.p() == "en AP"
        rig.close(rig.dev.fd)


def test_a_second_vm_can_have_it_after_the_first() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        destroy_vm(rig)
        rig.dev.line(False)
        rig.vm = Vm(rig)
        rig.guests = rig.vm.guests
        rig.guest = rig.guests[0]
        rig.guest.start()
        rig.guest.boot(V)
        rig.vm.irqfd(rig.dev.trigger[0], rig.dev.resample[0])
        rig.vm.assign(rig.dev.fd)
        if rig.dev.irq().masked:
            rig.kernel.write(rig.dev.resample[0], (1).to_bytes(8, "little"))
        rig.guest.slice(2)
        if rig.guest.lrs:  # the trigger's counter was above zero, so one injection came at once
            rig.serve()
        rig.works()
