"""Which paths are the emulated kernel's, in all the ways to spell one; this process stands in for the program."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvmvfio_emu.doors.supervisor.vfs import AT_FDCWD, Vfs
from kvmvfio_emu.kernel.boot import boot
from kvmvfio_emu.kernel.host import Host

NIC = "fff51000.ethernet"
DEVICES = "/sys/bus/platform/devices"
PLACE = f"/sys/devices/platform/{NIC}"
GROUP = "/sys/kernel/iommu_groups/5"
#: As if ".." and the link before it took each other away.
WRONG = f"{DEVICES}/5"


@pytest.fixture
def host() -> Host:
    return boot()


@pytest.fixture
def vfs(host: Host) -> Iterator[Vfs]:
    with closing(Vfs(host)) as vfs:
        yield vfs


@pytest.fixture
def task() -> Iterator[Any]:
    """This process, as far as looking paths up goes."""
    proc = os.open("/proc/self", os.O_PATH)
    yield SimpleNamespace(proc=proc, tgid=os.getpid(), tid=os.getpid())
    os.close(proc)


Translate = Callable[..., str | None]


@pytest.fixture
def translate(vfs: Vfs, task: Any) -> Translate:
    """``translate(path, dirfd=AT_FDCWD, follow=True)``"""

    def translate(path: str, dirfd: int = AT_FDCWD, *, follow: bool = True) -> str | None:
        return vfs.translate(task, dirfd, os.fsencode(path), follow_last=follow)

    return translate


@pytest.fixture
def opened(vfs: Vfs) -> Iterator[Callable[[str], int]]:
    """Opens a directory of the mirror, as a program has one open that it opened by its owned name."""
    fds: list[int] = []

    def open_(virtual: str) -> int:
        fds.append(os.open(vfs.mirror(virtual), os.O_PATH))
        return fds[-1]

    yield open_
    for fd in fds:
        os.close(fd)


# -- absolute -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/dev/kvm", "/dev/vfio", "/dev/vfio/vfio", "/dev/vfio/5", DEVICES, f"{DEVICES}/{NIC}", PLACE, f"{GROUP}/type"],
)
def test_what_the_kernel_shows_is_owned(translate: Translate, path: str) -> None:
    assert translate(path) == path


@pytest.mark.parametrize(
    "path",
    ["/", "/dev", "/dev/null", "/dev/kvm2", "/dev/vfiox", "/sys", "/sys/bus", "/etc/passwd", "/proc/self/exe", ""],
)
def test_everything_else_is_the_real_systems(translate: Translate, path: str) -> None:
    assert translate(path) is None


def test_names_below_owned_places_are_owned_though_there_is_nothing(translate: Translate, vfs: Vfs) -> None:
    assert translate("/dev/vfio/99") == "/dev/vfio/99"
    assert vfs.is_gone("/dev/vfio/99")
    assert not vfs.is_gone("/dev/vfio/5")
    assert vfs.is_node("/dev/vfio/5")
    assert not vfs.is_node("/dev/vfio")


def test_without_a_kvm_of_ours_its_name_is_the_real_one(host: Host, task: Any) -> None:
    del host.nodes["/dev/kvm"]
    with closing(Vfs(host)) as vfs:
        assert vfs.translate(task, AT_FDCWD, b"/dev/kvm", follow_last=True) is None


@pytest.mark.parametrize(
    "path",
    [
        "//dev//vfio/5",
        "///dev/vfio/./5",
        "/./dev/vfio/5",
        "/dev/../dev/vfio/5",
        "/dev/vfio/../vfio/5",
        "/../dev/vfio/5",
    ],
)
def test_odd_forms_of_a_path(translate: Translate, path: str) -> None:
    assert translate(path) == "/dev/vfio/5"


def test_names_with_dots_in_them_are_names(translate: Translate) -> None:
    assert translate("/dev/vfio/..5") == "/dev/vfio/..5"
    assert translate("/dev/vfio/5..") == "/dev/vfio/5.."


# -- up -------------------------------------------------------------------------------------------------------------


def test_up_from_a_link_is_up_from_where_it_leads_to(translate: Translate) -> None:
    assert translate(f"{DEVICES}/{NIC}/../{NIC}") == PLACE
    assert translate(f"{DEVICES}/{NIC}/iommu_group/../5/type") == f"{GROUP}/type"
    assert translate(f"{PLACE}/iommu_group/devices/{NIC}/../{NIC}/driver") == f"{PLACE}/driver"
    assert not Path(WRONG).exists()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/dev/vfio/nothing/../5", errno.ENOENT),
        ("/dev/vfio/5/../5", errno.ENOTDIR),
        (f"{PLACE}/modalias/../driver", errno.ENOTDIR),
        (f"{DEVICES}/nobody/..", errno.ENOENT),
        ("/dev/vfio/5/", errno.ENOTDIR),
        ("/dev/kvm/.", errno.ENOTDIR),
        ("/dev/vfio/99/", errno.ENOENT),
        (f"{PLACE}/modalias/", errno.ENOTDIR),
    ],
)
def test_what_has_to_be_a_directory_and_is_none(translate: Translate, path: str, error: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is asserted
        translate(path)
    assert caught.value.errno == error


def test_a_slash_behind_a_link_follows_it(translate: Translate) -> None:
    assert translate(f"{DEVICES}/{NIC}", follow=False) == f"{DEVICES}/{NIC}"
    assert translate(f"{DEVICES}/{NIC}/", follow=False) == PLACE
    assert translate(f"{PLACE}/iommu_group/.", follow=False) == GROUP
    assert translate("/dev/vfio/") == "/dev/vfio"


# -- relative -------------------------------------------------------------------------------------------------------


def test_relative_to_the_working_directory(
    translate: Translate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/dev")
    assert translate("vfio/5") == "/dev/vfio/5"
    assert translate("./kvm") == "/dev/kvm"
    assert translate("null") is None
    monkeypatch.chdir(tmp_path)
    up = "../" * len(tmp_path.parts)
    assert translate(f"{up}dev/kvm") == "/dev/kvm"
    assert translate("dev/kvm") is None


def test_relative_to_an_open_directory_of_ours(translate: Translate, opened: Callable[[str], int]) -> None:
    devices = opened(DEVICES)
    assert translate(NIC, devices) == f"{DEVICES}/{NIC}"
    assert translate(f"{NIC}/iommu_group", devices) == f"{DEVICES}/{NIC}/iommu_group"
    assert translate("../drivers", devices) == "/sys/bus/platform/drivers"
    assert translate("../../../../dev/kvm", devices) == "/dev/kvm"
    assert translate("../../../../etc/passwd", devices) is None
    place = opened(f"{DEVICES}/{NIC}")  # the same as PLACE: a descriptor knows no links
    assert translate("driver", place) == f"{PLACE}/driver"
    assert translate("/dev/kvm", place) == "/dev/kvm"


def test_relative_to_a_real_directory(translate: Translate) -> None:
    dev = os.open("/dev", os.O_PATH)
    assert translate("vfio/vfio", dev) == "/dev/vfio/vfio"
    assert translate("../dev/kvm", dev) == "/dev/kvm"
    os.close(dev)


def test_relative_to_what_is_no_directory(translate: Translate) -> None:
    reader, writer = os.pipe()
    for dirfd in (reader, writer, 9999, -5):
        assert translate("kvm", dirfd) is None  # the real kernel says what is wrong with it
    os.close(reader)
    os.close(writer)


def test_by_way_of_proc_self(
    translate: Translate, opened: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program's own, not the supervisor's."""
    monkeypatch.chdir("/dev")
    assert translate("/proc/self/cwd/kvm") == "/dev/kvm"
    assert translate("/proc/self/root/dev/vfio/5") == "/dev/vfio/5"
    assert translate(f"/proc/self/fd/{opened('/dev/vfio')}/5") == "/dev/vfio/5"


def test_the_supervisors_own_directory_is_not_the_programs(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program elsewhere: its descriptors and its directory are found by its number, not by ours."""
    import subprocess

    monkeypatch.chdir("/")
    with subprocess.Popen(["cat"], cwd="/dev", stdin=subprocess.PIPE) as other:
        proc = os.open(f"/proc/{other.pid}", os.O_PATH)
        task: Any = SimpleNamespace(proc=proc, tgid=other.pid, tid=other.pid)
        assert vfs.translate(task, AT_FDCWD, b"kvm", follow_last=True) == "/dev/kvm"
        assert vfs.translate(task, AT_FDCWD, b"/proc/self/cwd/kvm", follow_last=True) == "/dev/kvm"
        assert vfs.translate(task, 0, b"kvm", follow_last=True) is None
        os.close(proc)


# -- symbolic links outside -------------------------------------------------------------------------------------------


def test_links_outside_lead_to_owned_places(translate: Translate, tmp_path: Path) -> None:
    (tmp_path / "node").symlink_to("/dev/kvm")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "directory" / "third")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "third").symlink_to(f"{DEVICES}/{NIC}")
    assert translate(f"{tmp_path}/node") == "/dev/kvm"
    assert translate(f"{tmp_path}/node", follow=False) is None
    assert translate(f"{tmp_path}/first") == f"{DEVICES}/{NIC}"
    assert translate(f"{tmp_path}/first/iommu_group", follow=False) == f"{DEVICES}/{NIC}/iommu_group"
    assert translate(f"{tmp_path}/first/iommu_group/../5") == GROUP
    assert translate(f"{tmp_path}/first/") == PLACE


def test_links_that_lead_nowhere_or_in_circles_are_the_real_systems(translate: Translate, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("circle", "dangling", "circle/x", "dangling/x", "missing/../x"):
        assert translate(f"{tmp_path}/{name}") is None


# -- the mirror -------------------------------------------------------------------------------------------------------


def test_the_mirror_has_what_the_kernel_shows(vfs: Vfs) -> None:
    device = Path(vfs.mirror(f"{DEVICES}/{NIC}"))
    assert os.readlink(device) == f"../../../devices/platform/{NIC}"
    assert (device / "iommu_group").resolve() == Path(vfs.mirror(GROUP)).resolve()
    assert (device / "driver").resolve().name == "vfio-platform"
    assert (device / "of_node" / "compatible").read_bytes().endswith(b"\0")
    assert vfs.virtual(str(Path(vfs.mirror(GROUP)).resolve())) == GROUP
    assert vfs.virtual("/etc/passwd") is None


def test_the_mirror_may_be_looked_at_by_whom_the_program_becomes(vfs: Vfs) -> None:
    top = Path(vfs.mirror(""))
    assert top.stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in top.rglob("*") if path.is_file())


def test_the_mirror_goes_with_it(host: Host) -> None:
    vfs = Vfs(host)
    top = Path(vfs.mirror(""))
    assert top.is_dir()
    vfs.close()
    assert not top.exists()
