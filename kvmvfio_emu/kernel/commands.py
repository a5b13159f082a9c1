"""Sets of names as people write them on a command line: names and %classes, after strace's -e trace=.

Models nothing of the kernel. A command is an ioctl by its constant's name (whatever kind of file takes it), or one of
`CALLS`; the view's filters add events and actors to what can be named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

#: The other system calls on emulated files.
CALLS = ("open", "read", "write", "pread", "pwrite", "mmap")
#: An ioctl that the kind of file that got it does not know.
UNKNOWN = "unknown_ioctl"
COMMANDS = frozenset({*CALLS, UNKNOWN, *(row.name for row in uapi.IOCTLS.values())})
_ROWS: Mapping[tuple[str, int], uapi.Ioctl] = dict(uapi.IOCTLS.items())

#: Class -> its commands.
CLASSES: Mapping[str, frozenset[str]] = {
    "%kvm": frozenset(name for name in COMMANDS if name.startswith("KVM_")),
    "%vfio": frozenset(name for name in COMMANDS if name.startswith("VFIO_")),
    "%iommufd": frozenset(name for name in COMMANDS if name.startswith("IOMMU_")),
    "%ioctl": COMMANDS - frozenset(CALLS),
    "%file": frozenset(CALLS),
}


def ioctl_row(kind: str, request: int) -> uapi.Ioctl | None:
    """What the API says of ``request`` to a file of ``kind``; None when it has none of that number."""
    return _ROWS.get((kind, request))


def ioctl_command(kind: str, request: int) -> str:
    """The command that it is, `UNKNOWN` when the API has none of that number."""
    row = _ROWS.get((kind, request))
    return UNKNOWN if row is None else row.name


def name_set(
    text: str,
    names: Iterable[str] = COMMANDS,
    classes: Mapping[str, frozenset[str]] = CLASSES,
    what: str = "ioctl or call",
) -> frozenset[str]:
    """The names that ``text`` means: a list with commas of names, classes, ``all`` and ``none``; ``!`` first negates.

    KvmVfioEmuError names what is unknown, as a ``what``, and what may have been meant.
    """
    universe = frozenset(names)
    negated = text.startswith("!")
    chosen: set[str] = set()
    for item in (text[1:] if negated else text).split(","):
        if item == "all":
            chosen |= universe
        elif item in classes:
            chosen |= classes[item]
        elif item in universe:
            chosen.add(item)
        elif item != "none":
            raise KvmVfioEmuError(f"unknown {what} {item!r}{_meant(item, {*universe, *classes})}")
    return universe - chosen if negated else frozenset(chosen)


def _meant(item: str, known: set[str]) -> str:
    import difflib  # here: it is needed for mistakes only

    close = difflib.get_close_matches(item.upper(), known, 3, 0.7) or difflib.get_close_matches(item, known, 3, 0.7)
    classes = ", ".join(sorted(name for name in known if name.startswith("%")))
    return f"; did you mean {' or '.join(close)}?" if close else f"; classes are {classes}" if classes else ""
