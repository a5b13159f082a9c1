"""One thing in which kernels differ, declared with its meaning: a field of a profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from kvmvfio_emu.profiles import Profile

_T = TypeVar("_T")


class Difference(NamedTuple):
    """What a field of a profile says: ``what`` its value means, ``since`` which kernel it is as it is in new ones."""

    name: str
    what: str
    since: str


def differs(default: _T, what: str, *, since: str = "") -> _T:
    """Declare the field. ``default`` is what the oldest kernel does; ``since``: when it changed, if that is known."""
    declared: _T = field(default=default, metadata={"what": what, "since": since})
    return declared


def differences(profile: type[Profile]) -> Iterator[Difference]:
    """All of them, in the order of their declaration."""
    for declared in fields(profile):
        meaning: Any = declared.metadata
        if "what" in meaning:
            yield Difference(declared.name, meaning["what"], meaning["since"])
