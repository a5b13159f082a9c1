"""Structs of fixed size as plain data: every field of a C struct by name, by cffi's layout of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.view import names

#: Elements of an array that are shown; more are counted.
SHOWN = 64


def fields(ctype: str, data: bytes | bytearray, descriptor: Callable[[int], Any] = int) -> dict[str, Any]:
    """The fields of ``ctype`` (``struct kvm_irqfd``) in ``data``; bytes that are missing at its end count as zero.

    ``descriptor`` says what stands for a descriptor. Padding, and what means nothing by ``flags``, is left out.
    """
    size = uapi.sizeof(ctype)
    value = uapi.view(ctype, bytes(data[:size]).ljust(size, b"\0"))
    return _struct(value, ctype.removeprefix("struct "), uapi.ffi.typeof(ctype), descriptor)


def _struct(value: Any, name: str, ctype: Any, descriptor: Callable[[int], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, kind in _members(ctype):
        place = f"{name}.{field}"
        needed = names.ONLY_WITH.get(place)
        if needed is None or value.flags & needed:
            found[field] = _field(getattr(value, field), place, kind, descriptor)
    return found


@cache
def _members(ctype: Any) -> tuple[tuple[str, Any], ...]:
    """(name, type) of what can be shown, with the members of anonymous parts."""
    return tuple(_walk(ctype))


def _walk(ctype: Any) -> Iterator[tuple[str, Any]]:
    for name, field in ctype.fields or ():
        if not name:
            yield from _walk(field.type)
        elif not name.strip("_").startswith(names.PADDING) and getattr(field.type, "length", 0) is not None:
            yield name, field.type  # but for an array whose length is somewhere else


def _field(value: Any, place: str, ctype: Any, descriptor: Callable[[int], Any]) -> Any:
    if ctype.kind in ("struct", "union"):
        return _struct(value, ctype.cname.removeprefix("struct "), ctype, descriptor)
    if ctype.kind == "pointer":
        return hex(int(uapi.ffi.cast("uintptr_t", value)))
    if ctype.kind == "array":
        return _array(value, place, ctype)
    if isinstance(value, bytes):
        return int.from_bytes(value, "little")  # a char
    if place in names.DESCRIPTORS:
        return descriptor(signed(value))
    return names.scalar(place, int(value))


def _array(value: Any, place: str, ctype: Any) -> Any:
    if ctype.item.cname in ("unsigned char", "uint8_t", "char"):
        return bytes(uapi.ffi.buffer(value)).hex()
    if ctype.item.kind != "primitive":
        return f"{ctype.length} elements"
    shown = [names.scalar(place, int(element)) for element in value]
    while shown and not shown[-1]:  # the kernel's arrays are filled from the front
        shown.pop()
    return shown[:SHOWN]


def signed(value: int) -> int:
    """A descriptor as the C int that it is, also where the struct has it unsigned."""
    return value - (1 << 32) if 0x7FFFFFFF < value < 1 << 32 else value
