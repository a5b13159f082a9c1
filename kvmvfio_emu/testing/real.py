"""The host's own kernel with the methods of `Kernel`, so that one test can be asked of both."""

from __future__ import annotations

import fcntl
import mmap as _mmap
import os
import platform
from collections.abc import Callable
from typing import Any, Self

from kvmvfio_emu import profiles
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.profiles import Profile

#: The profile that says the same as a real kernel of this architecture (`platform.machine`), as far as it goes.
STANDS_FOR = {"x86_64": "linux-6.18-x86", "aarch64": "linux-6.12"}
_ARCH = {"aarch64": "arm64"}
#: How the links of KVM and VFIO files begin.
_OURS = ("anon_inode:kvm", "anon_inode:[vfio", "/dev/kvm", "/dev/vfio/", "/dev/iommu")


def missing() -> str | None:
    """Why there is no real KVM here; None when there is."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"no real KVM here: {error}"
    return None


def cannot_serve(profile: str | Profile) -> str | None:
    """Why this host's kernel cannot stand for ``profile``; None when it can be tried."""
    loaded = profiles.load(profile) if isinstance(profile, str) else profile
    here = platform.machine()
    arch = _ARCH.get(here, here)
    if loaded.arch != arch:
        return f"profile {loaded.name} is a kernel for {loaded.arch}, this host's is for {arch}"
    return None


class RealKernel:
    """Calls go to the host. Knows the descriptors that it opened, no hardware and no state.

    KvmVfioEmuError when the host has no /dev/kvm for us.
    """

    def __init__(self) -> None:
        if (reason := missing()) is not None:
            raise KvmVfioEmuError(reason)
        self._known: dict[int, tuple[str, str]] = {}

    def open(self, path: str, flags: int = os.O_RDWR) -> int:
        """`os.open`."""
        return self._note(os.open(path, flags | os.O_CLOEXEC))

    def ioctl(self, fd: int, request: int, arg: Any = 0, mutate_flag: bool = True) -> Any:
        """`fcntl.ioctl`; an integer argument may be any address."""
        if isinstance(arg, int) and arg >= 1 << 63:
            arg -= 1 << 64
        return fcntl.ioctl(fd, request, arg, mutate_flag)

    def close(self, fd: int) -> None:
        """`os.close`."""
        self._known.pop(fd, None)
        os.close(fd)

    def dup(self, fd: int) -> int:
        """`os.dup`."""
        return self._note(os.dup(fd))

    def read(self, fd: int, length: int) -> bytes:
        """`os.read`."""
        return os.read(fd, length)

    def write(self, fd: int, data: bytes) -> int:
        """`os.write`."""
        return os.write(fd, data)

    def mmap(self, fileno: int, length: int, *args: Any, **kwargs: Any) -> _mmap.mmap:
        """`mmap.mmap`."""
        return _mmap.mmap(fileno, length, *args, **kwargs)

    def _note(self, fd: int) -> int:
        self._known[fd] = (str(fd), os.readlink(f"/proc/self/fd/{fd}"))
        return fd

    def open_files(self) -> list[str]:
        """Links of the KVM and VFIO files that this process has open, from anywhere: sorted."""
        links = []
        for name in os.listdir("/proc/self/fd"):
            try:
                link = self.kind(int(name))
            except FileNotFoundError:
                continue  # the listing's own
            if link is not None:
                links.append(link)
        return sorted(links)

    def kind(self, fd: int) -> str | None:
        """The link of a KVM or VFIO file; None for another. FileNotFoundError when ``fd`` is not open."""
        link = os.readlink(f"/proc/self/fd/{fd}")
        return link if link.startswith(_OURS) else None

    def check(self) -> None:
        """A real kernel's state is its own business."""

    def device(self, name: str) -> Any:
        """There is no model of the hardware to drive."""
        raise KvmVfioEmuError(f"{name!r} is no model: the hardware below a real kernel cannot be driven by a test")

    def listen(self, listener: Callable[..., None]) -> Callable[[], None]:
        """A real kernel shows no events."""
        return lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for fd in tuple(self._known):
            try:
                self.close(fd)
            except OSError:
                continue  # the test has closed it by `os.close`
