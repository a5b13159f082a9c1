"""Emulated files have real descriptors: what a program may do with one works, and the last close counts."""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
import struct
import tempfile

import pytest
from support import Client

from kvmvfio_emu import uapi
from kvmvfio_emu.doors import descriptors


def version(client: Client, fd: int) -> int:
    return int(client.ioctl(fd, uapi.KVM_GET_API_VERSION))


@pytest.fixture
def vm(client: Client) -> int:
    """A virtual machine and nothing else: /dev/kvm is closed again."""
    vm = client.vm()
    client.close(client.kvm)
    client._kvm = None
    assert client.kernel.open_files() == ["vm"]
    return vm


@pytest.mark.parametrize("by_kernel", [True, False])
def test_the_last_of_several_duplicates_releases(client: Client, vm: int, by_kernel: bool) -> None:
    dup, close = (client.kernel.dup, client.close) if by_kernel else (os.dup, os.close)
    fds = [vm, dup(vm), dup(vm), fcntl.fcntl(vm, fcntl.F_DUPFD, 100)]
    for fd in fds:
        assert client.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD) == 1
        close(fd)
        assert client.kernel.open_files() == ([] if fd is fds[-1] else ["vm"])


def test_close_releases_before_it_returns(client: Client, vm: int) -> None:
    events: list[str] = []
    stop = client.kernel.listen(lambda event: events.append(event.name))
    client.close(vm)
    assert events == ["release", "vm_destroy"]
    stop()


def test_a_close_by_os_is_noticed_at_the_next_entry(client: Client, vm: int) -> None:
    os.close(vm)
    assert client.kernel.counters["vm_destroy"] == 0
    kvm = client.kernel.open("/dev/kvm")
    assert client.kernel.counters["vm_destroy"] == 1
    vm = client.ioctl(kvm, uapi.KVM_CREATE_VM)
    os.close(vm)
    client.ioctl(kvm, uapi.KVM_GET_API_VERSION)
    assert client.kernel.counters["vm_destroy"] == 2
    client.close(client.ioctl(kvm, uapi.KVM_CREATE_VM))


def test_dup2_over_a_number_closes_the_old_file(client: Client, vm: int) -> None:
    kvm = client.kernel.open("/dev/kvm")
    os.dup2(kvm, vm)
    assert client.kernel.open_files() == ["kvm"]
    assert version(client, vm) == 12
    os.close(kvm)
    assert client.kernel.open_files() == ["kvm"]


def test_a_foreign_file_over_our_number(client: Client, vm: int) -> None:
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), vm)
        client.refused("ENOTTY", client.ioctl, vm, uapi.KVM_CHECK_EXTENSION, 0)
        assert client.kernel.open_files() == []
        os.close(vm)


@pytest.mark.parametrize("copy_lives", [True, False])
def test_our_number_reused_by_another_file(client: Client, vm: int, copy_lives: bool) -> None:
    copy = os.dup(vm) if copy_lives else None
    os.close(vm)
    other = os.open("/dev/null", os.O_RDWR)
    os.dup2(other, vm)
    assert not client.kernel.emulates(vm)
    assert client.kernel.write(vm, b"to null") == 7
    client.refused("ENOTTY", client.ioctl, vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD)
    assert client.kernel.open_files() == (["vm"] if copy_lives else [])
    if copy is not None:
        assert client.ioctl(copy, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD) == 1
    os.close(other)
    os.close(vm)


def test_our_number_reused_by_another_file_of_ours(client: Client, vm: int) -> None:
    kvm = client.kernel.open("/dev/kvm")
    os.close(vm)
    group = client.kernel.open("/dev/vfio/1")
    assert group == vm
    client.refused("ENOTTY", client.ioctl, group, uapi.KVM_CHECK_EXTENSION, 0)
    assert client.kernel.open_files() == ["group", "kvm"]
    client.close(kvm)


@pytest.mark.parametrize("offset", [0, 1, 4096, (1 << 62) - 1])
def test_a_file_whose_position_was_moved_is_still_known(client: Client, vm: int, offset: int) -> None:
    os.lseek(vm, offset, os.SEEK_SET)
    assert os.read(vm, 1) == b""
    assert client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD) == 1
    assert client.kernel.emulates(vm)
    client.close(vm)
    assert client.kernel.open_files() == []


def test_the_memory_behind_a_descriptor_cannot_be_resized(client: Client) -> None:
    vcpu = client.vcpu(client.vm())
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(vcpu, size)


def test_a_child_holds_the_file_until_it_exits(client: Client, vm: int) -> None:
    go, ready = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(go[1])
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    client.close(vm)
    assert client.kernel.open_files() == ["vm"]
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    assert client.kernel.open_files() == []
    for fd in (*go, *ready):
        os.close(fd)


def test_a_child_that_closes_its_copy_releases_nothing(client: Client, vm: int) -> None:
    child = os.fork()
    if not child:
        os.close(vm)
        os._exit(0)
    os.waitpid(child, 0)
    assert client.kernel.open_files() == ["vm"]


def test_a_descriptor_sent_to_ourselves_is_the_same_file(client: Client, vm: int) -> None:
    left, right = socket.socketpair()
    with left, right:
        socket.send_fds(left, [b"x"], [vm])
        client.close(vm)
        assert client.kernel.open_files() == ["vm"]  # it is in flight
        received = socket.recv_fds(right, 1, 1)[1][0]
    assert client.ioctl(received, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD) == 1
    client.close(received)
    assert client.kernel.open_files() == []


def test_a_descriptor_in_flight_that_nobody_receives_is_closed_with_the_socket(client: Client, vm: int) -> None:
    left, right = socket.socketpair()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [vm]))]
    left.sendmsg([b"x"], ancillary)
    client.close(vm)
    left.close()
    right.close()
    assert client.kernel.open_files() == []


def test_a_mapping_keeps_the_vcpu_open(client: Client) -> None:
    vm = client.vm()
    vcpu = client.vcpu(vm)
    page = client.kernel.mmap(vcpu, mmap.PAGESIZE)
    client.close(vcpu)
    client.close(vm)
    client.close(client.kvm)
    client._kvm = None
    assert client.kernel.open_files() == ["vcpu"]
    assert client.kernel.counters["vm_destroy"] == 0
    page.close()
    assert client.kernel.open_files() == []
    assert client.kernel.counters["vm_destroy"] == 1


def test_a_mapping_keeps_the_device_open(client: Client) -> None:
    """And with it its group in the container, which so cannot be opened again."""
    device = client.device()
    page = client.kernel.mmap(device, mmap.PAGESIZE)
    for name in os.listdir("/proc/self/fd"):
        if client.kernel.emulates(int(name)) and int(name) != device:
            fd = int(name)
            if os.fstat(fd).st_ino != os.fstat(device).st_ino:
                client.close(fd)
    client.close(device)
    assert client.kernel.open_files() == ["vfio-device"]
    client.refused("EBUSY", client.kernel.open, "/dev/vfio/1")
    page.close()
    client.close(client.kernel.open("/dev/vfio/1"))


@pytest.mark.parametrize("make", ["kvm", "vm", "vcpu", "group", "device", "vgic"])
def test_descriptors_are_close_on_exec(client: Client, make: str) -> None:
    fd = client.kvm if make == "kvm" else getattr(client, make)(*([client.vm()] if make in ("vcpu", "vgic") else []))
    assert fcntl.fcntl(fd, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
    assert not os.get_inheritable(fd)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def test_readlink_names_the_file(client: Client, vm: int) -> None:
    assert "kvm-vm" in os.readlink(f"/proc/self/fd/{vm}")


def test_numbers_are_the_lowest_free_ones(client: Client) -> None:
    first = client.kernel.open("/dev/kvm")
    client.close(first)
    lowest = [os.open("/dev/null", os.O_RDWR) for _ in range(2)]
    for each in lowest:
        os.close(each)
    fd = client.kernel.open("/dev/kvm")
    assert fd in lowest  # one more descriptor is open while a file is made
    client.close(fd)


def test_a_file_that_is_opened_often_leaves_nothing(client: Client) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(300):
        kvm = client.kernel.open("/dev/kvm")
        vm = client.ioctl(kvm, uapi.KVM_CREATE_VM)
        client.close(client.ioctl(vm, uapi.KVM_CREATE_VCPU, 0))
        os.close(kvm)
        os.close(vm)
    assert client.kernel.open_files() == []
    assert len(client.host.inodes) == 0
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_lost_close_events_are_made_up_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """inotify's queue has an end: then one event says that others were lost."""
    vm, device = client.vm(), client.device()
    vcpus = [client.vcpu(vm, number) for number in range(3)]
    page = mmap.mmap(vcpus[1], mmap.PAGESIZE)
    held = os.dup(vcpus[2])
    kvm = client.kvm
    batches = []

    def read(fd: int, size: int) -> bytes:
        batches.append(os.read(fd, size))  # BlockingIOError ends it
        return struct.pack("iIII", -1, 0x4000, 0, 0)

    for fd in (kvm, device, *vcpus):
        os.close(fd)
    with monkeypatch.context() as patch:
        patch.setattr(descriptors, "read", read)
        assert client.kernel.open_files()
    assert batches
    assert sorted(client.kernel.open_files()) == ["container", "group", "vcpu", "vcpu", "vm"]
    page.close()
    os.close(held)
    assert sorted(client.kernel.open_files()) == ["container", "group", "vm"]
    client._kvm = None
