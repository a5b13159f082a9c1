"""`Kernel.installed`: unmodified code gets the emulated kernel, and everything else stays real."""

# ruff: noqa: SIM115

from __future__ import annotations

import builtins
import fcntl
import io
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doors import unmodified
from support import NIC, Client

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.guest import Cpu, Script, work
from kvmvfio_emu.guest.script import Routine

Boot = Callable[..., Client]
NAMES = [
    (os, "open"),
    (os, "close"),
    (os, "read"),
    (os, "write"),
    (os, "pread"),
    (os, "pwrite"),
    (fcntl, "ioctl"),
    (mmap, "mmap"),
    (builtins, "open"),
    (io, "open"),
]


def functions() -> list[Any]:
    return [getattr(module, name) for module, name in NAMES]


def test_an_unmodified_program_runs_the_whole_flow(client: Client, tmp_path: Path) -> None:
    def main(cpu: Cpu) -> Routine:
        yield work(1)

    client.kernel.attach_guest(0, Script(main))
    events: list[tuple[str, dict[str, Any]]] = []
    client.kernel.listen(lambda event: events.append((event.name, event.fields)))
    with client.kernel.installed() as kernel:
        assert kernel is client.kernel
        seen = unmodified.run("/dev/vfio/1", NIC, str(tmp_path / "scratch"))
        assert client.kernel.open_files() == []
    assert seen == {
        "version": 12,
        "exit": uapi.KVM_EXIT_SYSTEM_EVENT,
        "mapping is one": True,
        "vfio": 0,
        "by read": bytes(4),
        "by mapping": bytes(4),
        "absent": "/dev/vfio/99",
        "real": b"Real",
        "terminal": [3, 4, 0, 0],
    }
    assert (tmp_path / "scratch").read_bytes() == b"Real"
    assert ("work", {"gsi": 48}) in events  # the write to the eventfd had acted when it returned


def test_it_fails_without(tmp_path: Path) -> None:
    """It is the kernel that makes the program above work."""
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on what this machine has
        unmodified.run("/dev/vfio/1", NIC, str(tmp_path / "scratch"))


def test_all_names_are_put_back(client: Client) -> None:
    before = functions()
    with client.kernel.installed():
        assert all(new is not old for new, old in zip(functions(), before, strict=True))
    assert functions() == before
    with pytest.raises(ZeroDivisionError), client.kernel.installed():
        1 / 0  # noqa: B018
    assert functions() == before


def test_replacements_have_the_names_of_what_they_replace(client: Client) -> None:
    with client.kernel.installed():
        assert [os.open.__name__, os.close.__name__, fcntl.ioctl.__name__] == ["open", "close", "ioctl"]
        assert "ioctl" in (fcntl.ioctl.__doc__ or "")


@pytest.mark.parametrize("inner_first", [True, False])
def test_two_kernels_nested(boot: Boot, inner_first: bool) -> None:
    """The inner one answers for the paths; descriptors are each one's own, and real ones nobody's."""
    outer, inner = boot(), boot()
    with outer.kernel.installed():
        theirs = os.open("/dev/kvm", os.O_RDWR)
        with inner.kernel.installed():
            ours = os.open("/dev/kvm", os.O_RDWR)
            assert [outer.kernel.open_files(), inner.kernel.open_files()] == [["kvm"], ["kvm"]]
            for fd in (ours, theirs):
                vm = fcntl.ioctl(fd, uapi.KVM_CREATE_VM)
                with mmap.mmap(fcntl.ioctl(vm, uapi.KVM_CREATE_VCPU, 0), 4096) as page:
                    assert isinstance(page, mmap.mmap)
                with pytest.raises(OSError, match="No such device"):
                    mmap.mmap(vm, 4096)
            reader, writer = os.pipe()
            assert (os.write(writer, b"x"), os.read(reader, 1)) == (1, b"x")
            for fd in (reader, writer, *([ours, theirs] if inner_first else [theirs, ours])):
                os.close(fd)
            assert "kvm" not in outer.kernel.open_files() + inner.kernel.open_files()
        fd = os.open("/dev/kvm", os.O_RDWR)
        assert (outer.kernel.emulates(fd), inner.kernel.emulates(fd)) == (True, False)


def test_an_eventfd_of_two_nested_kernels_is_closed_for_both(boot: Boot) -> None:
    clients = [boot(), boot()]
    eventfd = os.eventfd(0)
    for client in clients:
        client.irqfd(client.vm(), eventfd, 48)
    with clients[0].kernel.installed(), clients[1].kernel.installed():
        os.close(eventfd)
    for client in clients:
        client.kernel.run()
        assert client.host.eventfds.held() == []


def test_one_kernel_installed_twice(client: Client) -> None:
    with client.kernel.installed(), client.kernel.installed():
        fd = os.open("/dev/kvm", os.O_RDWR)
        assert fcntl.ioctl(fd, uapi.KVM_GET_API_VERSION) == 12
        os.close(fd)
    assert client.kernel.open_files() == []


def test_the_kernels_own_methods_work_meanwhile(client: Client) -> None:
    """Registers, too: the kernel must not meet itself on the memory behind a mapping."""
    with client.kernel.installed():
        device = client.device()
        client.vcpu(client.vm())
        with client.kernel.mmap(device, 4096) as registers:
            registers[:4] = b"\1\2\3\4"
            client.kernel.check()
            assert registers[:4] in (bytes(4), b"\1\2\3\4")
        client.close(device)
        client.kernel.run()


# -- mappings ---------------------------------------------------------------------------------------------------------


def test_mappings_are_instances_of_the_class_before_and_after(client: Client) -> None:
    real = mmap.mmap
    early = mmap.mmap(-1, 4096)
    with client.kernel.installed():
        inside = mmap.mmap(-1, 4096)
        page = mmap.mmap(client.vcpu(client.vm()), 4096)
        for mapping in (early, inside, page):
            assert isinstance(mapping, mmap.mmap)
            assert isinstance(mapping, real)
        assert not isinstance(b"", mmap.mmap)
        assert issubclass(mmap.mmap, real)
    for mapping in (early, inside, page):
        assert isinstance(mapping, mmap.mmap)
        mapping.close()


def test_subclasses_of_mmap_are_asked_too(client: Client) -> None:
    vm = client.vm()
    vcpu = client.vcpu(vm)
    with client.kernel.installed():

        class Mine(mmap.mmap):
            pass

        with Mine(vcpu, 4096) as page:
            assert type(page) is Mine
            assert isinstance(page, mmap.mmap)
        assert not isinstance(mmap.mmap(-1, 4096), Mine)
        with pytest.raises(OSError, match="No such device"):
            Mine(vm, 4096)


# -- open -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opened",
    [
        lambda: open("/dev/kvm", "rb", buffering=0),
        lambda: open("/dev/kvm", "r+b", 0),
        lambda: open(b"/dev/kvm", "rb"),
        lambda: open(Path("/dev/kvm")),
        lambda: Path("/dev/kvm").open("rb"),
        lambda: io.open("/dev/kvm", "wb"),  # noqa: UP020
        lambda: open("/dev/kvm", "ab", opener=lambda path, flags: os.open(path, flags)),
        lambda: os.fdopen(os.open("/dev/kvm", os.O_RDWR), "rb", buffering=0),
    ],
)
def test_file_objects_of_device_nodes(client: Client, opened: Callable[[], Any]) -> None:
    with client.kernel.installed():
        with opened() as file:
            assert fcntl.ioctl(file, uapi.KVM_GET_API_VERSION) == 12
            assert fcntl.ioctl(file.fileno(), uapi.KVM_GET_API_VERSION) == 12
            assert client.kernel.open_files() == ["kvm"]
        assert client.kernel.open_files() == []


def test_the_file_object_has_the_nodes_name(client: Client) -> None:
    with client.kernel.installed(), open("/dev/kvm", "rb", buffering=0) as file:
        assert file.name == "/dev/kvm"


@pytest.mark.parametrize(("arguments", "error"), [(("zz",), ValueError), (("rb", 0, "utf-8"), ValueError)])
def test_bad_arguments_of_open_leave_nothing_open(
    client: Client, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with client.kernel.installed():
        with pytest.raises(error):
            open("/dev/kvm", *arguments)
        with pytest.raises(FileNotFoundError) as caught:
            open("/dev/vfio/99")
        assert caught.value.filename == "/dev/vfio/99"
    assert client.kernel.open_files() == []


def test_real_files_by_every_kind_of_open(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with client.kernel.installed():
        with open(path, "w", encoding="utf-8") as file:
            file.write("text")
        assert path.read_text() == "text"
        fd = os.open(path, os.O_RDONLY)
        with open(fd, "rb", closefd=False) as file:
            assert file.read() == b"text"
        os.close(fd)
        directory = os.open(tmp_path, os.O_RDONLY)
        fd = os.open("file", os.O_RDWR, dir_fd=directory)
        assert os.pread(fd, 2, 1) == b"ex"
        with mmap.mmap(fd, 0) as mapping:
            assert mapping[:] == b"text"
        os.close(fd)
        os.close(directory)
        with pytest.raises(TypeError):
            os.open(3, os.O_RDONLY)  # type: ignore[arg-type]
        with pytest.raises(IsADirectoryError):
            open(tmp_path)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(0x7FFF)


# -- other threads ----------------------------------------------------------------------------------------------------


def test_other_threads_keep_the_real_calls(client: Client) -> None:
    """One that blocks in a read neither enters the kernel nor keeps ours from it."""
    reader, writer = os.pipe()
    received: list[bytes] = []
    started = threading.Event()

    def wait() -> None:
        with pytest.raises(OSError):  # noqa: PT011 - in whatever way the real one refuses
            fcntl.ioctl(container, uapi.VFIO_GET_API_VERSION)
        started.set()
        received.append(os.read(reader, 1))

    with client.kernel.installed():
        container = os.open("/dev/vfio/vfio", os.O_RDWR)
        thread = threading.Thread(target=wait)
        thread.start()
        started.wait()
        assert fcntl.ioctl(container, uapi.VFIO_GET_API_VERSION) == 0
        os.write(writer, b"x")
        thread.join()
    assert received == [b"x"]
    os.close(reader)
    os.close(writer)


def test_calls_that_the_kernel_itself_makes_are_not_its_own_business(client: Client) -> None:
    """A listener that uses the library while the kernel is at work."""
    seen: list[bytes] = []

    def listener(event: object) -> None:
        fd = os.open("/dev/zero", os.O_RDONLY)
        seen.append(os.read(fd, 1))
        os.close(fd)

    with client.kernel.installed():
        stop = client.kernel.listen(listener)
        os.close(os.open("/dev/kvm", os.O_RDWR))
        stop()
    assert seen == [b"\0"] * 3  # the call, its return, the release


def test_a_kernel_switched_off_while_installed_can_be_left() -> None:
    before = functions()
    with Kernel() as kernel, kernel.installed():
        kernel.close_kernel()
    assert functions() == before
