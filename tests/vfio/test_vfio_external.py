"""What KVM uses of VFIO: contract 2.4, 2.7, 2.8."""

from __future__ import annotations

import pytest
from vfio_bench import MULTI, NIC, TRIGGER, Bench, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.vfio import external


def test_group_get_of_anything_else_is_einval(bench: Bench) -> None:
    device = bench.device()
    for file in (None, bench.task.files[device], bench.task.files[bench.container()]):
        with fails("EINVAL"):
            external.group_get_external_user(file)


def test_group_get_needs_container_iommu_and_viability(bench: Bench) -> None:
    container, fd = bench.container(), bench.group(2)
    file = bench.task.files[fd]
    with fails("EINVAL"):
        external.group_get_external_user(file)
    bench.set_container(fd, container)
    with fails("EINVAL"):
        external.group_get_external_user(file)
    bench.ioctl(container, uapi.VFIO_SET_IOMMU, 3)
    bench.vfio.devices["9031000.companion"].driver = "a-host-driver"
    with fails("EINVAL"):
        external.group_get_external_user(file)
    bench.vfio.devices["9031000.companion"].driver = ""
    bench.settle()
    group = external.group_get_external_user(file)
    assert external.external_user_iommu_id(group) == 2
    external.group_put_external_user(group)
    bench.settle()


def test_group_held_by_kvm_cannot_leave_its_container(bench: Bench) -> None:
    _, fd = bench.attached()
    group = external.group_get_external_user(bench.task.files[fd])
    with fails("EBUSY"):
        bench.ioctl(fd, uapi.VFIO_GROUP_UNSET_CONTAINER)
    bench.close(fd)
    with fails("EBUSY"):
        bench.group()
    external.group_put_external_user(group)
    bench.settle()
    bench.group()


def test_group_on_newer_kernels_is_held_by_its_file() -> None:
    bench = Bench(group_add_needs_iommu=False)
    fd = bench.group()
    group = external.group_get_external_user(bench.task.files[fd])
    container = bench.container()
    bench.set_container(fd, container)
    assert bench.ioctl(fd, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0
    bench.close(fd)
    with fails("EBUSY"):
        bench.group()
    external.group_put_external_user(group)
    bench.settle()
    bench.group()


def test_check_extension_asks_the_container(bench: Bench) -> None:
    _, fd = bench.attached()
    group = external.group_get_external_user(bench.task.files[fd])
    assert external.external_check_extension(group, uapi.VFIO_DMA_CC_IOMMU) == 1
    assert external.external_check_extension(group, 99) == 0
    external.group_put_external_user(group)


def test_device_get_of_anything_else_is_einval(bench: Bench) -> None:
    container, group = bench.attached()
    for file in (None, bench.task.files[container], bench.task.files[group]):
        with fails("EINVAL"):
            external.device_get_external_user(file)


def test_base_device_has_bus_and_interrupts(bench: Bench) -> None:
    device = external.device_get_external_user(bench.task.files[bench.device()])
    base = external.external_base_device(device)
    assert (base.bus, base.name) == ("platform", NIC)
    assert base.irq(2).hwirq == 79 + 32
    for index in (3, 2**32 - 1, -1):
        with fails("EINVAL"):
            base.irq(index)
    external.device_put_external_user(device)


def test_device_held_by_kvm_keeps_neither_driver_nor_container_open(bench: Bench) -> None:
    _, group = bench.attached()
    fd, trigger = bench.get_device(group, NIC), bench.eventfd()
    bench.set_eventfd(fd, TRIGGER, trigger)
    device = external.device_get_external_user(bench.task.files[fd])
    bench.close(fd)
    assert bench.desc().handler is None
    assert bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0
    external.device_put_external_user(device)
    bench.settle()


def test_reopened_file_is_the_same_device_for_kvm(bench: Bench) -> None:
    _, group = bench.attached()
    fd = bench.get_device(group, NIC)
    device = external.device_get_external_user(bench.task.files[fd])
    bench.close(fd)
    again = external.device_get_external_user(bench.task.files[bench.get_device(group, NIC)])
    assert again is device
    external.device_put_external_user(device)
    external.device_put_external_user(device)


def test_unbind_waits_for_kvm(bench: Bench) -> None:
    fd = bench.device()
    device = external.device_get_external_user(bench.task.files[fd])
    bench.close(*sorted(bench.task.files))
    assert not bench.vfio.unbind(NIC)
    assert "/dev/vfio/1" in bench.host.nodes
    external.device_put_external_user(device)
    bench.settle()
    assert bench.vfio.unbind(NIC)
    assert "/dev/vfio/1" not in bench.host.nodes


def test_putting_once_too_often_is_caught(bench: Bench) -> None:
    device = external.device_get_external_user(bench.task.files[bench.device()])
    external.device_put_external_user(device)
    with pytest.raises(AssertionError):
        external.device_put_external_user(device)


def test_guest_access_reaches_the_registers(bench: Bench) -> None:
    device = external.device_get_external_user(bench.task.files[bench.device(MULTI)])
    device.access_write(1, 8, 4, 0xCAFE)
    assert device.access_read(1, 8, 2) == 0xCAFE
    external.device_put_external_user(device)
