"""`Kernel.mmap` takes its arguments as `mmap.mmap` does, and maps what the file allows."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import pytest
from support import Client

from kvmvfio_emu import uapi
from kvmvfio_emu.hw import boards

XGMAC, ENABLE, RECEIVED = "fff51000.ethernet", 0xF1C, 1 << 16 | 1 << 6
READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE


@pytest.fixture
def vcpu(client: Client) -> int:
    return client.vcpu(client.vm())


@pytest.fixture
def memory(client: Client) -> Callable[[], Any]:
    """What the kernel itself sees of the run page."""
    return lambda: client.host.modules["kvm"].vms[0].vcpus[0].run  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"flags": mmap.MAP_SHARED},
        {"flags": mmap.MAP_SHARED, "prot": READ | WRITE},
        {"access": mmap.ACCESS_WRITE},
        {"access": mmap.ACCESS_DEFAULT, "offset": 0},
    ],
)
def test_shared_mappings_are_the_kernels_memory(
    client: Client, vcpu: int, memory: Any, arguments: dict[str, int]
) -> None:
    with client.kernel.mmap(vcpu, 8192, **arguments) as page:
        page[1] = 1  # immediate_exit
        assert memory().immediate_exit == 1
        memory().exit_reason = 77
        assert page[8] == 77


@pytest.mark.parametrize(
    "arguments",
    [{"flags": mmap.MAP_PRIVATE}, {"access": mmap.ACCESS_COPY}, {"flags": mmap.MAP_PRIVATE, "prot": READ | WRITE}],
)
def test_private_mappings_are_copies(client: Client, vcpu: int, memory: Any, arguments: dict[str, int]) -> None:
    with client.kernel.mmap(vcpu, 4096, **arguments) as page:
        page[1] = 1
        assert memory().immediate_exit == 0


@pytest.mark.parametrize("arguments", [{"prot": READ}, {"access": mmap.ACCESS_READ}])
def test_read_only_mappings(client: Client, vcpu: int, memory: Any, arguments: dict[str, int]) -> None:
    with client.kernel.mmap(vcpu, 4096, **arguments) as page:
        memory().exit_reason = 5
        assert page[8] == 5
        with pytest.raises(TypeError):
            page[1] = 1


def test_positional_arguments(client: Client, vcpu: int) -> None:
    with client.kernel.mmap(vcpu, 4096, mmap.MAP_SHARED, READ, mmap.ACCESS_DEFAULT, 4096) as page:
        assert len(page) == 4096


@pytest.mark.parametrize("target", ["emulated", "real"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"length": -1}, OverflowError),
        ({"length": 4096, "offset": -4096}, OverflowError),
        ({"length": 4096, "access": 9}, ValueError),
        ({"length": 4096, "access": mmap.ACCESS_READ, "prot": READ}, ValueError),
        ({"length": 4096, "access": mmap.ACCESS_READ, "flags": mmap.MAP_PRIVATE}, ValueError),
        ({"length": 4096, "nonsense": 1}, TypeError),
        ({"length": 4096, "offset": 1}, (OSError, ValueError)),
        ({"length": "4096"}, TypeError),
    ],
)
def test_bad_arguments_as_with_the_real_one(
    client: Client, vcpu: int, target: str, arguments: dict[str, Any], error: Any
) -> None:
    with open("/dev/zero", "r+b") as zero:
        call, fd = (mmap.mmap, zero.fileno()) if target == "real" else (client.kernel.mmap, vcpu)
        with pytest.raises(error):
            call(fd, **arguments)


def test_the_kernels_own_limits(client: Client, vcpu: int) -> None:
    client.refused("EINVAL", client.kernel.mmap, vcpu, 0)
    client.refused("EINVAL", client.kernel.mmap, vcpu, 4096, offset=100)
    device = client.device()
    client.refused("EINVAL", client.kernel.mmap, device, 0)
    for arguments in ({"flags": mmap.MAP_PRIVATE}, {"access": mmap.ACCESS_COPY}, {"offset": 1 << 44}, {"offset": 4096}):
        client.refused("EINVAL", client.kernel.mmap, device, 4096, **arguments)
    client.refused("EINVAL", client.kernel.mmap, device, 8192)  # the region has one page


def test_a_negative_place_in_a_device(client: Client) -> None:
    device = client.device()
    for arguments in ({"length": 4096, "offset": -4096}, {"length": -1}):
        with pytest.raises(OverflowError):
            client.kernel.mmap(device, **arguments)


def test_a_store_through_a_mapping_comes_before_the_next_call() -> None:
    """Not after it: what a reset has cleared must not come back."""
    client = Client(board=boards.load("calxeda-midway"))
    device = client.device(XGMAC)
    hardware = client.kernel.device(XGMAC)
    with client.kernel.mmap(device, 4096) as registers:
        registers[ENABLE : ENABLE + 4] = RECEIVED.to_bytes(4, "little")
        client.ioctl(device, uapi.VFIO_DEVICE_GET_INFO, bytearray(b"\x14".ljust(20, b"\0")))
        assert hardware.read(0, ENABLE, 4) == RECEIVED
        registers[ENABLE : ENABLE + 4] = bytes(4)
        client.ioctl(device, uapi.VFIO_DEVICE_GET_INFO, bytearray(b"\x14".ljust(20, b"\0")))
        assert hardware.read(0, ENABLE, 4) == 0
        registers[ENABLE : ENABLE + 4] = RECEIVED.to_bytes(4, "little")
        client.ioctl(device, uapi.VFIO_DEVICE_RESET)
        assert hardware.read(0, ENABLE, 4) == 0
        assert registers[ENABLE : ENABLE + 4] == bytes(4)
    client.finish()


def test_registers_agree_with_the_device_at_each_entry(client: Client) -> None:
    device = client.device()
    offset = 0
    with client.kernel.mmap(device, 4096) as one, client.kernel.mmap(device, 4096) as two:
        client.kernel.pwrite(device, b"\1\2\3\4", offset)
        before = client.kernel.pread(device, 4, offset)
        assert one[:4] == two[:4] == before
        client.ioctl(client.kvm, uapi.KVM_GET_API_VERSION)
        assert one[:4] == before
