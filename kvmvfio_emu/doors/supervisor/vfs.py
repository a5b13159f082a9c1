"""Which paths are the emulated kernel's, however they are spelled, and a mirror on disk of what is behind them."""

from __future__ import annotations

import errno
import os
import shutil
import time
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.sysfs import Link, device_path, tree, tree_name

if TYPE_CHECKING:
    from kvmvfio_emu.doors.supervisor.target import TargetTask
    from kvmvfio_emu.kernel.host import Host

AT_FDCWD = -100
#: Seconds that what a path leads to is believed to stay what it is, unless the targets themselves move something.
_BELIEVED = 1.0
_NEARBY = ("/dev", "/sys", "/proc")
_KEPT = 4096


class Vfs:
    """The views of the system that programs look devices up in.

    Names below the owned places exist only if the emulated kernel has them; everything else is the real system's. A
    target with another root directory than ours is not looked into.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tree = tree(host)
        self._root = ""  #: of the mirror, once it is there
        self._owned = ["/dev/vfio", "/dev/iommu", "/sys/bus/platform", "/sys/bus/pci", "/sys/kernel/iommu_groups"]
        self._owned.append("/sys/class/vfio-dev")
        if "/dev/kvm" in host.nodes:
            self._owned.append("/dev/kvm")
        for device in host.machine.devices.values():
            self._owned.append(device_path(device.spec))
            if device.spec.bus != "pci":
                self._owned.append(f"/proc/device-tree/{tree_name(device.spec)}")
        self._directories: dict[str, tuple[float, str]] = {}  #: when seen, and the real path
        self._foreign: dict[str, float] = {}  #: when seen: names of the real system's that are there, and no links

    def close(self) -> None:
        """Remove the mirror."""
        if self._root:
            shutil.rmtree(self._root, ignore_errors=True)

    def mirror(self, virtual: str) -> str:
        """Where the mirror has it; symbolic links in there lead to the mirror again.

        It is written when it is first asked for, since many a program never looks. KvmVfioEmuError if it cannot be.
        """
        if not self._root:
            try:
                self._write()
            except OSError as error:
                self.close()
                self._root = ""
                raise KvmVfioEmuError(f"no temporary directory for views of the system: {error.strerror}") from None
        return self._root + virtual

    def is_node(self, virtual: str) -> bool:
        """Whether it is a device node, which exists only as long as the kernel has it."""
        return virtual in self._host.nodes

    def is_gone(self, virtual: str) -> bool:
        """Whether it looks like a device node, but the kernel has none of that name (any more)."""
        if not virtual.startswith(("/dev/vfio/", "/dev/kvm", "/dev/iommu")) or virtual in self._host.nodes:
            return False
        return self._tree.get(virtual, b"") is not None  # a directory is no node

    def virtual(self, real: str) -> str | None:
        """The owned path that a path into the mirror stands for."""
        return real[len(self._root) :] or "/" if self._root and real.startswith(self._root) else None

    def translate(self, task: TargetTask, dirfd: int, path: bytes, *, follow_last: bool) -> str | None:
        """The owned absolute path that the target means; None when it is the real system's business.

        OSError when what has to be a directory on the way, or with a slash behind it, is none: ENOENT, ENOTDIR, ELOOP.
        """
        if path.endswith((b"/", b"/.")):
            name = self._find(task, dirfd, path, follow_last=True)
            return None if name is None else self._directory(name)
        return self._find(task, dirfd, path, follow_last=follow_last)

    def _find(self, task: TargetTask, dirfd: int, path: bytes, *, follow_last: bool) -> str | None:
        if not path:
            return None
        text = os.fsdecode(path)
        if not text.startswith("/"):
            base = self._base(task, dirfd)
            if base is None:
                return None
            text = f"{base}/{text}"
        if text.startswith("/proc/self/"):
            # Ours would be another one; and from there descriptors lead into the mirror.
            directory, _, last = f"/proc/{task.tgid}/{text[11:]}".rpartition("/")
            real = os.path.realpath(directory)
            text = f"{self.virtual(real) or real}/{last}"
        if "/.." in text:
            text = self._climb(text)
        seen = self._foreign.get(text)
        if seen is not None and time.monotonic() - seen < _BELIEVED:
            return None
        name = os.path.normpath(text)
        if self._owns(name):
            return name
        name = self._resolve(name, follow_last=follow_last)
        return name if self._owns(name) else None

    def forget(self) -> None:
        """Believe nothing of where paths lead: a target is about to change it."""
        self._directories.clear()
        self._foreign.clear()

    def _climb(self, text: str) -> str:
        """``text`` without "..": up from where a link leads to, not from the link itself."""
        place = ""
        for name in text.split("/"):
            if name == "..":
                place = os.path.dirname(self._directory(place or "/")).rstrip("/")
            elif name not in ("", "."):
                place += f"/{name}"
        return place or "/"

    def _directory(self, name: str) -> str:
        """``name`` without symbolic links. OSError if it is owned and no directory."""
        name = self._resolve(name, follow_last=True)
        if not self._owns(name):
            return name
        if self.is_gone(name):
            raise OSError(errno.ENOENT, "no such device node")
        real = os.path.realpath(self.mirror(name), strict=True)
        if not os.path.isdir(real):
            raise OSError(errno.ENOTDIR, "no directory")
        return self.virtual(real) or name

    def _owns(self, name: str) -> bool:
        if not name.startswith(_NEARBY):
            return False
        return any(name == place or name.startswith(place + "/") for place in self._owned)

    def _base(self, task: TargetTask, dirfd: int) -> str | None:
        """The directory that a relative path starts from, seen as the target sees it."""
        place = "cwd" if dirfd == AT_FDCWD else f"fd/{dirfd}"
        try:
            real = os.readlink(place, dir_fd=task.proc)
        except OSError:
            return None
        return self.virtual(real) or real

    def _resolve(self, name: str, *, follow_last: bool) -> str:
        """``name`` without symbolic links. What is there is remembered for a moment: most paths come again.

        Not what is missing, since that may be made any time.
        """
        directory, _, last = name.rpartition("/")
        now = time.monotonic()
        known = self._directories.get(directory)
        if known is None or now - known[0] > _BELIEVED:
            if len(self._directories) + len(self._foreign) > _KEPT:
                self.forget()
            known = self._directories[directory] = (now, os.path.realpath(directory + "/").rstrip("/"))
        real = f"{known[1]}/{last}"
        if not follow_last:
            return real
        try:
            os.readlink(real)
        except OSError as error:
            if error.errno == errno.EINVAL and not self._owns(real):
                self._foreign[name] = now
            return real
        return os.path.realpath(real)

    def _write(self) -> None:
        import tempfile  # here, as most of what it loads is not needed otherwise

        self._root = tempfile.mkdtemp(prefix="kvmvfio-emu-")
        os.chmod(self._root, 0o755)  # whatever user the program becomes, it may look
        made = set()
        for path, node in self._tree.items():
            place = self._root + path
            directory = place if node is None else os.path.dirname(place)
            if directory not in made:
                os.makedirs(directory, exist_ok=True)
                made.add(directory)
            if isinstance(node, Link):
                os.symlink(node.relative_to(path), place)
            elif node is not None:
                with open(place, "wb") as file:
                    file.write(node)
