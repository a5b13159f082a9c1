"""`kvmvfio-emu decode`: names for ioctl numbers, fields for bytes, and both for a log of strace."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_MOST_COMPLAINTS = 10


def add(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "decode",
        help="name ioctl numbers, show the fields of bytes, annotate a log of strace",
        usage="%(prog)s [--json] [--kind KIND] NUMBER|NAME [HEX ...]\n"
        "       kvmvfio-emu decode [--json] --struct TYPE [HEX ...]\n"
        "       kvmvfio-emu decode [--json] [FILE]",
        description="Without an argument, or with a FILE: a log of `strace -f -e ioctl` (best with `-X raw`), in which "
        "each call to KVM, VFIO or iommufd gets its name and its meaning; all other lines stay as they are. With a "
        "NUMBER or a NAME: what the request is for, who takes it, and its argument; with HEX, the fields of the "
        "argument. HEX is hexadecimal digits, a dump of xxd or hexdump, or a C string; - reads it from the input.",
    )
    parser.add_argument("words", nargs="*", metavar="WHAT", help="NUMBER, NAME or FILE; then HEX")
    parser.add_argument("--struct", metavar="TYPE", help='decode HEX as this C type, as "struct kvm_irqfd"')
    parser.add_argument("--kind", choices=uapi.KINDS, help="the kind of file, for a number that several take")
    parser.add_argument("--json", action="store_true", help="print JSON; of a log, one object for each call")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Decode what was asked for."""
    words: list[str] = arguments.words
    if arguments.struct is not None:
        return _struct(arguments, words)
    if not words or words == ["-"]:
        if sys.stdin.isatty():
            arguments.parser.error("nothing to decode: a log on the input, or a number, a name, a file")
        return _log(sys.stdin.buffer, "<stdin>", arguments.json)
    if _is_log(words):
        try:
            with open(words[0], "rb") as log:
                return _log(log, words[0], arguments.json)
        except BrokenPipeError:  # of our output
            raise
        except OSError as error:
            raise KvmVfioEmuError(f"{words[0]}: {error.strerror}") from None
    return _request(arguments, words)


def _is_log(words: list[str]) -> bool:
    from kvmvfio_emu.view.describe import is_number
    from kvmvfio_emu.view.requests import by_name

    if len(words) > 1 or is_number(words[0]) or by_name(words[0].upper()):
        return False
    return os.path.exists(words[0]) or "/" in words[0]


# ---- one request, one struct -----------------------------------------------------------------------------------------


def _request(arguments: argparse.Namespace, words: list[str]) -> int:
    from kvmvfio_emu.view import describe

    rows = describe.request(words[0], arguments.kind)
    found = []
    for row in rows:
        described = describe.describe(row)
        if len(words) > 1:
            described["value"] = describe.argument(row, _bytes(words[1:]))
            described.pop("layout", None)
        found.append(described)
    if arguments.json:
        print(json.dumps(found if len(found) > 1 else found[0]))
        return 0
    for number, described in enumerate(found):
        if number:
            print()
        print(f"{described['request']}  {described['number']}  {described['parts']}")
        print(f"  on {' or '.join(described['files'])}: {described['meaning']}")
        if "struct" in described:
            ways = {"in": "read", "out": "written", "inout": "read and written", "none": "not looked at"}
            print(f"  argument: {described['struct']}, {described['size']} bytes, {ways[described['direction']]}")
        elif "size" in described:
            print(f"  argument: {described['size']} bytes, of another machine's headers")
        _print_fields(described)
    return 0


def _struct(arguments: argparse.Namespace, words: list[str]) -> int:
    from kvmvfio_emu.view import describe

    ctype = describe.struct_type(arguments.struct)
    described: dict[str, Any] = {"struct": ctype, "size": uapi.sizeof(ctype)}
    if words:
        described["value"] = describe.struct(ctype, _bytes(words))
    else:
        described["layout"] = describe.layout(ctype)
    if arguments.json:
        print(json.dumps(described))
        return 0
    print(f"{ctype}, {described['size']} bytes")
    _print_fields(described)
    return 0


def _print_fields(described: dict[str, Any]) -> None:
    for field in described.get("layout", ()):
        print(f"  {field['offset']:>5}  {field['type']:<24} {field['name']}")
    for name, value in described.get("value", {}).items():
        print(f"  {name} = {value if isinstance(value, (int, str)) else json.dumps(value)}")


def _bytes(words: list[str]) -> bytes:
    from kvmvfio_emu.view.hexdump import parse

    return parse(sys.stdin.read() if words == ["-"] else " ".join(words))


# ---- a log -----------------------------------------------------------------------------------------------------------


def _log(log: Any, place: str, as_json: bool) -> int:
    from kvmvfio_emu.view.decode_log import LogDecoder

    complaints = _Complaints()
    decoder = LogDecoder(place, complaints)
    out = sys.stdout.buffer
    try:
        for text, named in decoder.decode(log):
            if not as_json:
                out.write(text.encode("utf-8", "surrogateescape"))
                if named is not None:
                    out.flush()  # somebody may be watching the program run
            elif named is not None:
                out.write(json.dumps(named.as_json()).encode() + b"\n")
                out.flush()
    finally:
        out.flush()
        complaints.close(_summary(decoder.ioctls, decoder.named))
    return 0


def _summary(ioctls: int, named: int) -> Iterable[str]:
    if ioctls and not named:
        yield f"{ioctls} ioctls, none of them of KVM, VFIO or iommufd"


class _Complaints:
    """Lines that were not understood: the first are shown, the others counted."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, text: str) -> None:
        self._count += 1
        if self._count <= _MOST_COMPLAINTS:
            print(f"kvmvfio-emu: {text}", file=sys.stderr)

    def close(self, more: Iterable[str]) -> None:
        if self._count > _MOST_COMPLAINTS:
            print(f"kvmvfio-emu: {self._count - _MOST_COMPLAINTS} more lines not understood", file=sys.stderr)
        for text in more:
            print(f"kvmvfio-emu: {text}", file=sys.stderr)
