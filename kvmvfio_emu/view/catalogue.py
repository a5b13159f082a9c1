"""What each ioctl and device attribute can be refused with, by docstrings, declarations and the clauses themselves."""

from __future__ import annotations

import errno as _errno
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import kvmvfio_emu.kernel.boot
import kvmvfio_emu.kernel.iommufd.file
import kvmvfio_emu.kernel.vfio.pci  # noqa: F401 - so that all kinds of files are there
from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.file import File, IoctlDecl
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.view.clauses import Clause, source

_ERRNO = re.compile(r"\bE[A-Z0-9]{2,}\b")
_REFERENCE = re.compile(r"(?<!`)`([\w.]+)\.(\w+)`")
_DOORS = "kvmvfio_emu.doors."
_FILE = "kvmvfio_emu.kernel.file"


class Said(NamedTuple):
    """What a docstring or a declaration says of one errno; ``text`` is empty where it only names it."""

    errno: str
    text: str
    where: str  #: Irqfds.assign


class Handled(NamedTuple):
    """One ioctl of one class of file."""

    kind: str
    cls: type[File]
    decl: IoctlDecl

    @property
    def name(self) -> str:
        """KVM_IRQFD"""
        return uapi.ioctl_name(self.decl.number, self.kind)

    @property
    def handler(self) -> Any:
        """The method."""
        return getattr(self.cls, self.decl.handler)


class Attribute(NamedTuple):
    """One row of a device type's attributes."""

    device: str  #: KVM_DEV_TYPE_VFIO
    cls: type[KvmDevice]
    row: AttrGroup


def _classes(cls: type[Any]) -> Iterator[type[Any]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _classes(child)


@cache
def handled() -> tuple[Handled, ...]:
    """Every ioctl that is answered; a handler that classes share is there once."""
    found: dict[tuple[str, int, Any], Handled] = {}
    for cls in _classes(File):
        for number, decl in sorted(cls.ioctls.items()):
            found.setdefault((cls.kind, number, getattr(cls, decl.handler)), Handled(cls.kind, cls, decl))
    return tuple(found.values())


@cache
def attributes() -> tuple[Attribute, ...]:
    """Every attribute of every device type, in all versions of the kernel."""
    return tuple(
        Attribute(cls.type_name, cls, row)
        for cls in dict.fromkeys(_classes(KvmDevice))
        if "type_name" in vars(cls)
        for row in cls.attributes
    )


def clauses(one: Handled) -> list[Clause]:
    """The clauses that an ioctl can meet, without what only its doors add for themselves."""
    handler = one.handler
    found = source().of(handler.__module__, handler.__qualname__.partition(".")[0], handler.__name__)
    if one.name == "KVM_CREATE_DEVICE":  # which type is only known when it runs
        for cls in dict.fromkeys(attribute.cls for attribute in attributes()):
            found += source().of(cls.__module__, cls.__name__, "create")
    found += [clause for clause in source().of(_FILE, "File", "dispatch") if clause.errno == "EIO"]
    if one.decl.when:
        found += [clause for clause in source().of(_FILE, "File", "unknown_ioctl") if not clause.errno]
    same: dict[tuple[str, str], Clause] = {}
    for clause in found:
        if not clause.errno and clause.module.startswith(_DOORS):
            continue  # what the host's kernel said to us
        same.setdefault((clause.errno, clause.reason), clause)
    return list(same.values())


def said(one: Handled) -> list[Said]:
    """What the handler's docstring says, and its declaration."""
    found = documented(one.handler)
    if one.decl.struct:
        found.append(Said("EFAULT", f"the argument is no readable {one.decl.struct}", one.decl.handler))
    if one.decl.argsz:
        text = f"argsz says fewer bytes than the {one.decl.minsz} that have to be there"
        found.append(Said("EINVAL", text, one.decl.handler))
    return found


def documented(thing: Any) -> list[Said]:
    """The errnos of a docstring with their clauses, and those of what it refers to: `module.name` or `Class.name`."""
    text = inspect.getdoc(thing) or ""
    where = getattr(thing, "__qualname__", "")
    found = [Said(code, clause, where) for code, clause in phrases(text)]
    module = inspect.getmodule(thing)
    assert module is not None
    for name, member in _REFERENCE.findall(text):
        target = getattr(_named(module.__package__ or "", name), member)
        found += documented(target)
        if isinstance(target, type):
            for function in vars(target).values():
                if inspect.isfunction(function):
                    found += documented(function)
    return list(dict.fromkeys(found))


def _named(package: str, place: str) -> Any:
    """The module or the class of that name, in ``package`` or else anywhere in the kernel. StopIteration: none."""
    modules = sorted((name, module) for name, module in sys.modules.items() if name.startswith("kvmvfio_emu.kernel."))
    modules.sort(key=lambda entry: not entry[0].startswith(f"{package}."))
    found = (module if name.endswith(f".{place}") else vars(module).get(place) for name, module in modules)
    return next(one for one in found if inspect.ismodule(one) or inspect.isclass(one))


def phrases(text: str) -> Iterator[tuple[str, str]]:
    """(errno, what is said of it): what follows the errno up to the next one; else the sentence that it is in."""
    for sentence in re.split(r"(?<=[.;])\s+", text.replace("\n", " ")):
        marks = [match for match in _ERRNO.finditer(sentence) if hasattr(_errno, match[0])]
        for number, match in enumerate(marks):
            end = marks[number + 1].start() if number + 1 < len(marks) else len(sentence)
            after = re.sub(r"[\s,;:.]*(?:\b(?:or|and))?[\s,;:.]*$", "", sentence[match.end() : end]).strip(" ,:;(")
            alone = len(marks) == 1 and not after
            yield match[0], sentence.rstrip(".; ") if alone and sentence.strip(".; ") != match[0] else after


def attribute_errors(one: Attribute) -> list[Said]:
    """What an attribute's row says."""
    where = f"{one.cls.__name__}, {one.row.group}"
    found = [Said(*text.partition(" ")[::2], where) for text in one.row.errors]
    if one.row.payload:
        found.append(Said("EFAULT", f"addr leads to no readable {one.row.payload}", where))
    found.append(Said("ENXIO", "the device has no such attribute", where))
    return found


def models(thing: Any) -> str:
    """What of Linux a handler or a class is: the first line of its module."""
    module = inspect.getmodule(thing)
    assert module is not None
    return (module.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
