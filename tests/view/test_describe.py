"""`kvmvfio-emu decode` on a number, a name, and bytes in every form that people paste."""

from __future__ import annotations

import io
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvmvfio_emu import uapi
from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view import describe, hexdump
from kvmvfio_emu.view.requests import by_number, names, requests

IRQFD = uapi.pack("struct kvm_irqfd", fd=3, gsi=80, flags=uapi.KVM_IRQFD_FLAG_RESAMPLE, resamplefd=0x2D)


def decode(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["decode", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["decode", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.removeprefix("kvmvfio-emu: ").rstrip("\n")


# ---- requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["0x4020ae76", "1075883638", "KVM_IRQFD", "kvm_irqfd", "0xffffffff4020ae76"])
def test_a_request_by_number_and_by_name(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = decode(capsys, word)
    assert said.startswith("KVM_IRQFD  0x4020ae76  _IOW(0xae, 0x76, 32)\n  on vm: ties an eventfd to a guest interrupt")
    assert "struct kvm_irqfd, 32 bytes, read" in said
    assert re.search(r"^ +12  uint32_t +resamplefd$", said, re.M)


def test_a_number_of_several_requests_shows_them_all_or_that_of_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    both = json.loads(decode(capsys, "0x4010aeab", "--json"))
    assert [(one["request"], one["files"]) for one in both] == [
        ("KVM_ARM_SET_DEVICE_ADDR", ["vm"]),
        ("KVM_GET_ONE_REG", ["vcpu"]),
    ]
    assert json.loads(decode(capsys, "0x4010aeab", "--json", "--kind", "vcpu"))["request"] == "KVM_GET_ONE_REG"
    assert refused(capsys, "KVM_IRQFD", "--kind", "vcpu") == "a vcpu file does not take KVM_IRQFD; these do: vm"


def test_a_request_of_other_machines_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert "312 bytes, of another machine's headers" in decode(capsys, "KVM_GET_SREGS")


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("KVM_IRQFX", r"no request is called 'KVM_IRQFX'; perhaps KVM_IRQFD or .*\?"),
        ("0x5401", r"0x5401 is _IO\(0x54, 0x01\), no request of KVM, VFIO or iommufd"),
        ("0x4020aeff", r"0x4020aeff is _IOW\(0xAE, 0xFF, 32\), no request known here"),
        ("xyzzyqqqqqqq", r"no request is called 'xyzzyqqqqqqq'"),
        ("-1 or so", r"no request is called '-1 or so'"),
    ],
)
def test_what_is_no_request(word: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(answer, refused(capsys, "--", word))


def test_every_request_of_the_headers_has_a_meaning() -> None:
    assert {row.name for row in uapi.IOCTLS.values()} <= set(names())
    for (kind, number), row in uapi.IOCTLS.items():
        assert any(kind in one.kinds and one.name == row.name for one in by_number(number))


def test_no_request_is_there_twice() -> None:
    rows = [(row.name, row.number) for row in requests()]
    assert len(set(rows)) == len(rows)
    assert {kind for row in requests() for kind in row.kinds} <= set(uapi.KINDS)


def test_numbers_are_those_of_the_installed_kernel_headers(tmp_path: Path) -> None:
    """On x86-64, whose KVM headers have what those of include/ lack."""
    if shutil.which("gcc") is None or platform.machine() != "x86_64" or not Path("/usr/include/linux/kvm.h").exists():
        pytest.skip("no kernel headers of x86-64 to compare with")
    wanted = {row.name: row.number for row in requests() if row.struct is None or row.any_size}
    header = "#include <stdio.h>\n#include <linux/kvm.h>\n#include <linux/vfio.h>\n"

    def program(chosen: set[str]) -> str:
        lines = [f'#ifdef {name}\nprintf("{name} %x\\n", (unsigned){name});\n#endif' for name in sorted(chosen)]
        return header + "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n"

    chosen = set(wanted)
    while True:  # without those whose struct is another machine's
        done = subprocess.run(
            ["gcc", "-w", "-fmax-errors=0", "-x", "c", "-", "-o", str(tmp_path / "program")],
            input=program(chosen),
            text=True,
            capture_output=True,
        )
        if done.returncode == 0:
            break
        lines = program(chosen).splitlines()
        bad = {
            lines[int(number) - 1].split('"')[1].split()[0]
            for number in re.findall(r"^<stdin>:(\d+):", done.stderr, re.M)
            if '"' in lines[int(number) - 1]
        }
        assert bad, done.stderr
        chosen -= bad
    printed = subprocess.run([tmp_path / "program"], text=True, check=True, capture_output=True).stdout
    known = {name: int(number, 16) for name, number in (line.split() for line in printed.splitlines())}
    assert len(known) > 80
    assert known == {name: wanted[name] for name in known}


# ---- bytes -------------------------------------------------------------------------------------------------------

PLAIN = IRQFD.hex()
PAIRS = IRQFD.hex(" ")


def xxd() -> str:
    lines = [IRQFD[at : at + 16] for at in (0, 16)]
    return "".join(f"{16 * n:08x}: {line.hex(' ', 2)}  {'.' * 16}\n" for n, line in enumerate(lines))


def canonical() -> str:
    lines = [IRQFD[at : at + 16] for at in (0, 16)]
    rows = [f"{16 * n:08x}  {line[:8].hex(' ')}  {line[8:].hex(' ')}  |abc|def..|\n" for n, line in enumerate(lines)]
    return "".join(rows) + "00000020\n"


def words() -> str:
    halves = [int.from_bytes(IRQFD[at : at + 2], "little") for at in range(0, 32, 2)]
    rows = [" ".join(f"{half:04x}" for half in halves[at : at + 8]) for at in (0, 8)]
    return f"0000000 {rows[0]}\n0000010 {rows[1]}\n0000020\n"


FORMS = {
    "plain": PLAIN,
    "pairs": PAIRS,
    "a C array": "{" + ", ".join(f"0x{byte:02x}" for byte in IRQFD) + "}",
    "words of a debugger": " ".join(f"{int.from_bytes(IRQFD[at : at + 4], 'little'):#010x}" for at in range(0, 32, 4)),
    "xxd": xxd(),
    "hexdump -C": canonical(),
    "hexdump": words(),
    "a C string": '"' + "".join(f"\\x{byte:02x}" for byte in IRQFD) + '"',
    "strace's octal": '"' + "".join(f"\\{byte:o}" for byte in IRQFD[:-4]).replace("\\55", "-") + '\\0\\0\\0\\0"',
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_all_forms_of_bytes(form: str) -> None:
    assert hexdump.parse(form) == IRQFD


def test_real_dumps_of_real_programs(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(IRQFD) + bytes(64) + b"fine")  # zeroes: hexdump writes * for them
    for command in (["xxd"], ["xxd", "-p"], ["hexdump", "-C"], ["hexdump"]):
        if shutil.which(command[0]) is None:
            continue
        dump = subprocess.run([*command, str(path)], text=True, capture_output=True, check=True).stdout
        assert hexdump.parse(dump) == path.read_bytes(), command


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("03 zz", "line 1, column 4: 'z' is no hexadecimal digit"),
        ("00 00\n03 0", "line 2, column 4: 1 digits; a byte has two"),
        ("00000000: 0300 00g0", "line 1, column 18: 'g' is no hexadecimal digit"),
        (r"\q", r"column 1: '\\q' is no escape of a C string"),
        (" \n ", "no bytes"),
        ("00000000  03 00 gg", "line 1, column 17: 'g' is no hexadecimal digit"),
        ("00000000  03\n*\nffffffff\n", "line 3: offset 0xffffffff after 0x1 bytes"),
    ],
)
def test_what_is_no_bytes_is_told_with_its_place(text: str, answer: str) -> None:
    with pytest.raises(hexdump.HexError) as caught:
        hexdump.parse(text)
    assert str(caught.value) == answer


def test_bytes_of_an_argument_by_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    said = decode(capsys, "KVM_IRQFD", *PAIRS.split())
    assert "  gsi = 80\n  flags = RESAMPLE\n  resamplefd = 45\n" in said
    value = json.loads(decode(capsys, "--struct", "kvm_irqfd", PLAIN, "--json"))["value"]
    assert value == {"fd": 3, "gsi": 80, "flags": "RESAMPLE", "resamplefd": 45}


def test_bytes_come_by_the_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(xxd()))
    assert "gsi = 80" in decode(capsys, "0x4020ae76", "-")


def test_what_follows_a_struct_belongs_to_it() -> None:
    from kvmvfio_emu.uapi import payloads

    flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER
    irqs = payloads.vfio_irq_set.build({"flags": flags, "index": 0, "data": [5, -1]})
    assert describe.struct("struct vfio_irq_set", irqs)["data"] == [5, -1]
    forwarded = payloads.kvm_vfio_dev_irq.build({"fd": 5, "index": 0, "gsi": [80]})
    assert describe.struct("struct kvm_vfio_dev_irq", forwarded)["gsi"] == [80]
    (row,) = describe.request("VFIO_GROUP_GET_DEVICE_FD")
    assert describe.argument(row, b"fff51000.ethernet\0\0") == {"name": "fff51000.ethernet"}


def test_an_older_callers_struct_is_shorter() -> None:
    info = b"\x10\0\0\0" + bytes(12)  # argsz 16 of 24
    assert describe.struct("struct vfio_iommu_type1_info", info)["argsz"] == 16


@pytest.mark.parametrize(
    ("ctype", "data", "answer"),
    [
        ("kvm_irqfd", IRQFD[:-1], "KVM_IRQFD takes struct kvm_irqfd, 32 bytes; here are 31"),
        ("kvm_irqfd", IRQFD + b"\0", "KVM_IRQFD takes struct kvm_irqfd, 32 bytes; here are 1 more"),
        ("vfio_irq_set", b"\x18\0\0\0" + bytes(16), "VFIO_DEVICE_SET_IRQS: its argsz says 24 bytes; here are 20"),
        ("vfio_irq_set", b"\x14\0\0\0", "VFIO_DEVICE_SET_IRQS takes struct vfio_irq_set, 20 bytes; here are 4"),
    ],
)
def test_bytes_of_a_wrong_size(ctype: str, data: bytes, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--struct", f"struct {ctype}", data.hex()) == answer


def test_an_unknown_struct(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--struct", "struct kvm_irqdf")
    assert said.startswith("no struct is called 'kvm_irqdf'; perhaps kvm_irqfd")


def test_a_request_without_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "KVM_RUN", "00") == "KVM_RUN has no argument of bytes here"


def test_the_layout_of_a_struct(capsys: pytest.CaptureFixture[str]) -> None:
    said = decode(capsys, "--struct", "vfio_irq_set")
    assert re.search(r"^ +16  uint32_t +count$", said, re.M)
