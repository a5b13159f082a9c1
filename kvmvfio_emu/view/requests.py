"""Every KVM, VFIO and iommufd request of Linux by number and name, also those that no file of ours answers.

For people who look at calls of any program on any kernel. What a request is for stands in requests.txt, numbers and
kinds of files in `uapi.IOCTLS`, and in requests.txt for those that the ARM headers lack.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from kvmvfio_emu import uapi

KVM_TYPE, VFIO_TYPE = 0xAE, 0x3B
_ROW = re.compile(r"(?P<name>[A-Z0-9_]+)(?: (?P<any>~?)(?P<number>0x[0-9a-f]+) (?P<kinds>[a-z -]+))?: (?P<meaning>.+)")
_SIZE_MASK = 0x3FFF << 16


class Request(NamedTuple):
    """One request: the kinds of files that take it, its C struct where the headers of include/ have it."""

    name: str
    number: int
    kinds: tuple[str, ...]
    meaning: str
    struct: str | None = None
    any_size: bool = False  #: another machine's number differs in the size


@cache
def requests() -> tuple[Request, ...]:
    """All of them. A name has several rows where its number differs between machines."""
    rows: list[Request] = []
    for line in files("kvmvfio_emu.view").joinpath("requests.txt").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        match = _ROW.fullmatch(line)
        assert match is not None, f"requests.txt: {line}"
        name, meaning = match["name"], match["meaning"]
        ours = [(kind, row) for (kind, _), row in uapi.IOCTLS.items() if row.name == name]
        for number in dict.fromkeys(row.number for _, row in ours):
            kinds = tuple(kind for kind, row in ours if row.number == number)
            struct = next(row.struct for _, row in ours if row.number == number)
            rows.append(Request(name, number, kinds, meaning, struct))
        if match["number"]:
            number = int(match["number"], 16)
            rows.append(Request(name, number, tuple(match["kinds"].split()), meaning, None, bool(match["any"])))
    return tuple(rows)


@cache
def _by_number() -> dict[int, tuple[Request, ...]]:
    found: dict[int, tuple[Request, ...]] = {}
    for row in requests():
        found[row.number] = (*found.get(row.number, ()), row)
    return found


@cache
def _by_open_number() -> dict[int, tuple[Request, ...]]:
    found: dict[int, tuple[Request, ...]] = {}
    for row in requests():
        if row.any_size:
            number = row.number & ~_SIZE_MASK
            found[number] = (*found.get(number, ()), row)
    return found


@cache
def by_name(name: str) -> tuple[Request, ...]:
    """The rows of a name; empty if there is none."""
    return tuple(row for row in requests() if row.name == name)


def by_number(number: int) -> tuple[Request, ...]:
    """What a number can be, which depends on the file and sometimes on the machine; empty for a stranger."""
    return _by_number().get(number) or _by_open_number().get(number & ~_SIZE_MASK, ())


def is_ours(number: int) -> bool:
    """Whether KVM, VFIO or iommufd own the number's type, even if nobody knows the number."""
    kind = number >> 8 & 0xFF
    return kind == KVM_TYPE or (kind == VFIO_TYPE and not number >> 16)


def close_to(word: str, words: Iterable[str]) -> list[str]:
    """What ``word`` might have been meant for."""
    return difflib.get_close_matches(word.upper(), list(words), n=3, cutoff=0.6)


@cache
def names() -> tuple[str, ...]:
    """Every name, once."""
    return tuple(dict.fromkeys(row.name for row in requests()))
