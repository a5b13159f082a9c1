"""VFIO groups: contract 7.2, and the life cycle of 2.7."""

from __future__ import annotations

import itertools
import os

import pytest
from vfio_bench import LONELY, MULTI, NIC, WILD, Bench, EdgePage, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

VIABLE, CONTAINER_SET = 1, 2


def status(bench: Bench, group: int, argsz: int = 8) -> int:
    answer = uapi.ffi.new("struct vfio_group_status *", {"argsz": argsz, "flags": 0xAA})
    bench.ioctl(group, uapi.VFIO_GROUP_GET_STATUS, answer)
    return int(answer.flags)


def test_nodes_exist_for_groups_with_a_vfio_device_only(bench: Bench) -> None:
    assert sorted(bench.host.nodes) == ["/dev/vfio/1", "/dev/vfio/2", "/dev/vfio/vfio"]
    with fails("ENOENT"):
        bench.open("/dev/vfio/3")


def test_open_twice_is_ebusy(bench: Bench) -> None:
    group = bench.group()
    with fails("EBUSY"):
        bench.group()
    bench.close(group)
    bench.group()


def test_open_while_a_device_keeps_the_container_is_ebusy(bench: Bench) -> None:
    _, group = bench.attached()
    device = bench.get_device(group, NIC)
    bench.close(group)
    with fails("EBUSY"):
        bench.group()
    assert bench.ioctl(device, uapi.VFIO_DEVICE_RESET) == 0
    bench.close(device)
    assert status(bench, bench.group()) == VIABLE


@pytest.mark.parametrize("argsz", [0, 4, 7])
def test_get_status_argsz_below_8_is_einval(bench: Bench, argsz: int) -> None:
    with fails("EINVAL"):
        status(bench, bench.group(), argsz)


@pytest.mark.parametrize("argsz", [8, 9, 2**32 - 1])
def test_get_status_argsz_larger_is_accepted(bench: Bench, argsz: int) -> None:
    assert status(bench, bench.group(), argsz) == VIABLE


@pytest.mark.parametrize("pointer", [0, WILD, 2**64 - 4])
def test_get_status_bad_pointer_is_efault(bench: Bench, pointer: int) -> None:
    with fails("EFAULT"):
        bench.ioctl(bench.group(), uapi.VFIO_GROUP_GET_STATUS, pointer)


def test_get_status_at_the_end_of_a_mapping(bench: Bench) -> None:
    page, group = EdgePage(), bench.group()
    assert bench.ioctl(group, uapi.VFIO_GROUP_GET_STATUS, page.put(b"\x08\0\0\0\xaa\0\0\0")) == 0
    with fails("EFAULT"):
        bench.ioctl(group, uapi.VFIO_GROUP_GET_STATUS, page.put(b"\x08\0\0\0\xaa\0\0"))


def test_status_shows_the_container(bench: Bench) -> None:
    container, group = bench.container(), bench.group()
    bench.set_container(group, container)
    assert status(bench, group) == VIABLE | CONTAINER_SET
    bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    assert status(bench, group) == VIABLE


@pytest.mark.parametrize(("driver", "viable"), [("a-host-driver", 0), ("pci-stub", 1), ("vfio-platform", 1), ("", 1)])
def test_group_is_viable_iff_no_host_driver_uses_a_device(bench: Bench, driver: str, viable: int) -> None:
    bench.vfio.bind("9031000.companion", driver)
    assert status(bench, bench.group(2)) == viable


def test_get_device_of_a_group_that_is_not_viable_is_einval(bench: Bench) -> None:
    bench.vfio.bind("9031000.companion", "a-host-driver")
    _, group = bench.attached(2)
    with fails("EINVAL"):
        bench.get_device(group, MULTI)


def test_set_container_null_is_efault(bench: Bench) -> None:
    with fails("EFAULT"):
        bench.ioctl(bench.group(), uapi.VFIO_GROUP_SET_CONTAINER, 0)


@pytest.mark.parametrize("fd", [-1, -2, -(2**31)])
def test_set_container_negative_fd_is_einval(bench: Bench, fd: int) -> None:
    with fails("EINVAL"):
        bench.set_container(bench.group(), fd)


@pytest.mark.parametrize("fd", [77_777, 2**31 - 1])
def test_set_container_closed_fd_is_ebadf(bench: Bench, fd: int) -> None:
    with fails("EBADF"):
        bench.set_container(bench.group(), fd)


def test_set_container_to_anything_else_is_einval(bench: Bench) -> None:
    group = bench.group()
    for other in (group, bench.eventfd(), 0):
        with fails("EINVAL"):
            bench.set_container(group, other)


def test_set_container_twice_is_einval_even_with_a_bad_fd(bench: Bench) -> None:
    container, group = bench.container(), bench.group()
    bench.set_container(group, container)
    for fd in (container, bench.container(), 77_777):
        with fails("EINVAL"):
            bench.set_container(group, fd)


def test_set_container_on_newer_kernels_judges_the_descriptor_first() -> None:
    bench = Bench(set_container_fd_first=True, not_container_errno="EBADFD")
    container, group = bench.container(), bench.group()
    for fd, expected in ((-1, "EBADF"), (77_777, "EBADF"), (group, "EBADFD")):
        with fails(expected):
            bench.set_container(group, fd)
    bench.set_container(group, container)
    for fd, expected in ((77_777, "EBADF"), (group, "EINVAL"), (container, "EINVAL")):
        with fails(expected):
            bench.set_container(group, fd)


def test_unset_container_without_one_is_einval(bench: Bench) -> None:
    container, group = bench.container(), bench.group()
    with fails("EINVAL"):
        bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    bench.set_container(group, container)
    assert bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0
    with fails("EINVAL"):
        bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)


def test_unset_container_with_a_device_open_is_ebusy(bench: Bench) -> None:
    _, group = bench.attached()
    devices = [bench.get_device(group, NIC) for _ in range(2)]
    for device in devices:
        with fails("EBUSY"):
            bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
        bench.close(device)
    assert bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0


def test_last_group_leaving_unsets_the_iommu(bench: Bench) -> None:
    container, group = bench.attached()
    bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    with fails("EINVAL"):
        bench.ioctl(container, uapi.VFIO_IOMMU_GET_INFO, 0)
    bench.set_container(group, container)
    assert bench.ioctl(container, uapi.VFIO_SET_IOMMU, 1) == 0


@pytest.mark.parametrize("pointer", [0, WILD])
def test_get_device_fd_bad_string_is_efault(bench: Bench, pointer: int) -> None:
    _, group = bench.attached()
    with fails("EFAULT"):
        bench.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, pointer)


def test_get_device_fd_too_long_is_einval(bench: Bench) -> None:
    _, group = bench.attached()
    for length, expected in ((4095, "ENODEV"), (4096, "EINVAL"), (9000, "EINVAL")):
        with fails(expected):
            bench.get_device(group, "a" * length)


def test_get_device_fd_string_at_the_end_of_a_mapping(bench: Bench) -> None:
    _, group = bench.attached()
    page = EdgePage()
    assert bench.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, page.put(NIC.encode() + b"\0")) >= 0
    with fails("EFAULT"):
        bench.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, page.put(NIC.encode()))


def test_get_device_fd_without_container_or_iommu_is_einval(bench: Bench) -> None:
    container, group = bench.container(), bench.group()
    for name in (NIC, "nonsense"):
        with fails("EINVAL"):
            bench.get_device(group, name)
    bench.set_container(group, container)
    with fails("EINVAL"):
        bench.get_device(group, NIC)


def test_get_device_fd_on_newer_kernels_looks_the_name_up_first() -> None:
    bench = Bench(device_name_first=True)
    group = bench.group()
    with fails("ENODEV"):
        bench.get_device(group, "nonsense")
    with fails("EINVAL"):
        bench.get_device(group, NIC)


@pytest.mark.parametrize("name", ["", "nonsense", NIC[:-1], NIC + "x", MULTI, LONELY, "ü"])
def test_get_device_fd_unknown_name_is_enodev(bench: Bench, name: str) -> None:
    _, group = bench.attached()
    with fails("ENODEV"):
        bench.get_device(group, name)


def test_get_device_fd_without_free_descriptor_is_emfile_and_leaves_nothing(bench: Bench) -> None:
    _, group = bench.attached()
    bench.task.limit = 1002
    with fails("EMFILE"):
        bench.get_device(group, NIC)
    assert bench.host.open_files() == ["container", "group"]
    assert bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER) == 0


@pytest.mark.parametrize("request_number", [uapi.VFIO_GET_API_VERSION, uapi.VFIO_DEVICE_GET_INFO, 0x3BFF, 0])
def test_unknown_ioctl_is_enotty(bench: Bench, request_number: int) -> None:
    with fails("ENOTTY"):
        bench.ioctl(bench.group(), request_number, WILD)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_descriptors_may_be_closed_in_any_order(bench: Bench, order: tuple[int, ...]) -> None:
    container, group = bench.attached()
    files = [container, group, bench.get_device(group, NIC), bench.get_device(group, NIC)]
    for index in order:
        bench.close(files[index])
    assert bench.host.open_files() == []
    again = bench.group()
    assert status(bench, again) == VIABLE
    os.fstat(0)


# -- drivers ---------------------------------------------------------------------------------------


def test_unbind_of_an_idle_device_takes_the_node_away(bench: Bench) -> None:
    assert bench.vfio.unbind(NIC)
    with fails("ENOENT"):
        bench.group()
    bench.vfio.bind(NIC, "vfio-platform")
    assert status(bench, bench.group()) == VIABLE


def test_unbind_blocks_while_the_device_is_open(bench: Bench) -> None:
    _, group = bench.attached()
    device = bench.get_device(group, NIC)
    assert not bench.vfio.unbind(NIC)
    assert not bench.vfio.unbind(NIC)
    with pytest.raises(KvmVfioEmuError):
        bench.vfio.bind(NIC, "vfio-platform")
    bench.close(device)
    assert bench.vfio.unbind(NIC)
    with fails("ENODEV"):
        bench.get_device(group, NIC)
    assert bench.vfio.devices[NIC].driver == ""


def test_group_without_devices_lives_while_it_is_open(bench: Bench) -> None:
    group = bench.group()
    assert bench.vfio.unbind(NIC)
    assert status(bench, group) == VIABLE
    bench.close(group)
    with fails("ENOENT"):
        bench.group()


def test_binding_a_host_driver_under_userspace_is_refused(bench: Bench) -> None:
    bench.attached(2)
    with pytest.raises(KvmVfioEmuError):
        bench.vfio.bind("9031000.companion", "a-host-driver")


def test_unknown_device_names_are_named() -> None:
    with pytest.raises(KvmVfioEmuError, match="fff51000"):
        Bench().vfio.unbind("nonsense")
