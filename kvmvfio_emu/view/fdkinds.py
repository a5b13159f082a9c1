"""Which kind of file each descriptor of each traced process is, as far as a log of system calls tells.

Kinds come from what opens and creates files, from paths that strace prints (-y), and else from the requests that a
descriptor takes: each leaves fewer kinds possible. Bounded: of more processes or descriptors than any real log has,
the oldest are forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kvmvfio_emu import uapi
from kvmvfio_emu.view.strace import Call, descriptor, number

Kinds = frozenset[str]
_MOST_PROCESSES, _MOST_DESCRIPTORS = 256, 4096
_CLONE_FILES = 0x400
_F_DUPFD = ("F_DUPFD", "F_DUPFD_CLOEXEC", "0", "0x406", "1030")
_OPENS = {"open": 0, "openat": 1, "openat2": 1, "creat": 0}
_FORKS = ("fork", "vfork", "clone", "clone3")

#: Path of a device node, or what stands for it in /proc -> the kind.
_PATHS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"/dev/kvm(?!\w)", "kvm"),
        (r"/dev/vfio/vfio(?!\w)", "container"),
        (r"/dev/vfio/(noiommu-)?\d+(?!\w)", "group"),
        (r"/dev/vfio/devices/vfio\d+(?!\w)", "vfio-device"),
        (r"/dev/iommu(?!\w)", "iommufd"),
        (r"anon_inode:\[?kvm-vm\b(?!-)", "vm"),
        (r"anon_inode:\[?kvm-vcpu\b(?!-)", "vcpu"),
        (r"anon_inode:\[?kvm-(?!vm\b|vcpu\b|vcpu-stats|vm-stats|gmem)[\w-]+", "device"),
        (r"anon_inode:\[?vfio-device\b", "vfio-device"),
    )
)
#: Request -> the kind of the descriptor that it returns.
_CREATES = {"KVM_CREATE_VM": "vm", "KVM_CREATE_VCPU": "vcpu", "VFIO_GROUP_GET_DEVICE_FD": "vfio-device"}
_DEVICE_FD = re.compile(r"\bfd=(\d+)")


def kind_of_path(path: str) -> str | None:
    """The kind of file that a path of strace's or of /proc leads to, None for one that is not ours."""
    return next((kind for pattern, kind in _PATHS if pattern.match(path)), None)


class _Table:
    """The descriptors of one process, or of all that share them."""

    def __init__(self, kinds: dict[int, Kinds] | None = None) -> None:
        self.kinds = dict(kinds or {})
        self.has_devices = False  #: a device was made whose descriptor the log does not show

    def set(self, fd: int, kinds: Kinds) -> None:
        self.kinds.pop(fd, None)
        self.kinds[fd] = kinds
        if len(self.kinds) > _MOST_DESCRIPTORS:
            del self.kinds[next(iter(self.kinds))]


class Descriptors:
    """All processes of a log. One whose beginning the log does not show shares the descriptors of the others."""

    def __init__(self) -> None:
        self._common = _Table()
        self._tables: dict[int, _Table] = {}

    def kinds(self, pid: int, fd: int) -> Kinds:
        """What ``fd`` can be; empty when nothing is known."""
        return self._table(pid).kinds.get(fd, frozenset())

    def use(self, pid: int, fd: int, possible: Iterable[str]) -> Kinds:
        """``fd`` takes a request that these kinds take. What it can be from now on."""
        table, able = self._table(pid), frozenset(possible)
        known = table.kinds.get(fd, frozenset())
        if not known and table.has_devices and "device" in able:
            able = frozenset({"device"})  # those that the log showed are known
        narrowed = (known & able) or able  # nothing in common: the number was closed and used again unseen
        table.set(fd, narrowed)
        return narrowed

    def see_path(self, pid: int, fd: int, path: str) -> None:
        """strace printed what ``fd`` is."""
        kind = kind_of_path(path)
        self._table(pid).set(fd, frozenset({kind} if kind else ()))

    def created(self, pid: int, request: str, result: int, argument: str) -> None:
        """A request succeeded: perhaps it made a descriptor."""
        table = self._table(pid)
        if request in _CREATES:
            table.set(result, frozenset({_CREATES[request]}))
        elif request == "KVM_CREATE_DEVICE":
            match = _DEVICE_FD.search(argument)
            fd = None if match is None else number(match[1])
            if fd is not None:
                table.set(fd, frozenset({"device"}))
            else:
                table.has_devices = True

    def system_call(self, call: Call) -> None:
        """Any finished system call but ioctl: what opens, copies or closes descriptors, or makes processes."""
        result = call.result
        if result is None or result < 0:
            return
        table, args = self._table(call.pid), call.args
        if call.name in _OPENS and len(args) > _OPENS[call.name]:
            path = args[_OPENS[call.name]].strip('"')
            kind = kind_of_path(call.result_path or path)
            table.set(result, frozenset({kind} if kind else ()))
        elif call.name == "close" and args and (one := descriptor(args[0])):
            table.kinds.pop(one[0], None)
        elif call.name in ("dup", "dup2", "dup3") or (
            call.name == "fcntl" and len(args) > 1 and args[1].split()[0] in _F_DUPFD
        ):
            if args and (one := descriptor(args[0])):
                table.set(result, table.kinds.get(one[0], frozenset()))
        elif call.name in _FORKS and result:
            self._fork(result, table, _shares_files(call))

    def ended(self, pid: int) -> None:
        """A process is gone."""
        self._tables.pop(pid, None)

    def _table(self, pid: int) -> _Table:
        return self._tables.get(pid, self._common)

    def _fork(self, child: int, table: _Table, shared: bool) -> None:
        if shared and table is self._common:
            return
        self._tables[child] = table if shared else _Table(table.kinds)
        if len(self._tables) > _MOST_PROCESSES:
            del self._tables[next(iter(self._tables))]


def _shares_files(call: Call) -> bool:
    flags = next((match for text in call.args if (match := re.search(r"flags=([\w|]+)", text))), None)
    if flags is None:
        return False  # fork
    value = flags[1].split("|")[0]
    return "CLONE_FILES" in flags[1] or bool((number(value) or 0) & _CLONE_FILES)


assert {kind for _, kind in _PATHS} <= set(uapi.KINDS)
