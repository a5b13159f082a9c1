"""Files that hold one sequence, to be played again: a head, then a call a line, as JSON; lines with # for people."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.testing.player import ARENA_SIZE, Call, Player
from kvmvfio_emu.testing.targets import dangerous
from kvmvfio_emu.view.requests import is_ours

_DOES = ("open", "eventfd", "signal", "count", "dup", "close", "ioctl")
_NODES = ("/dev/kvm", "/dev/vfio/", "/dev/iommu")


@dataclass(frozen=True)
class Head:
    """What a sequence was played on."""

    targets: tuple[str, ...]
    profile: str
    machine: str | None = None
    gic: int | None = None


def write(path: Path, head: Head, calls: Sequence[Call], text: str) -> None:
    """Write a file that `read` takes; ``text`` goes before it as comments. KvmVfioEmuError."""
    lines = [f"# {line}".rstrip() for line in text.splitlines()]
    lines += [json.dumps(asdict(head)), *(json.dumps(call) for call in calls)]
    try:
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise KvmVfioEmuError(f"{path}: {error.strerror}") from error


def read(path: Path) -> tuple[Head, list[Call]]:
    """KvmVfioEmuError, with the line, for what is no such file, or has a call that must not be made."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KvmVfioEmuError(f"{path}: {error}") from error
    head: Head | None = None
    calls: list[Call] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise ValueError("not an object")
            if head is None:
                head = _head(data)
            else:
                check(data)
                calls.append(data)
        except (ValueError, TypeError) as error:
            raise KvmVfioEmuError(f"{path}:{number}: {error}") from error
    if head is None:
        raise KvmVfioEmuError(f"{path}: it is empty")
    return head, calls


def _head(data: dict[str, Any]) -> Head:
    targets = data.get("targets")
    if not isinstance(targets, list) or not all(isinstance(one, str) for one in targets):
        raise ValueError('the first line names "targets" and "profile"')
    if not isinstance(data.get("profile"), str):
        raise ValueError('the first line names a "profile"')
    return Head(**{**data, "targets": tuple(targets)})


def check(call: dict[str, Any]) -> None:
    """ValueError or TypeError unless the player can play that call, and it is no dangerous one."""
    does, arguments = call.get("do"), {key: value for key, value in call.items() if key != "do"}
    if does not in _DOES:
        raise ValueError(f'"do" is one of {", ".join(_DOES)}, not {does!r}')
    inspect.signature(getattr(Player, f"_{does}")).bind(None, **arguments)
    for key, value in arguments.items():
        if not _FORMS[key](value):
            raise ValueError(f"{does}: {key} cannot be {value!r}")
    if (why := dangerous(call)) is not None:
        raise ValueError(why)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_place(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_file(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_place(value[1])


def _is_memory(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list)
        and len(one) == 2
        and isinstance(one[1], str)
        and _is_place(one[0])
        and one[0] + len(bytes.fromhex(one[1])) <= ARENA_SIZE
        for one in value
    )


def _is_fds(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 3 and _is_place(one[0]) and one[0] <= ARENA_SIZE - 4 and _is_file(one[1:])
        for one in value
    )


_FORMS: dict[str, Callable[[Any], bool]] = {
    "path": lambda value: isinstance(value, str) and value.startswith(_NODES) and ".." not in value,
    "kind": lambda value: isinstance(value, str),
    "count": lambda value: _is_place(value) and value < 1 << 32,
    "place": _is_place,
    "on": _is_file,
    "number": lambda value: _is_number(value) and is_ours(value),
    "argument": lambda value: value is None or (_is_number(value) and 0 <= value < 1 << 64),
    "memory": _is_memory,
    "fds": _is_fds,
    "gives": lambda value: value is None or isinstance(value, str),
    "fd_at": lambda value: value is None or (_is_place(value) and value <= ARENA_SIZE - 4),
}
