"""The headers stand alone: any C or C++ program may include them, and its compiler lays them out as cffi does."""

from __future__ import annotations

import shutil
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from kvmvfio_emu import uapi
from kvmvfio_emu.uapi import arm32
from kvmvfio_emu.uapi.headers import HEADERS

WARNINGS = ("-Wall", "-Wextra", "-pedantic", "-Werror")
LANGUAGES = {"c": ("gcc", "-std=c11"), "c++": ("g++", "-std=c++17")}
FLAVOURS = {"arm64": (), "arm32": ("-DKVMVFIO_EMU_ARM32",)}


def compiler(language: str) -> list[str]:
    name, standard = LANGUAGES[language]
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} in PATH")
    return [path, "-x", language, standard, *WARNINGS, "-I", str(uapi.include_dir())]


def run(program: str, language: str, directory: Path, *options: str) -> str:
    """What the program prints."""
    binary = directory / "program"
    command = [*compiler(language), *options, "-o", str(binary), "-"]
    done = subprocess.run(command, input=program, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return subprocess.run([binary], text=True, check=True, capture_output=True).stdout


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("headers", [*((header,) for header in HEADERS), HEADERS, HEADERS[::-1]], ids="+".join)
def test_headers_compile_without_a_warning(headers: tuple[str, ...], language: str, flavour: str) -> None:
    text = "".join(f"#include <{header}>\n" for header in headers) * 2
    done = subprocess.run(
        [*compiler(language), *FLAVOURS[flavour], "-fsyntax-only", "-"],
        input=text,
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def structs() -> list[str]:
    return [name for name in uapi.ffi.list_types()[1] if not name.startswith("$")]


def fields(struct: str) -> list[str]:
    """Its named fields, and those of the unnamed unions in it, which C reaches by the same short name."""
    return list(
        chain.from_iterable(
            [name] if name else [inner for inner, _ in field.type.fields]
            for name, field in uapi.ffi.typeof(f"struct {struct}").fields
        )
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_layouts_are_those_of_cffi(language: str, tmp_path: Path) -> None:
    expected = {}
    lines = []
    for struct in structs():
        expected[struct] = uapi.sizeof(f"struct {struct}")
        lines.append(f'printf("{struct} %zu\\n", sizeof(struct {struct}));')
        for field in fields(struct):
            expected[f"{struct}.{field}"] = uapi.ffi.offsetof(f"struct {struct}", field)
            lines.append(f'printf("{struct}.{field} %zu\\n", offsetof(struct {struct}, {field}));')
    printed = run(c_program(lines), language, tmp_path)
    assert {name: int(value) for name, value in map(str.split, printed.splitlines())} == expected
    assert len(expected) > 400


def test_numbers_are_those_of_the_compiler(tmp_path: Path) -> None:
    """To the width of the C expression: a compiler's (1 << 31) and -1 are signed."""
    lines = [
        f'printf("{name} %llx %zu\\n", (unsigned long long)({name}), sizeof({name}));'
        for name in uapi.constants.__all__
    ]
    for name, value, size in map(str.split, run(c_program(lines), "c", tmp_path).splitlines()):
        mask = (1 << 8 * int(size)) - 1
        assert int(value, 16) & mask == getattr(uapi, name) & mask, name


def test_numbers_of_a_32_bit_host_are_those_of_the_compiler(tmp_path: Path) -> None:
    names = [name for name in vars(arm32) if name.startswith("KVM_") and not name.startswith("KVM_REGS")]
    lines = [f'printf("{name} %llx\\n", (unsigned long long)({name}));' for name in names]
    printed = run(c_program(lines), "c", tmp_path, "-DKVMVFIO_EMU_ARM32").splitlines()
    assert {name: int(value, 16) for name, value in map(str.split, printed)} == {
        name: getattr(arm32, name) for name in names
    }
    members = [f'printf("%zu ", KVM_REG_ARM_CORE_REG({name}));' for name in arm32.KVM_REGS]
    members.append('printf("%zu", sizeof(struct kvm_regs) / 4);')
    words = run(c_program(members), "c", tmp_path, "-DKVMVFIO_EMU_ARM32").split()
    assert words == [str(word) for word in (*arm32.KVM_REGS.values(), arm32.KVM_REGS_WORDS)]


def test_arm32_flavour_is_the_2012_layout(tmp_path: Path) -> None:
    """From arch/arm of Linux 3.17: 18 words of user registers, five banks, no debug registers, other features."""
    lines = [
        f'printf("%zu ", (size_t)({expression}));'
        for expression in (
            "sizeof(struct kvm_regs)",
            "KVM_REG_ARM_CORE_REG(usr_regs.ARM_pc)",
            "KVM_REG_ARM_CORE_REG(svc_regs[0])",
            "KVM_REG_ARM_CORE_REG(KVM_ARM_FIQ_spsr)",
            "sizeof(struct kvm_guest_debug)",
            "sizeof(struct kvm_run)",
            "sizeof(struct kvm_vcpu_init)",
            "KVM_ARM_VCPU_PSCI_0_2",
            "KVM_ARM_IRQ_TYPE_MASK",
        )
    ]
    assert run(c_program(lines), "c", tmp_path, "-DKVMVFIO_EMU_ARM32").split() == [
        *("152", "15", "18", "37", "8", "2352", "32", "1", "255")
    ]


def c_program(lines: list[str]) -> str:
    includes = "".join(f"#include <{header}>\n" for header in ("stddef.h", "stdio.h", *HEADERS))
    return f"{includes}int main(void) {{ {' '.join(lines)} return 0; }}\n"
