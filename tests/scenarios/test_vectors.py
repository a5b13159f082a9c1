"""The test vectors of the contract's section 10, one test each, by number."""

from __future__ import annotations

from typing import Any

import pytest
from scenarios.rig import AMBA, CPU, DISK, DIST, GSI, PCI, UNMASK, Assigned, Rig, Vm, fails

from kvmvfio_emu import uapi

V = GSI + 32
HAS, GET, SET = uapi.KVM_HAS_DEVICE_ATTR, uapi.KVM_GET_DEVICE_ATTR, uapi.KVM_SET_DEVICE_ATTR
DEVICE, ASSIGN, DEASSIGN = (
    uapi.KVM_DEV_VFIO_DEVICE,
    uapi.KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ,
    uapi.KVM_DEV_VFIO_DEVICE_DEASSIGN_IRQ,
)


def address_of(data: Any) -> int:
    return int(uapi.ffi.cast("uintptr_t", data))


def test_01_the_struct_has_12_bytes() -> None:
    struct = uapi.ffi.typeof("struct kvm_arch_forwarded_irq")
    assert uapi.sizeof("struct kvm_arch_forwarded_irq") == 12
    assert {name: field.offset for name, field in struct.fields} == {"fd": 0, "index": 4, "gsi": 8}


def test_02_assign_is_there() -> None:
    with Rig() as rig:
        assert (DEVICE, ASSIGN, DEASSIGN) == (2, 1, 2)
        assert rig.vm.attr(HAS, rig.vm.control, 2, 1, 0xDEAD) == 0
        assert rig.vm.attr(HAS, rig.vm.control, 2, 2) == 0


def test_03_there_is_no_third_attribute() -> None:
    with Rig() as rig:
        for attr in (0, 3, 1 << 32 | 1):
            with fails("ENXIO"):
                rig.vm.attr(HAS, rig.vm.control, 2, attr)
        with fails("ENXIO"):
            rig.vm.attr(SET, rig.vm.control, 2, 3, 0)  # before the payload is read


def test_04_mainline_has_no_device_group() -> None:
    with Rig(profile="mainline") as rig:
        for attr in (1, 2):
            with fails("ENXIO"):
                rig.vm.attr(HAS, rig.vm.control, 2, attr)
            with fails("ENXIO"):
                rig.vm.attr(SET, rig.vm.control, 2, attr, 0)


def test_05_nothing_can_be_read() -> None:
    with Rig() as rig:
        with fails("EPERM"):
            rig.vm.attr(GET, rig.vm.control, 2, 1)
        for bad in (0, 0x10):
            with fails("EPERM"):
                rig.kernel.ioctl(rig.vm.control, GET, bad)


def test_06_one_kvm_vfio_device_a_vm() -> None:
    with Rig() as rig:
        assert rig.vm.control
        with fails("EBUSY"):
            rig.vm.create_device(uapi.KVM_DEV_TYPE_VFIO)
        rig.vm.create_device(uapi.KVM_DEV_TYPE_VFIO, uapi.KVM_CREATE_DEVICE_TEST)


def test_07_closing_the_first_makes_no_room() -> None:
    with Rig() as rig:
        rig.close(rig.vm.control)
        with fails("EBUSY"):
            rig.vm.create_device(uapi.KVM_DEV_TYPE_VFIO)


def test_08_null_payload() -> None:
    with Rig() as rig, fails("EFAULT"):
        rig.vm.attr(SET, rig.vm.control, DEVICE, ASSIGN, 0)


@pytest.mark.parametrize("fd", [0xFFFFFFFF, 0x80000000, 999_999])
def test_09_a_bad_descriptor(fd: int) -> None:
    with Rig() as rig, fails("EBADF"):
        rig.vm.assign(fd)


@pytest.mark.parametrize("what", ["group", "container", "eventfd", "vm", "kvm"])
def test_10_a_descriptor_of_something_else(what: str) -> None:
    with Rig() as rig:
        fd = {
            "group": rig.dev.group,
            "container": rig.dev.container,
            "eventfd": rig.dev.trigger[0],
            "vm": rig.vm.fd,
            "kvm": rig.kvm,
        }[what]
        with fails("EINVAL"):
            rig.vm.assign(fd)


@pytest.mark.parametrize("name", [PCI, AMBA])
def test_11_a_device_of_another_bus(name: str) -> None:
    with Rig() as rig:
        _, _, fd = rig.open_device(name)
        device = next(group.devices[name] for group in rig.vfio.groups.values() if name in group.devices)
        refs = device.refs
        with fails("EINVAL"):
            rig.vm.assign(fd)
        assert device.refs == refs


@pytest.mark.parametrize("index", [3, 0xFFFFFFFF])
def test_12_an_index_without_interrupt(index: int) -> None:
    with Rig() as rig:
        with fails("EINVAL"):
            rig.vm.assign(rig.dev.fd, index)
        rig.vm.assign(rig.dev.fd, 2)


def test_13_assign_twice() -> None:
    with Rig() as rig:
        before = rig.dev.refs
        rig.vm.assign(rig.dev.fd)
        assert rig.dev.refs == before + 1
        for gsi in (GSI, GSI + 1):
            with fails("EINVAL"):
                rig.vm.assign(rig.dev.fd, gsi=gsi)
        assert rig.dev.refs == before + 1


def test_14_another_interrupt_on_the_same_gsi() -> None:
    with Rig(forwarded=True) as rig:
        before = rig.dev.refs
        with fails("EEXIST"):
            rig.vm.assign(rig.dev.fd, 1)
        assert rig.dev.refs == before
        assert not rig.dev.desc(1).forwarded
        disk = Assigned(rig, DISK)
        with fails("EEXIST"):
            rig.vm.assign(disk.fd)
        assert not disk.desc().forwarded


def test_15_deassign_twice() -> None:
    with Rig(forwarded=True) as rig:
        before = rig.dev.refs
        rig.vm.deassign(rig.dev.fd, gsi=99)  # the recorded gsi counts
        assert rig.dev.refs == before - 1
        assert not rig.dev.desc().forwarded
        assert list(rig.vm.vgic.physmap) == []
        with fails("EINVAL"):
            rig.vm.deassign(rig.dev.fd)


def test_16_one_level_hit_unforwarded() -> None:
    with Rig() as rig:
        rig.hit()
        rig.serve()
        names = "vmexit_irq", "vmexit_maint", "host_irq", "host_irq_lazy", "gicd_mask", "gicd_unmask", "set_irq", "work"
        assert list(rig.counts(*names).values()) == [1, 1, 1, 1, 1, 1, 2, 1]
        assert [rig.count(rig.dev.trigger[0]), rig.count(rig.dev.resample[0])] == [1, 1]
        assert rig.n("hw_deactivate") == 0


def test_17_one_level_hit_forwarded() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.serve()
        names = "vmexit_irq", "vmexit_maint", "host_irq", "host_irq_lazy", "gicd_mask", "gicd_unmask", "set_irq", "work"
        assert list(rig.counts(*names).values()) == [1, 0, 1, 0, 0, 0, 1, 1]
        assert [rig.count(rig.dev.trigger[0]), rig.count(rig.dev.resample[0])] == [1, 0]
        assert rig.n("hw_deactivate") == 1


def test_18_line_high_over_three_eois_forwarded() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        for _ in range(2):
            rig.guest.eoi(rig.guest.ack())
        rig.serve()
        assert list(rig.counts("hw_deactivate", "vmexit_irq", "vmexit_maint").values()) == [3, 3, 0]
        assert rig.count(rig.dev.trigger[0]) == 3


def test_19_second_hit_before_the_list_register_was_seen_empty() -> None:
    with Rig(forwarded=True, cpus=2, vcpus=2, target=1) as rig:
        rig.guests[0].stop()
        rig.hit()
        rig.guest.ack()
        stop = rig.kernel.listen(lambda event: rig.vm.vgic.check())  # pending and active is never seen
        with rig.watched() as seen:
            rig.guest.eoi(V)
        stop()
        assert next(snap.lr for snap in seen if snap.event == "set_irq") == "invalid HW->109"
        assert rig.serve() == V
        assert rig.n("guest_iar") == 2
        assert rig.dev.p() == "en I"


def test_20_unmask_eventfd_twice() -> None:
    with Rig() as rig:
        with fails("EBUSY"):
            rig.dev.set_eventfd(UNMASK, rig.dev.resample[0])
        rig.dev.set_eventfd(UNMASK, -1)
        rig.dev.set_eventfd(UNMASK, rig.dev.resample[0])


def test_21_the_same_eventfd_for_two_irqfds() -> None:
    with Rig() as rig:
        for gsi in (GSI, GSI + 1):
            with fails("EBUSY"):
                rig.vm.irqfd(rig.dev.trigger[0], gsi=gsi)


def test_22_the_vm_goes_with_a_forwarded_and_active_interrupt() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        rig.dev.line(False)
        assert rig.dev.p() == "en A"
        before = rig.dev.refs
        rig.stop()
        rig.close(rig.vm.fd, rig.guest.fd, rig.vm.vgic_fd, rig.vm.control)
        assert rig.vms == []
        assert rig.dev.p() == "en I"
        assert not rig.dev.desc().forwarded
        assert rig.dev.refs == before - 1
        rig.close(rig.dev.fd)
        assert rig.vfio.unbind(rig.dev.name)


def test_23_the_device_goes_first_and_then_the_vm() -> None:
    with Rig(forwarded=True) as rig:
        rig.hit()
        rig.guest.ack()
        rig.dev.line(False)
        rig.stop()
        rig.close(rig.dev.fd)
        assert rig.dev.p() == "dis I"
        assert rig.dev.refs == 2  # the bound driver and the forwarded interrupt
        rig.close(rig.vm.fd, rig.guest.fd, rig.vm.vgic_fd, rig.vm.control)
        assert not rig.dev.desc().forwarded
        assert rig.dev.refs == 1
        assert rig.vfio.unbind(rig.dev.name)


def test_24_unset_container_while_kvm_has_the_group() -> None:
    with Rig() as rig:
        rig.vm.group(uapi.KVM_DEV_VFIO_GROUP_ADD, rig.dev.group)
        rig.close(rig.dev.fd)
        with fails("EBUSY"):
            rig.kernel.ioctl(rig.dev.group, uapi.VFIO_GROUP_UNSET_CONTAINER)
        rig.vm.group(uapi.KVM_DEV_VFIO_GROUP_DEL, rig.dev.group)
        rig.kernel.ioctl(rig.dev.group, uapi.VFIO_GROUP_UNSET_CONTAINER)


def set_irqs(vm: Vm, count: int) -> None:
    vm.set_attr(vm.vgic_fd, uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, count.to_bytes(4, "little"))


def test_25_numbers_of_interrupts() -> None:
    with Rig() as rig:
        vm = Vm(rig)
        for count in (32, 63, 1056):
            with fails("EINVAL"):
                set_irqs(vm, count)
        set_irqs(vm, 64)
        with fails("EBUSY"):
            set_irqs(vm, 64)


def test_26_overlapping_frames() -> None:
    with Rig() as rig:
        vm: int = rig.kernel.ioctl(rig.kvm, uapi.KVM_CREATE_VM)
        rig.fds.append(vm)
        create = uapi.pack("struct kvm_create_device", type=uapi.KVM_DEV_TYPE_ARM_VGIC_V2)
        rig.kernel.ioctl(vm, uapi.KVM_CREATE_DEVICE, create)
        vgic = uapi.view("struct kvm_create_device", create).fd
        rig.fds.append(vgic)

        def place(frame: int, address: int) -> None:
            rig.vm.set_attr(vgic, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, frame, address.to_bytes(8, "little"))

        place(uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, DIST)
        with fails("EBUSY"):
            place(uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, DIST - 0x1000)
        data = uapi.ffi.new("uint64_t *")
        rig.vm.attr(GET, vgic, uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, address_of(data))
        assert data[0] == (1 << 64) - 1
        place(uapi.KVM_VGIC_V2_ADDR_TYPE_CPU, CPU)
