"""Bytes from what people paste: plain hexadecimal, xxd, hexdump with and without -C, words of a debugger, C strings."""

from __future__ import annotations

import re

from kvmvfio_emu.kernel.errors import KvmVfioEmuError

_XXD = re.compile(r"([0-9a-fA-F]{4,16}):")
_CANONICAL = re.compile(r"([0-9a-fA-F]{8,16})(?:  (?=[0-9a-fA-F]{2}\b)|$)")
_WORDS = re.compile(r"([0-9a-fA-F]{7,})(?: +(?=[0-9a-fA-F]{4}\b)| *$)")
_OFFSET_ONLY = re.compile(r"[0-9a-fA-F]+\s*")
_TOKEN = re.compile(r"[^\s,;:{}]+")
_ESCAPE = re.compile(r'\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|([abfnrtv\\"\']))|([^\\"])')
_ESCAPED = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39}
#: More than any argument of an ioctl has.
LIMIT = 1 << 20


class HexError(KvmVfioEmuError):
    """What was to be bytes is not; the message has the line and the column."""


def parse(text: str) -> bytes:
    """The bytes that ``text`` shows.

    A token that begins with 0x and has more than two digits is a number of its width, lowest byte first, as debuggers
    print memory; so is a word of a `hexdump` without -C. In all other forms a digit pair is a byte.
    """
    stripped = text.strip()
    if "\\" in stripped or stripped.startswith('"'):
        return _c_string(stripped)
    data = bytearray()
    repeat = False
    form = _form(text)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() == "*":  # the line before again, up to the next offset
            repeat = True
            continue
        offset, begin, end = _frame(line, form)
        if offset is not None and repeat:
            _fill(data, offset, number)
            repeat = False
        for match in _TOKEN.finditer(line[:end], begin):
            data += _token(match[0], form is _WORDS, number, match.start() + 1)
        if len(data) > LIMIT:
            raise HexError(f"line {number}: more than {LIMIT} bytes")
    if not data:
        raise HexError("no bytes")
    return bytes(data)


def _form(text: str) -> re.Pattern[str] | None:
    """What the first line begins with; None when that is bytes already. An offset alone is no beginning of a dump."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if _XXD.match(first):
        return _XXD
    if _OFFSET_ONLY.fullmatch(first):
        return None
    if _CANONICAL.match(first):
        return _CANONICAL
    match = _WORDS.match(first)
    return _WORDS if match and len(match[1]) == 7 else None


def _frame(line: str, form: re.Pattern[str] | None) -> tuple[int | None, int, int]:
    """The offset that a line begins with, and where its bytes are."""
    match = None if form is None else form.match(line)
    if match is None:
        return None, 0, len(line)
    end = -1
    if form is _XXD:
        end = line.find("  ", match.end() + 1)
    elif form is _CANONICAL:
        end = line.find("|")
    return int(match[1], 16), match.end(), end if end >= 0 else len(line)


def _fill(data: bytearray, offset: int, line: int) -> None:
    if not data or not len(data) <= offset <= LIMIT:
        raise HexError(f"line {line}: offset {offset:#x} after {len(data):#x} bytes")
    last = bytes(data[-16:])
    while len(data) < offset:
        data += last


def _token(token: str, words: bool, line: int, column: int) -> bytes:
    digits = token[2:] if token[:2] in ("0x", "0X") else token
    for at, char in enumerate(digits):
        if char not in "0123456789abcdefABCDEF":
            column += at + len(token) - len(digits)
            raise HexError(f"line {line}, column {column}: {char!r} is no hexadecimal digit")
    if digits is not token or words:
        number = bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))
        return number[::-1]
    if len(digits) % 2:
        raise HexError(f"line {line}, column {column}: {len(digits)} digits; a byte has two")
    return bytes.fromhex(digits)


def _c_string(text: str) -> bytes:
    """As strace and C write bytes: ``"\\3\\0\\x50"``."""
    inner = text.removesuffix("...")
    inner = inner[1:-1] if len(inner) > 1 and inner[0] == inner[-1] == '"' else inner
    data, at = bytearray(), 0
    while at < len(inner):
        match = _ESCAPE.match(inner, at)
        if match is None:
            raise HexError(f"column {at + 1}: {inner[at : at + 4]!r} is no escape of a C string")
        hexadecimal, octal, letter, plain = match.groups()
        if hexadecimal is not None:
            data.append(int(hexadecimal, 16))
        elif octal is not None:
            data.append(int(octal, 8) & 0xFF)
        else:
            data += bytes([_ESCAPED[letter]]) if letter else plain.encode()
        at = match.end()
    return bytes(data)
