"""A sequence of calls as people read it: names, decoded fields, what each answered, and where two kernels differ."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.commands import ioctl_row
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup
from kvmvfio_emu.kernel.kvm.vcpuattr import VcpuAttributes
from kvmvfio_emu.kernel.kvm.vmfile import VmFile
from kvmvfio_emu.strategies import Setting
from kvmvfio_emu.testing.fuzz.compare import Difference, name_of
from kvmvfio_emu.testing.player import ARENA, ARENA_SIZE, NOWHERE, Call, Outcome
from kvmvfio_emu.testing.targets import Played
from kvmvfio_emu.view import names, structs
from kvmvfio_emu.view.decode import Decoder

#: Numbers that stand for descriptors in memory.
_FIRST_FD = 1_000_000


class _Memory:
    """The arena as a call sets it up, with numbers for its descriptors."""

    def __init__(self, call: Call, files: dict[str, list[str]]) -> None:
        self._bytes = bytearray(ARENA_SIZE)
        self._what: dict[int, str] = {}
        for offset, data in call.get("memory", []):
            self._bytes[offset : offset + len(data) // 2] = bytes.fromhex(data)
        for number, (offset, kind, place) in enumerate(call.get("fds", []), _FIRST_FD):
            fd = NOWHERE.get(kind, number)
            if fd == number:
                self._what[number] = _file(files, kind, place)
            self._bytes[offset : offset + 4] = fd.to_bytes(4, "little", signed=True)

    def read(self, pointer: Any, size: int) -> bytes | None:
        start = int(pointer) - ARENA
        return bytes(self._bytes[start : start + size]) if 0 <= start <= ARENA_SIZE - size else None

    def describe(self, fd: int) -> str | None:
        return self._what.get(fd)

    def change(self, words: Sequence[Sequence[Any]]) -> None:
        for offset, data in words:
            self._bytes[offset : offset + 4] = bytes.fromhex(data)


def _file(files: dict[str, list[str]], kind: str, place: int) -> str:
    """The file that a call means, as the player finds it."""
    if kind in NOWHERE:
        return f"fd {NOWHERE[kind]}"
    there = files.get(kind)
    return there[place % len(there)] if there else f"no {kind}"


class Script:
    """Renders sequences for one kernel (its profile says what attributes mean)."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._files: dict[str, list[str]] = {}
        self._made: dict[str, int] = {}

    def lines(self, calls: Sequence[Call], played: Played) -> Iterator[str]:
        """One for each call, with its answer; then the counts of the eventfds that are no trivial ones."""
        self._files, self._made = {}, {}
        for call, outcome in zip(calls, played.outcomes, strict=False):
            shown = self._call(call)
            yield f"{shown} = {self.answer(call, outcome)}"

    def report(self, calls: Sequence[Call], found: Difference, played: dict[str, Played], why: Played) -> str:
        """All of a difference as text. ``why``: the same on our own kernel, for the reasons."""
        first = next(iter(played.values()))
        lines = list(self.lines(calls[: found.place], first))
        call = calls[found.place] if found.place < len(calls) else None
        shown = "what an eventfd counts at the end" if call is None else self._call(call)
        text = [f"  {number:3}  {line}" for number, line in enumerate([*lines, shown], 1)]
        files = {kind: list(there) for kind, there in self._files.items()}
        for name, answer in zip(played, (found.left, found.right), strict=True):
            self._files = {kind: list(there) for kind, there in files.items()}
            text.append(f"       {name + ':':6} {self.answer(call, answer)}")
        reason = why.reasons.get(found.place)
        return "\n".join([*text, f"       why emu says so: {reason}"] if reason else text)

    # -- calls ----------------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> str:
        what = call["do"]
        if what == "open":
            return f'open("{call["path"]}")'
        if what == "eventfd":
            return f"eventfd({call['count']})"
        if what in ("signal", "count"):
            return f"{'write' if what == 'signal' else 'read'}({_file(self._files, 'eventfd', call['place'])})"
        if what in ("dup", "close"):
            shown = f"{what}({_file(self._files, call['kind'], call['place'])})"
            there = self._files.get(call["kind"])
            if what == "close" and there:
                there.pop(call["place"] % len(there))
            return shown
        kind, place = call["on"]
        return f"{name_of(call)}({_file(self._files, kind, place)}, {self._argument(call)})"

    def _argument(self, call: Call) -> str:
        value = call.get("argument")
        if value is not None:
            return str(names.argument(name_of(call), value))
        memory = _Memory(call, self._files)
        found = self._decoded(call, memory, after=False)
        return "the arena" if found is None else _plain(found)

    def _decoded(self, call: Call, memory: _Memory, *, after: bool) -> dict[str, Any] | None:
        row = ioctl_row(call["on"][0], call["number"]) or _any_row(call["number"])
        if row is None:
            return None
        decoder = Decoder(
            memory.read,
            memory.describe,
            attributes=self._attributes(call),
            forward_struct=self._setting.profile.forward_struct,
        )
        return decoder.argument(row, ARENA, after=after)

    def _attributes(self, call: Call) -> Sequence[AttrGroup]:
        kind, place = call["on"]
        if kind == "vcpu":
            return VcpuAttributes.groups if self._setting.profile.is_arm else ()
        if kind == "vm":
            return VmFile.attributes
        types = self._setting.types
        if kind != "device" or not types:
            return ()
        return self._setting.rows(types[place % len(types)])

    # -- answers --------------------------------------------------------------------------------------------------

    def answer(self, call: Call | None, outcome: Outcome | None) -> str:
        """An answer in words: result or errno, and what was written."""
        if outcome is None:
            return "nothing"
        result, error, *more = outcome
        if not isinstance(error, str) or (error != "0" and not hasattr(errno, error)):
            return "no such eventfd" if error == "none" else f"{result}: {error}"
        if error != "0":
            text = f"-1 {error} ({os.strerror(getattr(errno, error))})"
        elif result == "new":
            text = self._new(call)
        else:
            text = str(result or 0)  # a close has none
        if call is not None and error == "0" and call.get("fd_at") is not None:
            text = f"{result}, fd = {self._new(call)}"
        words = more[0] if more else []
        return text + self._written(call, words) if words and call is not None else text

    def _new(self, call: Call | None) -> str:
        assert call is not None
        kind = "eventfd" if call["do"] == "eventfd" else str(call.get("gives") or call.get("kind"))
        number = self._made.get(kind, 0)
        self._made[kind] = number + 1
        self._files.setdefault(kind, []).append(f"{kind} {number}")
        return f"{kind} {number}"

    def _written(self, call: Call, words: Sequence[Sequence[Any]]) -> str:
        """The fields that the kernel changed, or the words, where no struct says what they are."""
        before, after = _Memory(call, self._files), _Memory(call, self._files)
        after.change(words)
        old, new = (self._decoded(call, memory, after=True) or {} for memory in (before, after))
        changed = {key: value for key, value in new.items() if old.get(key) != value and key != "fd"}
        rest = [[hex(ARENA + offset), data] for offset, data in words]
        if changed:
            return f", wrote {_plain(changed)}"
        if call.get("fd_at") is not None and len(words) == 1:
            return ""
        shown = ", ".join(f"{where}: {data}" for where, data in rest[:4])
        return f", wrote {shown}{f' and {len(rest) - 4} words more' if len(rest) > 4 else ''}"


def _any_row(number: int) -> uapi.Ioctl | None:
    return next((row for (_, other), row in uapi.IOCTLS.items() if other == number), None)


def _plain(found: Any) -> str:
    if isinstance(found, dict):
        if set(found) == {"fd", "is"}:
            return f"<{found['is']}>"
        return "{" + ", ".join(f"{key}={_plain(value)}" for key, value in found.items()) + "}"
    if isinstance(found, list):
        shown = [_plain(value) for value in found[: structs.SHOWN]]
        while len(shown) > 1 and shown[-1] == shown[-2]:
            shown.pop()
        return "[" + ", ".join(shown) + ("..." if len(shown) < len(found) else "") + "]"
    return str(found)
