"""Lines of strace, as any of its versions and options writes them: one system call taken apart.

What is needed to follow ioctls and descriptors, and not more: arguments stay text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# A process id as -f writes it to a file or to a terminal (with -Y: its name), then times (-t, -tt, -ttt, -r), the
# system call's number (-n) and the instruction pointer (-i).
_PREFIX = re.compile(
    r"(?:\[pid +(?P<pid>\d{1,10})(?:<[^>]*>)?\] +|(?P<first>\d{1,10})(?:<[^>]*>)? +)?"
    r"(?: *(?:\d\d:\d\d:\d\d(?:\.\d+)?|\d+\.\d+|\(\+ *\d+\.\d+\)|\[ *[0-9a-f?]+\]) +)*"
)
_CALL = re.compile(r"(?P<name>[a-z_][a-z0-9_]*)\(")
_RESUMED = re.compile(r"<\.\.\. (?P<name>[a-z_][a-z0-9_]*) resumed>")
_EXIT = re.compile(r"\+\+\+ (?:exited|killed)")
_UNFINISHED = re.compile(r" *<unfinished \.\.\.>\s*$")
_RESULT = re.compile(
    r"\s*= (?P<value>-?(?:0x[0-9a-f]+|\d+)|\?)(?:<(?P<path>[^>]*)>)?(?: (?P<errno>E[A-Z0-9]+) \()?(?P<rest>.*)"
)
_FD = re.compile(r"(?P<fd>-?\d+|0x[0-9a-f]+)(?:<(?P<path>[^>]*)(?:>|$))?")
_NUMBER = re.compile(r"-?(?:0x[0-9a-f]{1,16}|[0-9]{1,20})")
_OPENING, _CLOSING = "([{", ")]}"


class Call(NamedTuple):
    """A system call, or the part of it that a line has. Positions are in the line."""

    pid: int  #: 0 when the line does not say
    name: str
    args: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]  #: where each argument stands
    finished: bool  #: the result is here
    resumed: bool  #: the beginning is in an earlier line
    result: int | None
    result_path: str | None
    errno: str | None


class Ended(NamedTuple):
    """A process ends."""

    pid: int


class Malformed(NamedTuple):
    """A line that begins like a system call and does not go on like one."""

    pid: int
    name: str
    why: str


def parse(line: str) -> Call | Ended | Malformed | None:
    """Take a line apart; None when it is not of a system call."""
    prefix = _PREFIX.match(line)
    assert prefix is not None  # it can be empty
    pid, at = int(prefix["pid"] or prefix["first"] or 0), prefix.end()
    if match := _CALL.match(line, at):
        args, end = _arguments(line, match.end())
        if end is None:
            if args is None:
                return Malformed(pid, match["name"], "it ends in the middle")
            return Call(pid, match["name"], *args, False, False, None, None, None)
        assert args is not None
        return _finished(pid, match["name"], args, line, end, resumed=False)
    if match := _RESUMED.match(line, at):
        args, end = _arguments(line, match.end())
        if end is None or args is None:
            return Malformed(pid, match["name"], "it ends in the middle")
        return _finished(pid, match["name"], args, line, end, resumed=True)
    return Ended(pid) if _EXIT.match(line, at) else None


_Arguments = tuple[tuple[str, ...], tuple[tuple[int, int], ...]]


def _finished(pid: int, name: str, args: _Arguments, line: str, end: int, *, resumed: bool) -> Call | Malformed:
    match = _RESULT.match(line, end)
    if match is None:
        return Malformed(pid, name, "it has no result")
    result = number(match["value"])
    if result is None and match["value"] != "?":
        return Malformed(pid, name, "its result is no number of 64 bits")
    return Call(pid, name, *args, True, resumed, result, match["path"], match["errno"])


def _arguments(line: str, start: int) -> tuple[_Arguments | None, int | None]:
    """The arguments from ``start`` on and where their bracket closes; no end when the call is unfinished."""
    depth, at, begin = 0, start, start
    spans: list[tuple[int, int]] = []
    unfinished = _UNFINISHED.search(line, start)
    limit = unfinished.start() if unfinished else len(line)
    while at < limit:
        char = line[at]
        if char == '"':
            at = _end_of_string(line, at)
        elif line.startswith("/*", at):
            at = max(line.find("*/", at) + 1, at)
        elif char == "<" and at > begin and line[at - 1].isalnum():
            closing = line.find(">", at)  # a descriptor's path, in which strace escapes this character
            at = closing if closing >= 0 else at
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING and depth:
            depth -= 1
        elif char == ")":
            spans.append((begin, at))
            return _words(line, spans), at + 1
        elif char == "," and not depth:
            spans.append((begin, at))
            begin = at + 1
        at += 1
    if unfinished is None:
        return None, None
    spans.append((begin, limit))
    return _words(line, spans), None


def _words(line: str, spans: list[tuple[int, int]]) -> _Arguments:
    trimmed = []
    for begin, end in spans:
        text = line[begin:end]
        begin += len(text) - len(text.lstrip())
        trimmed.append((begin, begin + len(text.strip())))
    kept = [(begin, end) for begin, end in trimmed if begin < end]
    return tuple(line[begin:end] for begin, end in kept), tuple(kept)


def _end_of_string(line: str, at: int) -> int:
    """The closing quote of the string that begins at ``at``, or the end of the line."""
    at += 1
    while at < len(line) and line[at] != '"':
        at += 2 if line[at] == "\\" else 1
    return at


def number(text: str) -> int | None:
    """A number as C writes it, octal ones too; None for what is none, or has more digits than 64 bits have."""
    if not _NUMBER.fullmatch(text):
        return None
    digits = text.lstrip("-")
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") and digits.isdecimal() else 10
    try:
        return int(text, base)
    except ValueError:  # 08
        return None


def descriptor(text: str) -> tuple[int, str | None] | None:
    """``5</dev/kvm>`` -> 5 and the path; None for what is no descriptor."""
    match = _FD.match(text)
    if match is None:
        return None
    fd = number(match["fd"])
    if fd is None:
        return None
    return (fd - (1 << 32) if fd >= 1 << 31 else fd), match["path"]
