"""One request, one struct, or the bytes of one: what `kvmvfio-emu decode` says of them, as plain data."""

from __future__ import annotations

from functools import cache
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view import structs
from kvmvfio_emu.view.decode import Decoder
from kvmvfio_emu.view.requests import Request, by_name, by_number, close_to, is_ours, names

#: Where the bytes lie for the decoder: no pointer inside them leads here.
_PLACE = 1 << 63
_SIZED = ("argsz", "size")  #: fields that say how much the caller has


class UnknownError(KvmVfioEmuError):
    """A name, a number or bytes that mean nothing; the message says what was perhaps meant."""


# ---- requests ----------------------------------------------------------------------------------------------------


def request(word: str, kind: str | None = None) -> list[Request]:
    """The requests that a name or a number (0x..., decimal) can be, on files of ``kind`` if that is given."""
    number = _number(word)
    if number is None:
        rows = by_name(word.upper())
        if not rows:
            raise UnknownError(f"no request is called {word!r}{_perhaps(word, names())}")
    else:
        number &= 0xFFFFFFFF  # a C int, perhaps shown as a negative one
        rows = by_number(number)
        if not rows:
            whose = "known here" if is_ours(number) else "of KVM, VFIO or iommufd"
            raise UnknownError(f"{number:#x} is {uapi.ioctl_name(number)}, no request {whose}")
    fitting = [row for row in rows if kind is None or kind in row.kinds]
    if not fitting:
        takers = ", ".join(dict.fromkeys(kind for row in rows for kind in row.kinds))
        raise UnknownError(f"a {kind} file does not take {word}; these do: {takers}")
    return fitting


def is_number(word: str) -> bool:
    """Whether ``word`` is one, as C writes them."""
    return _number(word) is not None


def _number(word: str) -> int | None:
    try:
        return int(word, 0)
    except ValueError:
        return None


def describe(row: Request) -> dict[str, Any]:
    """A request as plain data."""
    found: dict[str, Any] = {
        "request": row.name,
        "number": f"{row.number:#x}",
        "parts": _parts(row.number),
        "files": list(row.kinds),
        "meaning": row.meaning,
    }
    declared = _declared(row)
    if declared is not None and declared.struct is not None:
        found["struct"] = declared.struct
        found["size"] = declared.size
        found["direction"] = declared.direction
        found["layout"] = layout(declared.struct)
    elif row.number >> 30:
        found["size"] = row.number >> 16 & 0x3FFF
    return found


def _parts(number: int) -> str:
    way, size = ("_IO", "_IOW", "_IOR", "_IOWR")[number >> 30], number >> 16 & 0x3FFF
    return f"{way}({number >> 8 & 0xFF:#04x}, {number & 0xFF:#04x}" + (f", {size})" if number >> 30 else ")")


def _declared(row: Request) -> uapi.Ioctl | None:
    return next((one for one in uapi.IOCTLS.values() if (one.name, one.number) == (row.name, row.number)), None)


# ---- structs -----------------------------------------------------------------------------------------------------


@cache
def struct_names() -> tuple[str, ...]:
    """Every struct of the headers."""
    return tuple(name for name in uapi.ffi.list_types()[1] if not name.startswith(("_", "$")))


def struct_type(word: str) -> str:
    """``kvm_irqfd`` or ``struct kvm_irqfd`` -> the C type."""
    name = word.strip().removeprefix("struct ").strip()
    if name not in struct_names():
        raise UnknownError(f"no struct is called {name!r}{_perhaps(name, struct_names(), upper=False)}")
    return f"struct {name}"


def layout(ctype: str) -> list[dict[str, Any]]:
    """The fields of a C type with their offset, type and size in bytes."""
    found: list[dict[str, Any]] = []

    def walk(kind: Any, base: int) -> None:
        for name, field in kind.fields or ():
            if not name and field.type.kind in ("struct", "union"):
                walk(field.type, base + field.offset)
            else:
                open_end = field.type.kind == "array" and field.type.length is None
                size = 0 if open_end else uapi.ffi.sizeof(field.type)
                found.append({"name": name, "offset": base + field.offset, "type": field.type.cname, "size": size})

    walk(uapi.ffi.typeof(ctype), 0)
    return found


# ---- bytes -------------------------------------------------------------------------------------------------------


def argument(row: Request, data: bytes) -> dict[str, Any]:
    """The argument of a request in ``data``: by its fields, and what follows the struct."""
    declared = _declared(row)
    if declared is None or declared.struct is None:
        raise UnknownError(f"{row.name} has no argument of bytes here")
    if declared.struct == "char":
        return {"name": data.partition(b"\0")[0].decode("utf-8", "backslashreplace")}
    variable = _check_size(declared.struct, data, row.name)
    found = Decoder(lambda pointer, size: _slice(data, pointer, size)).argument(declared, _PLACE, after=True)
    if found is None:
        found = structs.fields(declared.struct, data)
    return found if variable is None or variable in found else found | _elements(declared.struct, data)


def struct(ctype: str, data: bytes) -> dict[str, Any]:
    """The fields of a struct in ``data``."""
    for row in uapi.IOCTLS.values():
        if row.struct == ctype:
            return argument(Request(row.name, row.number, (), "", ctype), data)
    _check_size(ctype, data, ctype)
    return structs.fields(ctype, data) | _elements(ctype, data)


def _slice(data: bytes, pointer: Any, size: int) -> bytes | None:
    at = int(pointer) - _PLACE
    return data[at : at + size] if at >= 0 and at + size <= len(data) else None


def _check_size(ctype: str, data: bytes, what: str) -> str | None:
    """Whether ``data`` can be a ``ctype``. Returns the name of the array that it ends in, if it does."""
    size, fields = uapi.sizeof(ctype), uapi.ffi.typeof(ctype).fields or []
    last = fields[-1] if fields else ("", None)
    open_end = last[1] is not None and last[1].type.kind == "array" and last[1].type.length is None
    grows = bool(fields) and fields[0][0] in _SIZED
    said = int.from_bytes(data[:4], "little") if grows and len(data) >= 4 else 0
    if len(data) < size and not (grows and 8 <= said == len(data)):
        raise UnknownError(f"{what} takes {ctype}, {size} bytes; here are {len(data)}")
    if grows and said > len(data):
        raise UnknownError(f"{what}: its {fields[0][0]} says {said} bytes; here are {len(data)}")
    if len(data) > size and not open_end and not grows:
        raise UnknownError(f"{what} takes {ctype}, {size} bytes; here are {len(data) - size} more")
    return str(last[0]) if open_end else None


def _elements(ctype: str, data: bytes) -> dict[str, Any]:
    """The array that a struct ends in, as far as ``data`` goes."""
    kind = uapi.ffi.typeof(ctype)
    name, field = (kind.fields or [("", None)])[-1]
    if field is None or field.type.kind != "array" or field.type.length is not None:
        return {}
    rest, item = data[field.offset :], field.type.item
    width = uapi.ffi.sizeof(item)
    count = min(len(rest) // width, structs.SHOWN)
    if item.kind != "primitive" or width == 1:
        return {name: rest.hex()} if rest else {}
    return {name: [int.from_bytes(rest[at * width : (at + 1) * width], "little") for at in range(count)]}


def _perhaps(word: str, words: tuple[str, ...], *, upper: bool = True) -> str:
    close = close_to(word, words) if upper else close_to(word, (one.upper() for one in words))
    if not upper:
        close = [one.lower() for one in close]
    return f"; perhaps {' or '.join(close)}?" if close else ""
