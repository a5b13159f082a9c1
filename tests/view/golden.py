"""Text traces without what differs from run to run: thread, descriptors, eventfd numbers, addresses."""

from __future__ import annotations

import re
from collections.abc import Callable

_DESCRIPTOR = re.compile(r"\b(\d+)(?=<[a-z])|(?<=\()(\d+)(?=\) (?:ioctl|mmap|p?read|p?write))")
_EVENTFD = re.compile(r"(?<=<eventfd:)\d+")


def _numbered() -> Callable[[re.Match[str]], str]:
    """Numbers in the order in which they first come."""
    seen: dict[str, int] = {}
    return lambda match: str(seen.setdefault(match[0], len(seen) + 1))


def normal(text: str) -> str:
    """The same for every run of the same program."""
    text = re.sub(r"^\[\d+\]", "[TID]", text, flags=re.MULTILINE)
    text = re.sub(r"0x[0-9a-f]{9,16}\b", "PTR", text)
    return _EVENTFD.sub(_numbered(), _DESCRIPTOR.sub(_numbered(), text))
