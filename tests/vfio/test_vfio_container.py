"""VFIO containers: contract 7.1."""

from __future__ import annotations

import errno

import pytest
from vfio_bench import NIC, WILD, Bench, fails, replace_iommu

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError

DRIVER_REQUESTS = [
    uapi.VFIO_IOMMU_GET_INFO,
    uapi.VFIO_IOMMU_MAP_DMA,
    uapi.VFIO_IOMMU_UNMAP_DMA,
    uapi.VFIO_DEVICE_GET_INFO,
    uapi.VFIO_GROUP_GET_STATUS,
    0x3BFF,
    0,
    0xFFFFFFFF,
]


def test_api_version_is_0(bench: Bench) -> None:
    container = bench.container()
    assert bench.ioctl(container, uapi.VFIO_GET_API_VERSION) == 0
    assert bench.ioctl(container, uapi.VFIO_GET_API_VERSION, WILD) == 0


@pytest.mark.parametrize(
    ("number", "answer"),
    [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 0), (6, 1), (7, 0), (9, 0), (2**64 - 1, 0)],
)
def test_check_extension_before_set_iommu(bench: Bench, number: int, answer: int) -> None:
    assert bench.ioctl(bench.container(), uapi.VFIO_CHECK_EXTENSION, number) == answer


@pytest.mark.parametrize("coherent", [False, True])
def test_check_extension_dma_cc_after_set_iommu_is_the_iommus(coherent: bool) -> None:
    bench = Bench(replace_iommu(coherent=coherent))
    container, _ = bench.attached()
    assert bench.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_DMA_CC_IOMMU) == coherent
    assert bench.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_TYPE1_IOMMU) == 1


def test_update_vaddr_is_announced_only_once_an_iommu_is_set() -> None:
    bench = Bench(type1_extensions=(1, 3, 6, 9, 10))
    container, group = bench.container(), bench.group()
    assert bench.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_UNMAP_ALL) == 1
    assert bench.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_UPDATE_VADDR) == 0
    bench.set_container(group, container)
    bench.ioctl(container, uapi.VFIO_SET_IOMMU, 3)
    assert bench.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_UPDATE_VADDR) == 1


@pytest.mark.parametrize("kind", [0, 1, 3, 6, 99])
def test_set_iommu_without_group_is_einval(bench: Bench, kind: int) -> None:
    with fails("EINVAL"):
        bench.ioctl(bench.container(), uapi.VFIO_SET_IOMMU, kind)


@pytest.mark.parametrize("kind", [0, 2, 4, 5, 7, 8, 99, 2**32 + 1, 2**64 - 1])
def test_set_iommu_of_a_type_nobody_has_is_enodev(bench: Bench, kind: int) -> None:
    container, group = bench.container(), bench.group()
    bench.set_container(group, container)
    with fails("ENODEV"):
        bench.ioctl(container, uapi.VFIO_SET_IOMMU, kind)
    assert bench.ioctl(container, uapi.VFIO_SET_IOMMU, 3) == 0


@pytest.mark.parametrize("kind", [1, 3, 6, 99])
def test_set_iommu_twice_is_einval(bench: Bench, kind: int) -> None:
    container, _ = bench.attached(kind=1)
    with fails("EINVAL"):
        bench.ioctl(container, uapi.VFIO_SET_IOMMU, kind)


def test_set_iommu_without_interrupt_remapping_is_eperm() -> None:
    bench = Bench(replace_iommu(interrupt_remapping=False))
    container, group = bench.container(), bench.group()
    bench.set_container(group, container)
    with fails("EPERM"):
        bench.ioctl(container, uapi.VFIO_SET_IOMMU, 3)
    with fails("EINVAL"):
        bench.get_device(group, NIC)
    bench.vfio.allow_unsafe_interrupts = True
    assert bench.ioctl(container, uapi.VFIO_SET_IOMMU, 3) == 0


def test_second_group_that_the_iommu_refuses_stays_out() -> None:
    bench = Bench(replace_iommu(interrupt_remapping=False))
    bench.vfio.allow_unsafe_interrupts = True
    container, _ = bench.attached()
    bench.vfio.allow_unsafe_interrupts = False
    other = bench.group(2)
    with fails("EPERM"):
        bench.set_container(other, container)
    with fails("EINVAL"):
        bench.ioctl(other, uapi.VFIO_GROUP_UNSET_CONTAINER)


def test_nesting_refused_is_eperm() -> None:
    bench = Bench(type1_nesting=False)
    container, group = bench.container(), bench.group()
    bench.set_container(group, container)
    with fails("EPERM"):
        bench.ioctl(container, uapi.VFIO_SET_IOMMU, 6)
    assert bench.ioctl(container, uapi.VFIO_SET_IOMMU, 3) == 0


@pytest.mark.parametrize("request_number", DRIVER_REQUESTS)
def test_anything_else_before_set_iommu_is_einval_unread(bench: Bench, request_number: int) -> None:
    with fails("EINVAL"):
        bench.ioctl(bench.container(), request_number, WILD)


@pytest.mark.parametrize("request_number", DRIVER_REQUESTS[3:])
def test_unknown_after_set_iommu_is_enotty(bench: Bench, request_number: int) -> None:
    container, _ = bench.attached()
    with fails("ENOTTY"):
        bench.ioctl(container, request_number, WILD)


def test_container_lives_on_while_a_group_is_in_it(bench: Bench) -> None:
    container, group = bench.attached()
    bench.close(container)
    device = bench.get_device(group, NIC)
    bench.close(group)
    bench.close(device)
    assert bench.host.open_files() == []


def test_two_groups_share_one_container(bench: Bench) -> None:
    container, group = bench.attached()
    other = bench.group(2)
    bench.set_container(other, container)
    assert bench.hw().dma is bench.hw("9030000.multi").dma
    bench.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
    assert bench.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_DMA_CC_IOMMU) == 1
    bench.ioctl(other, uapi.VFIO_GROUP_UNSET_CONTAINER)
    assert bench.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_DMA_CC_IOMMU) == 0


def test_read_write_and_mmap_are_refused(bench: Bench) -> None:
    file = bench.task.files[bench.container()]
    for call, expected in (
        (lambda: file.read(1, None), errno.EINVAL),
        (lambda: file.write(b"x", None), errno.EINVAL),
        (lambda: file.mmap(0, 4096, write=False, shared=True), errno.ENODEV),
    ):
        with pytest.raises(KernelError) as caught:
            call()
        assert caught.value.errno == expected
