"""A log of strace in which every KVM, VFIO and iommufd ioctl has its name and its meaning; the rest as it was.

One line at a time, in constant memory, whatever the log's size. A line says

    ioctl(5, 0x4020ae76 /* KVM_IRQFD */, 0x7ffd0) = 0  # vm: ties an eventfd to a guest interrupt, or unties it

which is how strace writes a number and its name (-X verbose), and a remark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.fdkinds import Descriptors
from kvmvfio_emu.view.names import argument
from kvmvfio_emu.view.requests import Request, by_name, by_number, is_ours
from kvmvfio_emu.view.strace import Call, Ended, Malformed, descriptor, number, parse

_LONGEST_LINE = 1 << 16
_MOST_UNFINISHED = 4096
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
_NAME = re.compile(r"[A-Z][A-Z0-9_]+")
_IOC = re.compile(
    r"_IOC\((?P<way>[A-Z_|0-9x]+), *(?P<type>0x[0-9a-f]+), *(?P<nr>0x[0-9a-f]+), *(?P<size>0x[0-9a-f]+|0)\)"
)
_WAYS = {"_IOC_NONE": 0, "_IOC_WRITE": 1, "_IOC_READ": 2}


class ForeignLogError(KvmVfioEmuError):
    """What was to be decoded is no log of ioctls, or not of this format."""


class Named(NamedTuple):
    """One ioctl of the log: what ``--json`` prints, less what is None."""

    line: int
    pid: int
    fd: int
    kinds: tuple[str, ...]  #: what the file can be
    names: tuple[str, ...]  #: what the request can be
    number: int | None
    meaning: str
    arg: str
    result: int | None = None
    errno: str | None = None

    def as_json(self) -> dict[str, Any]:
        """A JSON object."""
        record: dict[str, Any] = {"line": self.line}
        if self.pid:
            record["pid"] = self.pid
        record |= {"fd": self.fd, "file": " or ".join(self.kinds), "request": " or ".join(self.names)}
        if self.number is not None:
            record["number"] = f"{self.number:#010x}"
        record |= {"meaning": self.meaning, "arg": self.arg, "result": self.result}
        if self.errno is not None:
            record["errno"] = self.errno
        return record


class LogDecoder:
    """Feeds on lines. ``complain`` hears of lines that cannot be understood, with their place."""

    def __init__(self, place: str, complain: Callable[[str], object]) -> None:
        self._place = place
        self._complain = complain
        self._descriptors = Descriptors()
        self._unfinished: dict[int, tuple[Named | None, tuple[str, ...]]] = {}
        self.lines = 0
        self.ioctls = 0  #: of any device
        self.named = 0

    def decode(self, log: BinaryIO) -> Iterator[tuple[str, Named | None]]:
        """(the line as it is to be printed, the call that it completes) for each line of the log.

        ForeignLogError at the end if no line was an ioctl.
        """
        whole = True  # the line before ended
        while raw := log.readline(_LONGEST_LINE):
            text = raw.decode("utf-8", "surrogateescape")
            ends = text.endswith("\n")
            self.lines += whole
            if whole and (ends or len(raw) < _LONGEST_LINE):
                yield self._line(text)
            else:
                yield text, None  # no line of strace's is that long
            whole = ends
        for call, _ in self._unfinished.values():
            if call is not None:
                yield "", call
        if not self.ioctls:
            if self.lines:
                raise ForeignLogError(f"{self._place}: no ioctl in {self.lines} lines; is it a log of strace?")
            raise ForeignLogError(f"{self._place}: empty")

    def _line(self, text: str) -> tuple[str, Named | None]:
        line = text.rstrip("\r\n")
        parsed = parse(line)
        if isinstance(parsed, Malformed):
            if parsed.name == "ioctl":
                self._complain(f"{self._place}:{self.lines}: not understood, {parsed.why}: {line[:80]}")
            return text, None
        if isinstance(parsed, Ended):
            self._descriptors.ended(parsed.pid)
            self._unfinished.pop(parsed.pid, None)
        if not isinstance(parsed, Call):
            return text, None
        if parsed.name != "ioctl":
            self._other(parsed)
            return text, None
        self.ioctls += not parsed.resumed
        if parsed.resumed:
            return self._resumed(line, text, parsed)
        named = self._name(parsed)
        if named is None:
            if not parsed.finished:
                self._keep(parsed, None)
            return text, None
        self.named += 1
        shown = _annotated(line, parsed, named)
        if not parsed.finished:
            self._keep(parsed, named)
            return _remarked(shown, text, named), None
        named = self._returned(named, parsed)
        return _remarked(shown, text, named), named

    # -- calls over several lines -----------------------------------------------------------------------------

    def _keep(self, call: Call, named: Named | None) -> None:
        self._unfinished[call.pid] = (named, call.args)
        if len(self._unfinished) > _MOST_UNFINISHED:
            del self._unfinished[next(iter(self._unfinished))]

    def _other(self, call: Call) -> None:
        if not call.finished:
            self._keep(call, None)
        elif call.resumed:
            _, args = self._unfinished.pop(call.pid, (None, ()))
            self._descriptors.system_call(call._replace(args=(*args, *call.args)))
        else:
            self._descriptors.system_call(call)

    def _resumed(self, line: str, text: str, call: Call) -> tuple[str, Named | None]:
        named, _ = self._unfinished.pop(call.pid, (None, ()))
        if named is None:
            return text, None
        named = self._returned(named._replace(arg=named.arg or ", ".join(call.args)), call)
        return _remarked(line, text, named, short=True), named

    def _returned(self, named: Named, call: Call) -> Named:
        if call.result is not None and call.result >= 0 and len(named.names) == 1:
            self._descriptors.created(call.pid, named.names[0], call.result, named.arg)
            if call.result_path is not None:
                self._descriptors.see_path(call.pid, call.result, call.result_path)
        return named._replace(result=call.result, errno=call.errno)

    # -- names -------------------------------------------------------------------------------------------------

    def _name(self, call: Call) -> Named | None:
        """Who the request is for, None when it is not for KVM, VFIO or iommufd."""
        if len(call.args) < 2 or (file := descriptor(call.args[0])) is None:
            return None
        number, rows = _request(call.args[1])
        fd, path = file
        if path is not None and (rows or number is not None):
            self._descriptors.see_path(call.pid, fd, path)
        arg = call.args[2] if len(call.args) > 2 else ""
        if not rows:
            if number is None or not is_ours(number):
                return None
            kinds = self._descriptors.kinds(call.pid, fd)
            meaning = "a request that is not known here"
            return Named(self.lines, call.pid, fd, _sorted(kinds), (uapi.ioctl_name(number),), number, meaning, arg)
        kinds = self._descriptors.use(call.pid, fd, {kind for row in rows for kind in row.kinds})
        fitting = [row for row in rows if kinds & set(row.kinds)]
        # POWER's IOMMU shares a number with type1's: the machine that the headers of include/ are of comes first.
        fitting = [row for row in fitting if row.struct is not None] or fitting
        names = tuple(dict.fromkeys(row.name for row in fitting))
        meaning = "; or ".join(dict.fromkeys(row.meaning for row in fitting))
        return Named(self.lines, call.pid, fd, _sorted(kinds), names, number, meaning, arg)


def _request(text: str) -> tuple[int | None, tuple[Request, ...]]:
    """The request's number, if the log has it, and what it can be.

    A number, a number with a remark (-X verbose), a name, several names with "or", or _IOC(...) of what strace does
    not know.
    """
    if match := _NUMBER.match(text):
        value = number(match[0])
        return (None, ()) if value is None else (value & 0xFFFFFFFF, by_number(value & 0xFFFFFFFF))
    if match := _IOC.match(text):
        way = sum(_WAYS.get(part, 0) for part in match["way"].split("|"))
        parts = [number(match[name]) for name in ("size", "type", "nr")]
        if None in parts:
            return None, ()
        size, type_, nr = (part or 0 for part in parts)
        value = (way << 30 | size << 16 | type_ << 8 | nr) & 0xFFFFFFFF
        return value, by_number(value)
    rows = tuple(row for name in _NAME.findall(text) for row in by_name(name))
    numbers = {row.number for row in rows}
    return (numbers.pop() if len(numbers) == 1 else None), rows


def _annotated(line: str, call: Call, named: Named) -> str:
    """The line with the names beside the numbers, as strace -X verbose has them."""
    (begin, end), word = call.spans[1], call.args[1]
    names = " or ".join(named.names)
    if _NUMBER.match(word):
        word = f"{word.split()[0]} /* {names} */"
    elif not word.startswith("_IOC"):
        word = names
    else:
        word = f"{word} /* {names} */"
    passed = number(call.args[2]) if len(call.args) > 2 and len(named.names) == 1 else None
    if passed is not None:
        value = argument(named.names[0], passed)
        if isinstance(value, str) and _NAME.fullmatch(value):
            at = call.spans[2][1]
            line = f"{line[:at]} /* {value} */{line[at:]}"
    return line[:begin] + word + line[end:]


def _remarked(line: str, text: str, named: Named, *, short: bool = False) -> str:
    ending = text[len(text.rstrip("\r\n")) :]
    file = " or ".join(named.kinds) or "?"
    remark = f"{file}: {' or '.join(named.names)}" if short else f"{file}: {named.meaning}"
    return f"{line}  # {remark}{ending}"


def _sorted(kinds: frozenset[str]) -> tuple[str, ...]:
    return tuple(kind for kind in uapi.KINDS if kind in kinds)
