"""What is not the emulated kernel's goes to the real one, in every method; and how the emulated one says no."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import CLOSED, Client

from kvmvfio_emu import uapi


@pytest.fixture
def real(client: Client, tmp_path: Path) -> Iterator[int]:
    """A real file of one page, opened through the kernel."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789".ljust(mmap.PAGESIZE, b"."))
    fd = client.kernel.open(path)
    yield fd
    client.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("form", [str, os.fsencode, Path])
def test_open_of_a_real_path_in_every_form(client: Client, tmp_path: Path, form: type) -> None:
    fd = client.kernel.open(form(str(tmp_path / "new")), os.O_CREAT | os.O_WRONLY, 0o640)
    assert client.kernel.write(fd, b"x") == 1
    client.close(fd)
    assert (tmp_path / "new").read_bytes() == b"x"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_open_relative_to_a_directory(client: Client, tmp_path: Path) -> None:
    (tmp_path / "kvm").write_bytes(b"mine")
    directory = client.kernel.open(tmp_path, os.O_RDONLY)
    fd = client.kernel.open("kvm", os.O_RDONLY, dir_fd=directory)
    assert not client.kernel.emulates(fd)
    assert client.kernel.read(fd, 9) == b"mine"
    client.close(fd)
    client.close(directory)


def test_reads_and_writes_of_a_real_file(client: Client, real: int) -> None:
    kernel = client.kernel
    assert kernel.read(real, 4) == b"0123"
    assert kernel.write(real, memoryview(b"ab")) == 2
    assert kernel.pread(real, 6, 2) == b"23ab67"
    assert kernel.pwrite(real, b"Z", 0) == 1
    assert kernel.pread(real, 1, 0) == b"Z"
    assert not kernel.emulates(real)


def test_mmap_of_a_real_file_and_of_none(client: Client, real: int) -> None:
    with client.kernel.mmap(real, mmap.PAGESIZE, prot=mmap.PROT_READ) as mapping:
        assert mapping[:3] == b"012"
    with client.kernel.mmap(real, mmap.PAGESIZE, access=mmap.ACCESS_COPY) as mapping:
        mapping[:1] = b"#"
    assert client.kernel.pread(real, 1, 0) == b"0"
    with client.kernel.mmap(-1, 100) as anonymous:
        anonymous[:] = bytes(100)


def test_dup_of_a_real_file(client: Client, real: int) -> None:
    copy = client.kernel.dup(real)
    assert os.path.sameopenfile(copy, real)
    client.close(copy)


def test_descriptors_by_their_file_object(client: Client) -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        assert client.kernel.write(file, b"abc") == 3
        assert client.kernel.pread(file, 3, 0) == b"abc"
        client.close(client.kernel.dup(file))


@pytest.mark.parametrize("path", ["/dev/null", "/dev/kvm2", "/dev/vfio2", "/dev/vfi", "/dev/kvm/..", "dev/kvm"])
def test_paths_that_are_not_the_kernels(client: Client, path: str) -> None:
    assert not client.kernel.owns(path)


@pytest.mark.parametrize("path", ["/dev/kvm", "//dev/kvm", "/dev/../dev/kvm", b"/dev/kvm", Path("/dev/kvm")])
def test_device_nodes_in_every_form(client: Client, path: str | bytes | Path) -> None:
    fd = client.kernel.open(path, os.O_RDONLY)
    assert client.ioctl(fd, uapi.KVM_GET_API_VERSION) == 12
    client.close(fd)


# -- no ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/vfio/99", "/dev/vfio", "/dev/vfio/vfio/x", Path("/dev/vfio/noiommu-0")])
def test_absent_nodes_are_enoent_with_path_and_reason(client: Client, path: str | Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        client.kernel.open(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(path))
    assert caught.value.strerror == os.strerror(errno.ENOENT)
    assert caught.value.__notes__ == [f"emulated kernel: no device node {path}"]


def test_an_open_group_is_ebusy(client: Client) -> None:
    first = client.kernel.open("/dev/vfio/1")
    with pytest.raises(OSError, match="busy") as caught:
        client.kernel.open("/dev/vfio/1")
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, "/dev/vfio/1")
    client.close(first)
    client.close(client.kernel.open("/dev/vfio/1"))


def test_eperm_is_a_permission_error_with_the_reason(client: Client) -> None:
    control = client.kvm_vfio(client.vm())
    with pytest.raises(PermissionError) as caught:
        client.get(control, 0, 0)
    assert caught.value.errno == errno.EPERM
    assert "no get_attr" in caught.value.__notes__[0]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_eexist_is_a_file_exists_error(client: Client) -> None:
    vm = client.vm()
    client.vcpu(vm)
    with pytest.raises(FileExistsError):
        client.vcpu(vm)


@pytest.mark.parametrize("call", ["read", "write", "pread", "pwrite", "mmap", "dup", "close", "ioctl"])
def test_closed_descriptors_are_ebadf(client: Client, call: str) -> None:
    kernel = client.kernel
    calls = {
        "read": lambda fd: kernel.read(fd, 1),
        "write": lambda fd: kernel.write(fd, b"x"),
        "pread": lambda fd: kernel.pread(fd, 1, 0),
        "pwrite": lambda fd: kernel.pwrite(fd, b"x", 0),
        "mmap": lambda fd: kernel.mmap(fd, 4096),
        "dup": kernel.dup,
        "close": kernel.close,
        "ioctl": lambda fd: kernel.ioctl(fd, uapi.KVM_GET_API_VERSION),
    }
    was_ours = client.vm()
    client.close(was_ours)
    for fd in (CLOSED, was_ours):
        client.refused("EBADF", calls[call], fd)


@pytest.mark.parametrize("call", ["read", "write", "pread", "pwrite"])
def test_files_without_read_and_write_are_einval(client: Client, call: str) -> None:
    for fd in (client.kvm, client.vm(), client.kernel.open("/dev/vfio/1"), client.container()):
        arguments = {"read": (1,), "write": (b"x",), "pread": (1, 0), "pwrite": (b"x", 0)}[call]
        client.refused("EINVAL", getattr(client.kernel, call), fd, *arguments)


@pytest.mark.parametrize("call", ["write", "pwrite"])
@pytest.mark.parametrize("data", [5, "text", [1, 2], None])
def test_only_bytes_can_be_written(client: Client, call: str, data: object) -> None:
    offset = (0,) if call == "pwrite" else ()
    for fd in (client.device(), client.eventfd()):
        with pytest.raises(TypeError):
            getattr(client.kernel, call)(fd, data, *offset)


def test_files_without_mmap_are_enodev(client: Client) -> None:
    for fd in (client.kvm, client.vm(), client.kernel.open("/dev/vfio/1"), client.container()):
        client.refused("ENODEV", client.kernel.mmap, fd, 4096)


def test_a_descriptor_of_another_kernel_or_a_real_one_knows_no_ioctl(client: Client) -> None:
    other = Client()
    with tempfile.TemporaryFile() as file:
        for fd in (other.kvm, client.eventfd(), file.fileno()):
            client.refused("ENOTTY", client.ioctl, fd, uapi.KVM_GET_API_VERSION)
    other.finish()
