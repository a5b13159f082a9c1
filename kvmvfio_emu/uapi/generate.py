"""Writes `_types.py`, `constants.py` and `arm32.py` from the C headers, so that numbers and layouts exist once.

    python -m kvmvfio_emu.uapi.generate            # write them
    python -m kvmvfio_emu.uapi.generate --check    # exit 1 if one is not what the headers say

A tool for who changes `include/`: it needs pcpp and pycparser, which users of the package do not. It reads
the 64-bit ARM flavour, on whatever host it runs, and nothing of the host's own headers; of the 32-bit flavour
`arm32.py` has what is otherwise there.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cffi
import pcpp  # type: ignore[import-untyped]

from kvmvfio_emu.uapi.headers import HEADERS, include_dir

HERE = Path(__file__).parent
COMMAND = "python -m kvmvfio_emu.uapi.generate"

# What the headers take from <linux/types.h> and <linux/ioctl.h>, in terms that cffi and `evaluate` know.
TYPES = "".join(
    f"typedef {'u' if kind == 'u' else ''}int{bits}_t __{kind}{bits};\n" for kind in "us" for bits in (8, 16, 32, 64)
)
PREDEFINED = (
    "__extension__ ",
    "_IO(type,nr) ((type) << 8 | (nr))",
    "_IOW(type,nr,arg) (1 << 30 | sizeof(arg) << 16 | (type) << 8 | (nr))",
    "_IOR(type,nr,arg) (2 << 30 | sizeof(arg) << 16 | (type) << 8 | (nr))",
    "_IOWR(type,nr,arg) (3 << 30 | sizeof(arg) << 16 | (type) << 8 | (nr))",
)

_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?![\w(])", re.MULTILINE)
_INTEGER = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\b")
_SIZEOF = re.compile(r"\bsizeof\s*\(\s*((?:struct\s+)?\w+)\s*\)")
_CHAR = re.compile(r"'(.)'")

_BINARY = {
    ast.Add: int.__add__,
    ast.Sub: int.__sub__,
    ast.Mult: int.__mul__,
    ast.FloorDiv: int.__floordiv__,
    ast.LShift: int.__lshift__,
    ast.RShift: int.__rshift__,
    ast.BitOr: int.__or__,
    ast.BitAnd: int.__and__,
    ast.BitXor: int.__xor__,
}
_UNARY = {ast.USub: int.__neg__, ast.UAdd: int.__pos__, ast.Invert: int.__invert__}


class NotAnInteger(ValueError):
    """The macro is no integer constant: a string, a type, an attribute, or nothing at all."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One macro that is an integer, with the spelling that its value deserves."""

    name: str
    value: int
    decimal: bool

    def __str__(self) -> str:
        return f"{self.name} = {self.value if self.decimal else f'0x{self.value:X}'}"


class Preprocessor(pcpp.Preprocessor):  # type: ignore[misc]  # pcpp has no types
    """pcpp that sees only our headers; `PREDEFINED` and `TYPES` stand for the system's."""

    def __init__(self, include: Path, *defined: str) -> None:
        super().__init__()
        self.line_directive = None
        self.add_path(str(include))
        for definition in (*PREDEFINED, *defined):
            self.define(definition)
        self.parse("".join(f"#include <{header}>\n" for header in HEADERS))
        text = io.StringIO()
        self.write(text)
        self.text = text.getvalue()

    def on_include_not_found(self, is_malformed: bool, is_system: bool, curdir: str, includepath: str) -> None:
        raise pcpp.OutputDirective(pcpp.Action.IgnoreAndRemove)

    def expand(self, name: str) -> str:
        """The macro's full expansion, as C text."""
        before, text = "", name
        while before != text:  # once more for a name that was pasted from a number: pcpp does not look at it again
            before, text = text, "".join(token.value for token in self.expand_macros(self.tokenize(text))).strip()
        return text


def evaluate(text: str, ffi: cffi.FFI) -> int:
    """The value of a C integer expression without casts and conditions; `NotAnInteger` for anything else."""
    text = _SIZEOF.sub(lambda match: str(ffi.sizeof(match[1])), text)
    text = _CHAR.sub(lambda match: str(ord(match[1])), text)
    text = _INTEGER.sub(lambda match: str(_literal(match[1])), text).replace("/", "//")
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as error:
        raise NotAnInteger(text) from error


def _literal(digits: str) -> int:
    octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
    return int(digits, 8 if octal else 0)


def _value(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.BinOp() if type(node.op) in _BINARY:
            return _BINARY[type(node.op)](_value(node.left), _value(node.right))
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return _UNARY[type(node.op)](_value(node.operand))
    raise NotAnInteger(ast.unparse(node))


def constants(header: str, include: Path, preprocessor: Preprocessor, ffi: cffi.FFI) -> Iterator[Constant]:
    """The integers that this header defines in the preprocessor's flavour, in its order."""
    seen = set()
    for name in _DEFINE.findall((include / header).read_text()):
        macro = preprocessor.macros.get(name)
        if name in seen or macro is None or macro.arglist is not None:
            continue
        seen.add(name)
        expansion = preprocessor.expand(name)
        try:
            value = evaluate(expansion, ffi)
        except NotAnInteger:
            continue
        yield Constant(name, value, decimal=value < 0 or re.fullmatch(r"\(?\d+\)?", expansion) is not None)


def _parse(preprocessor: Preprocessor) -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef(TYPES + preprocessor.text)
    return ffi


def types_module(preprocessor: Preprocessor) -> tuple[cffi.FFI, str]:
    """The parsed structs, and the text of a module that has them without parsing."""
    ffi = _parse(preprocessor)
    ffi.set_source("kvmvfio_emu.uapi._types", None)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "_types.py"
        with contextlib.redirect_stdout(None):  # cffi would announce the temporary file
            ffi.emit_python_code(str(path))
        return ffi, f"# The structs of include/, by `{COMMAND}`; do not edit.\n" + path.read_text()


def constants_module(include: Path, preprocessor: Preprocessor, ffi: cffi.FFI) -> str:
    """The text of a module with one line per number, which mypy, editors and people can read."""
    sections = {header: list(constants(header, include, preprocessor, ffi)) for header in HEADERS}
    lines = [f'"""The numbers of include/, by `{COMMAND}`; do not edit."""']
    for header, found in sections.items():
        lines += ["", f"# {header}", *map(str, found)]
    lines += ["", "__all__ = [  # noqa: RUF022 - in the order of the headers"]
    lines += [f'    "{constant.name}",' for found in sections.values() for constant in found]
    return "\n".join([*lines, "]", ""])


def arm32_module(include: Path, common: dict[str, int]) -> str:
    """The text of a module with the numbers that 32-bit ARM has otherwise than ``common``, or alone.

    But none that has a struct's size in it: cffi gives structs without members one, and 32-bit kernels refuse the three
    ioctls that this concerns.
    """
    preprocessor = Preprocessor(include, "KVMVFIO_EMU_ARM32")
    ffi = _parse(preprocessor)
    found = [
        constant
        for header in HEADERS
        for constant in constants(header, include, preprocessor, ffi)
        if common.get(constant.name) != constant.value and "sizeof" not in preprocessor.expand(constant.name)
    ]
    registers: list[tuple[str, Any]] = ffi.typeof("struct kvm_regs").fields
    lines = [
        f'"""What include/ has otherwise for a 32-bit ARM host, by `{COMMAND}`; do not edit."""',
        "",
        *map(str, found),
        "",
        "#: ``struct kvm_regs``: its members, by their first word.",
        "KVM_REGS = {",
        *(f'    "{name}": {field.offset // 4},' for name, field in registers),
        "}",
        f"KVM_REGS_WORDS = {ffi.sizeof('struct kvm_regs') // 4}",
        "",
    ]
    return "\n".join(lines)


def generate() -> dict[Path, str]:
    """The modules: path and text."""
    include = include_dir()
    preprocessor = Preprocessor(include)
    ffi, types = types_module(preprocessor)
    common = {found.name: found.value for header in HEADERS for found in constants(header, include, preprocessor, ffi)}
    return {
        HERE / "_types.py": types,
        HERE / "constants.py": constants_module(include, preprocessor, ffi),
        HERE / "arm32.py": arm32_module(include, common),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    check = parser.parse_args(argv).check
    stale = [(path, text) for path, text in generate().items() if not path.is_file() or path.read_text() != text]
    for path, text in stale:
        if not check:
            path.write_text(text)
        print(f"{path}: {'stale' if check else 'written'}", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
