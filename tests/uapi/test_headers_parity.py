"""Our headers agree with the kernel's own: every number, size and offset that both have.

The same C program is compiled against either; what the installed kernel headers do not know is left out of both. On a
host that is not ARM, asm/kvm.h describes another machine, so only what the headers in linux/ say themselves is compared
there. The ARM part is compared where arm64 kernel headers are: on an arm64 host, or where those of a cross compiler are
installed (Debian: linux-libc-dev-arm64-cross).
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from kvmvfio_emu import uapi
from kvmvfio_emu.uapi.headers import HEADERS

ARM64_HEADERS = Path("/usr/aarch64-linux-gnu/include")
NATIVE_IS_ARM64 = platform.machine() == "aarch64"

# Of linux/kvm.h, but as large as a struct of asm/kvm.h.
ARCH_SIZED = {
    "KVM_GET_REGS",
    "KVM_SET_REGS",
    "KVM_SET_GUEST_DEBUG",
    "KVM_GET_VCPU_EVENTS",
    "KVM_SET_VCPU_EVENTS",
    "struct kvm_guest_debug",
}


class Number(NamedTuple):
    """A C integer: its bits, and how many bytes of them the compiler gave it."""

    bits: int
    size: int

    def equals(self, other: Number) -> bool:
        """Whether they are the same up to sign: (1 << 31) and (1U << 31) are."""
        return not (self.bits ^ other.bits) & ((1 << 8 * min(self.size, other.size)) - 1)


def gcc(*arguments: str, program: str) -> subprocess.CompletedProcess[str]:
    path = shutil.which("gcc")
    if path is None:
        pytest.skip("no gcc in PATH")
    return subprocess.run([path, "-x", "c", *arguments, "-"], input=program, text=True, capture_output=True)


def includes() -> str:
    text = "".join(f"#include <{header}>\n" for header in ("stddef.h", "stdio.h", "linux/kvm.h", "linux/vfio.h"))
    # Kernel headers before 6.2 have none.
    return f"{text}#if __has_include(<linux/iommufd.h>)\n#include <linux/iommufd.h>\n#endif\n"


def known(expressions: list[str], *options: str) -> list[str]:
    """Those that compile. One to a line, as the compiler's complaints name lines."""
    while True:
        lines = [f"unsigned long long v{n} = (unsigned long long)({e});" for n, e in enumerate(expressions)]
        done = gcc(*options, "-fsyntax-only", "-w", "-fmax-errors=0", program=includes() + "\n".join(lines))
        if done.returncode == 0:
            return expressions
        first = includes().count("\n") + 1
        wrong = {int(line) - first for line in re.findall(r"^<stdin>:(\d+):\d+: error", done.stderr, re.M)}
        assert wrong, done.stderr
        assert min(wrong) >= 0, done.stderr
        expressions = [e for n, e in enumerate(expressions) if n not in wrong]


def values(expressions: list[str], directory: Path, *options: str) -> dict[str, Number]:
    lines = [f'printf("%llx %zu\\n", (unsigned long long)({e}), sizeof({e}));' for e in expressions]
    program = f"{includes()}int main(void) {{ {' '.join(lines)} return 0; }}\n"
    done = gcc(*options, "-w", "-o", str(directory / "program"), program=program)
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([directory / "program"], text=True, check=True, capture_output=True).stdout
    numbers = (Number(int(bits, 16), int(size)) for bits, size in map(str.split, printed.splitlines()))
    return dict(zip(expressions, numbers, strict=True))


def arch_names() -> set[str]:
    """What asm/kvm.h defines, and what depends on it."""
    text = (uapi.include_dir() / "asm/kvm.h").read_text()
    macros = set(re.findall(r"^#define (\w+)", text, re.M))
    return (
        macros
        | {f"struct {name}" for name in re.findall(r"^(?:__extension__ )?struct (\w+) \{", text, re.M)}
        | ARCH_SIZED
    )


def everything() -> tuple[list[str], dict[str, list[str]]]:
    """All numbers that we have, and all structs with their fields."""
    structs = {}
    for name in uapi.ffi.list_types()[1]:
        if not name.startswith("$"):
            described = uapi.ffi.typeof(f"struct {name}").fields
            structs[f"struct {name}"] = [
                inner for field, about in described for inner in ([field] if field else dict(about.type.fields))
            ]
    return list(uapi.constants.__all__), structs


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((), id="arm64" if NATIVE_IS_ARM64 else "neutral"),
        pytest.param(
            ("-isystem", str(ARM64_HEADERS)),
            id="arm64-cross",
            marks=pytest.mark.skipif(
                not (ARM64_HEADERS / "asm/kvm.h").is_file(), reason=f"no arm64 kernel headers in {ARM64_HEADERS}"
            ),
        ),
    ],
)
def system(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Compiler options that find the kernel's headers."""
    options: tuple[str, ...] = request.param
    if gcc(*options, "-fsyntax-only", program=includes()).returncode:
        pytest.skip("no kernel headers installed (Debian: linux-libc-dev)")
    return options


def compared(system: tuple[str, ...]) -> tuple[list[str], dict[str, list[str]]]:
    numbers, structs = everything()
    if system or NATIVE_IS_ARM64:
        return numbers, structs
    excluded = arch_names()
    return (
        [name for name in numbers if name not in excluded],
        {name: fields for name, fields in structs.items() if name not in excluded},
    )


def ours() -> tuple[str, str]:
    return ("-I", str(uapi.include_dir()))


def test_numbers(system: tuple[str, ...], tmp_path: Path) -> None:
    both = known(compared(system)[0], *system)
    theirs = values(both, tmp_path, *system)
    mine = values(both, tmp_path, *ours())
    wrong = {n: (mine[n], theirs[n]) for n in both if not mine[n].equals(theirs[n])}
    if theirs.get("KVM_DIRTY_LOG_PAGE_OFFSET") == (0, 4):  # an architecture without the ring, as arm64 before 6.2
        del wrong["KVM_DIRTY_LOG_PAGE_OFFSET"]
    assert wrong == {}
    assert len(both) > 500, "the comparison has lost its subject"


def test_layouts(system: tuple[str, ...], tmp_path: Path) -> None:
    structs = compared(system)[1]
    fields = {f"offsetof({name}, {field})": name for name, names in structs.items() for field in names}
    both = known([*(f"sizeof({name})" for name in structs), *fields], *system)
    theirs = values(both, tmp_path, *system)
    mine = values(both, tmp_path, *ours())

    grown = {fields[e] for e in set(fields) - set(both)}  # ours has a field that these headers lack
    wrong = []
    for expression in both:
        name = expression.removeprefix("sizeof(").removesuffix(")")
        want, have = theirs[expression].bits, mine[expression].bits
        # Structs with argsz grow at the end; either side may be the newer one.
        newer_there = want > have and "argsz" in structs.get(name, ())
        newer_here = want < have and name in grown
        if want != have and not newer_there and not newer_here:
            wrong.append((expression, have, want))
    assert wrong == []
    assert len(both) > 350, "the comparison has lost its subject"


def test_every_capability_of_the_kernel_s_headers_is_named(system: tuple[str, ...]) -> None:
    """Up to the newest that ours know: a newer kernel may well have more."""
    done = gcc(*system, "-E", "-dM", program=includes())
    theirs = {name: int(value) for name, value in re.findall(r"^#define (KVM_CAP_\w+) (\d+)$", done.stdout, re.M)}
    mine = {name: getattr(uapi, name) for name in uapi.constants.__all__ if name.startswith("KVM_CAP_")}
    assert {name for name, value in theirs.items() if value <= max(mine.values())} <= set(mine)


def test_headers_have_guards_of_their_own() -> None:
    """Else a program that includes the kernel's under another path would silently lose one of the two."""
    for header in HEADERS:
        guard = re.search(r"^#ifndef (\w+)", (uapi.include_dir() / header).read_text(), re.M)
        assert guard
        assert guard[1].startswith("KVMVFIO_EMU_")
