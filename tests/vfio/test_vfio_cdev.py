"""A VFIO device's own node: BIND_IOMMUFD before all else, ATTACH, DETACH, and its peace with the group."""

from __future__ import annotations

import errno
import os

import pytest
from iommufd_bench import IommufdBench, bench, group_of
from pci_bench import CONFIG, EDU, NEW, PciBench
from vfio_bench import NIC, WILD, Bench, fails

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.sysfs import Link, tree
from kvmvfio_emu.kernel.vfio import external

__all__ = ["bench"]

DEVICE_REQUESTS = [
    uapi.VFIO_DEVICE_GET_INFO,
    uapi.VFIO_DEVICE_GET_REGION_INFO,
    uapi.VFIO_DEVICE_GET_IRQ_INFO,
    uapi.VFIO_DEVICE_SET_IRQS,
    uapi.VFIO_DEVICE_RESET,
    uapi.VFIO_DEVICE_FEATURE,
    uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
    uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT,
    uapi.VFIO_GET_API_VERSION,
    0x3BFF,
]


@pytest.mark.parametrize("request_number", DEVICE_REQUESTS)
def test_nothing_works_before_bind(bench: IommufdBench, request_number: int) -> None:
    device = bench.node()
    with fails("EINVAL"):
        bench.ioctl(device, request_number, WILD)


def test_nor_do_registers_and_mappings(bench: IommufdBench) -> None:
    bench.fd = bench.node()
    file = bench.task.files[bench.fd]
    with fails("EINVAL"):
        bench.pread(4, CONFIG)
    with fails("EINVAL"):
        bench.pwrite(b"1234", CONFIG)
    with fails("EINVAL"):
        file.mmap(0, 4096, write=True, shared=True)
    bench.bind(bench.fd)
    assert bench.config(0) == 0x11E81234
    file.mmap(0, 4096, write=True, shared=True)


def test_a_bound_device_is_a_whole_one(bench: IommufdBench) -> None:
    bench.fd, _ = bench.bound()
    assert bench.struct(uapi.VFIO_DEVICE_GET_INFO, "=4I", 16, 0, 0, 0)[1] & uapi.VFIO_DEVICE_FLAGS_PCI
    trigger = bench.eventfd()
    bench.triggers(0, trigger)
    bench.set_config(4, 2, 2)
    bench.set_register(0x60, 1)
    assert bench.count(trigger) == 1


def test_numbers_are_those_of_the_iommufd(bench: IommufdBench) -> None:
    assert bench.ioas() == 1
    assert bench.bound()[1] == 2


def bad_bind(bench: IommufdBench, device: int, name: str, iommufd: int | None = None, **fields: int) -> None:
    with fails(name):
        bench.bind(device, iommufd, **fields)


def test_what_bind_refuses(bench: IommufdBench) -> None:
    device = bench.node()
    null = os.open("/dev/null", os.O_RDWR)
    bad_bind(bench, device, "EINVAL", argsz=15)
    bad_bind(bench, device, "EINVAL", flags=1)
    bad_bind(bench, device, "EINVAL", -1)
    bad_bind(bench, device, "EBADF", 0x7FFF)
    bad_bind(bench, device, "EBADFD", null)
    bad_bind(bench, device, "EBADFD", device)
    os.close(null)
    with fails("EFAULT"):
        bench.ioctl(device, uapi.VFIO_DEVICE_BIND_IOMMUFD, WILD)
    bench.bind(device)
    bad_bind(bench, device, "EINVAL")
    bad_bind(bench, bench.node(), "EINVAL")  # one file at a time may use it


def test_one_user_after_the_other(bench: IommufdBench) -> None:
    device, number = bench.bound()
    waiting = bench.node()
    bench.close(device)
    assert bench.bind(waiting) == number


def test_an_answer_that_cannot_be_given_undoes_the_bind(bench: IommufdBench) -> None:
    import ctypes
    import mmap

    address, area = bench.memory()
    area[:16] = bytes(uapi.pack("struct vfio_device_bind_iommufd", argsz=16, iommufd=bench.iommu))[:16]
    assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), 4096, mmap.PROT_READ)
    device = bench.node()
    with fails("EFAULT"):
        bench.ioctl(device, uapi.VFIO_DEVICE_BIND_IOMMUFD, address)
    assert bench.bind(device) == 1


# -- the group -----------------------------------------------------------------------------------------------------


def test_the_group_and_the_node_exclude_each_other(bench: IommufdBench) -> None:
    group = bench.group(group_of(EDU))
    device = bench.node()
    bad_bind(bench, device, "EBUSY")
    bench.close(group)
    bench.bind(device)
    with fails("EBUSY"):
        bench.group(group_of(EDU))
    bench.close(device)
    bench.close(bench.group(group_of(EDU)))


def test_a_group_that_only_its_devices_keep_is_in_the_way_too(bench: IommufdBench) -> None:
    opened = bench.use(EDU)
    bench.close(bench.group_fd)
    device = bench.node()
    bad_bind(bench, device, "EBUSY")
    bench.close(opened)
    bench.bind(device)


@pytest.mark.parametrize("request_number", [uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT])
def test_through_the_group_there_is_no_attaching(bench: IommufdBench, request_number: int) -> None:
    device = bench.use(EDU)
    with fails("ENOTTY"):
        bench.ioctl(device, request_number, WILD)
    bad_bind(bench, device, "EINVAL")
    with fails("EFAULT"):
        bench.ioctl(device, uapi.VFIO_DEVICE_BIND_IOMMUFD, WILD)


def test_an_older_kernel_knows_none_of_it() -> None:
    older = PciBench(**NEW)
    device = older.use(EDU)
    for request in (uapi.VFIO_DEVICE_BIND_IOMMUFD, *DEVICE_REQUESTS[6:8]):
        with fails("ENOTTY"):
            older.ioctl(device, request, WILD)
    older.finish()


@pytest.mark.parametrize(
    ("attach", "errno_name"), [({"argsz": 11}, "EINVAL"), ({"flags": 1}, "EINVAL"), ({}, "ENOENT")]
)
def test_what_attach_refuses(bench: IommufdBench, attach: dict[str, int], errno_name: str) -> None:
    device, _ = bench.bound()
    with fails(errno_name):
        bench.attach(device, 99, **attach)


@pytest.mark.parametrize("fields", [{"argsz": 7}, {"flags": 1}, {"flags": 1 << 31}])
def test_what_detach_refuses(bench: IommufdBench, fields: dict[str, int]) -> None:
    device, _ = bench.bound()
    with fails("EINVAL"):
        bench.detach(device, **fields)


# -- names ---------------------------------------------------------------------------------------------------------


def test_a_number_is_free_again_when_the_driver_is_gone(bench: IommufdBench) -> None:
    first = bench.vfio.registered[0].name
    waiting = bench.node(first)
    assert not bench.vfio.unbind(first)
    with fails("ENOENT"):
        bench.open("/dev/vfio/devices/vfio0")
    bench.close(waiting)
    assert 0 not in bench.vfio.registered
    bench.vfio.bind(first, "vfio-pci")
    assert bench.vfio.registered[0].name == first
    bench.close(bench.open("/dev/vfio/devices/vfio0"))


def test_sysfs_leads_from_the_device_to_its_node(bench: IommufdBench) -> None:
    nodes = tree(bench.host)
    index = next(index for index, device in bench.vfio.registered.items() if device.name == EDU)
    assert f"/dev/vfio/devices/vfio{index}" in nodes
    place = f"/sys/devices/pci0000:00/{EDU}/vfio-dev/vfio{index}"
    assert nodes[f"{place}/dev"] == f"510:{index}\n".encode()
    assert nodes[f"/sys/class/vfio-dev/vfio{index}"] == Link(place)
    assert bench.task.files[bench.node()].link == f"/dev/vfio/devices/vfio{index}"
    assert not [path for path in tree(PciBench(**NEW).host) if "vfio-dev" in path or "devices/vfio" in path]


def test_platform_devices_have_nodes_as_well() -> None:
    bench = Bench(iommufd=True, vfio_device_cdev=True)
    index = next(index for index, device in bench.vfio.registered.items() if device.name == NIC)
    device, iommu = bench.open(f"/dev/vfio/devices/vfio{index}"), bench.open("/dev/iommu")
    info = uapi.ffi.new("struct vfio_device_info *", {"argsz": 16})
    with fails("EINVAL"):
        bench.ioctl(device, uapi.VFIO_DEVICE_GET_INFO, info)
    bench.ioctl(device, uapi.VFIO_DEVICE_BIND_IOMMUFD, uapi.ffi.new("uint32_t[]", [16, 0, iommu, 0]))
    resets = bench.hw().resets
    bench.ioctl(device, uapi.VFIO_DEVICE_GET_INFO, info)
    assert info.num_regions == 1
    bench.close(device)
    assert bench.hw().resets == resets + 1, "the last close quiets it"
    bench.close(iommu)


# -- what KVM asks -------------------------------------------------------------------------------------------------


def test_which_files_kvm_may_be_told_of(bench: IommufdBench) -> None:
    device, waiting, iommu = (bench.task.files[fd] for fd in (bench.bound()[0], bench.node(), bench.iommu))
    group = bench.task.files[bench.group(7)]
    assert [external.file_is_valid(file) for file in (device, waiting, group, iommu, None)] == [
        *(True, True, True),
        *(False, False),
    ]
    assert not external.file_is_group(device)
    machine = object()
    for file in (device, group):
        external.file_set_kvm(file, machine)
    assert device.kvm is machine  # type: ignore[attr-defined]
    assert group.group.kvm is machine  # type: ignore[attr-defined]
    older = PciBench(**NEW)
    assert not external.file_is_valid(older.task.files[older.use()])


def test_the_errno_of_a_second_bind_is_not_that_of_the_group(bench: IommufdBench) -> None:
    device, _ = bench.bound()
    with pytest.raises(KernelError) as caught:
        bench.bind(device)
    assert caught.value.errno == errno.EINVAL
    assert bench.vfio.groups[group_of(EDU)].node_users == 1
