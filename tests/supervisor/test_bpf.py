"""The filter, executed by a small interpreter of classic BPF: which calls notify, and which stay native."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from kvmvfio_emu import uapi
from kvmvfio_emu.doors.supervisor import bpf
from kvmvfio_emu.doors.supervisor.calls import DescriptorCalls
from kvmvfio_emu.doors.supervisor.fileops import FileOperations
from kvmvfio_emu.doors.supervisor.hybrid import REQUESTS
from kvmvfio_emu.doors.supervisor.syscalls import _KNOWN, Architecture

ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
PATHS = (
    "open",
    "creat",
    "openat",
    "openat2",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
)
TRAPPED = (*DescriptorCalls().handlers, *FileOperations("x86_64", None).handlers, *PATHS, "readlink", "readlinkat")
#: What a program calls all the time and must not wait for us in: read, write, close, brk, futex, by machine.
NATIVE = {"x86_64": (0, 1, 3, 12, 202, 317), "aarch64": (63, 64, 57, 214, 98, 277)}
I386, ARM, RISCV = 0x40000003, 0x40000028, 0xC00000F3
BIG = 1 << 40


def execute(code: bytes, data: bytes) -> int:
    """What the filter returns for a ``struct seccomp_data``; checks what the kernel's verifier checks."""
    program = list(struct.iter_unpack("<HBBI", code))
    assert len(program) <= 4096
    accumulator, at = 0, 0
    while True:
        operation, yes, no, value = program[at]
        at += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert value % 4 == 0
            assert value + 4 <= len(data)
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= value
        elif operation == 0x06:  # BPF_RET | BPF_K
            return int(value)
        else:  # BPF_JMP | BPF_{JEQ,JGT,JGE,JSET} | BPF_K
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += yes if holds else no


Verdict = Callable[..., int]


@pytest.fixture(params=sorted(_KNOWN))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(name: str) -> Architecture:
    return _KNOWN[name]


@pytest.fixture
def verdict(machine: Architecture) -> Verdict:
    """``verdict("ioctl", 0, fd, request, argument)``: by name or number, with up to six arguments."""
    code = bpf.build(machine, TRAPPED)

    def judge(call: str | int, *arguments: int, audit: int = machine.audit) -> int:
        number = call if isinstance(call, int) else machine.numbers[call]
        padded = [argument & (1 << 64) - 1 for argument in arguments] + [0] * (6 - len(arguments))
        return execute(code, struct.pack("<IIQ6Q", number, audit, 0x400000, *padded))

    return judge


def test_the_calls_that_are_trapped_without_a_look_at_their_arguments(machine: Architecture, verdict: Verdict) -> None:
    plain = [name for name in PATHS if name in machine.numbers and name != "newfstatat"]
    assert {verdict(name) for name in plain} == {NOTIFY}
    assert {verdict(name, -1, -1, -1, -1, -1, -1) for name in plain} == {NOTIFY}


def test_all_other_calls_stay_native(name: str, machine: Architecture, verdict: Verdict) -> None:
    assert {verdict(number) for number in NATIVE[name]} == {ALLOW}
    trapped = {machine.numbers[call] for call in TRAPPED if call in machine.numbers}
    assert {verdict(number, -1, -1, -1, -1) for number in range(600) if number not in trapped} == {ALLOW}


def test_calls_of_a_foreign_architecture_stay_native(machine: Architecture, verdict: Verdict) -> None:
    others = {one.audit for one in _KNOWN.values()} - {machine.audit}
    for audit in (I386, ARM, RISCV, *others):
        assert verdict("openat", audit=audit) == ALLOW
        assert verdict("ioctl", 3, uapi.KVM_RUN, audit=audit) == ALLOW
    assert verdict(machine.numbers["openat"] | 0x40000000) == ALLOW  # x32


@pytest.mark.parametrize("request_", [uapi.KVM_RUN, uapi.KVM_IRQFD, uapi.KVM_CREATE_VM, uapi.VFIO_DEVICE_SET_IRQS])
def test_ioctls_of_kvm_and_vfio_are_trapped(verdict: Verdict, request_: int) -> None:
    assert verdict("ioctl", 3, request_, 0) == NOTIFY
    assert verdict("ioctl", -1, request_ | 0xDEAD << 32, -1) == NOTIFY  # the kernel looks at 32 bits, too


@pytest.mark.parametrize("request_", [0, 0x3A64, 0x3C64, 0xAD00, 0xAF01, 0xAE, 0x3B, 0x5301, 0x5501, 0x7801])
def test_any_ioctl_may_be_asked_of_ours(verdict: Verdict, request_: int) -> None:
    assert verdict("ioctl", 3, request_, 0) == NOTIFY


@pytest.mark.parametrize("request_", [0x5401, 0x5421, 0x541B, 0x5451, 0x8004541A])
def test_the_terminals_ioctls_stay_native(verdict: Verdict, request_: int) -> None:
    assert verdict("ioctl", 3, request_, 0) == ALLOW


def test_with_the_real_kvm_only_what_we_answer_is_trapped(machine: Architecture) -> None:
    code = bpf.build(machine, TRAPPED, REQUESTS)

    def judge(request: int) -> int:
        return execute(code, struct.pack("<IIQ6Q", machine.numbers["ioctl"], machine.audit, 0, 3, request, 0, 0, 0, 0))

    assert judge(uapi.KVM_SET_DEVICE_ATTR) == NOTIFY
    assert judge(uapi.VFIO_DEVICE_SET_IRQS) == NOTIFY
    assert judge(0x7801) == NOTIFY
    assert {judge(request) for request in (uapi.KVM_RUN, uapi.KVM_IRQFD, uapi.KVM_HAS_DEVICE_ATTR, 0x5401)} == {ALLOW}


def test_stat_of_a_descriptor_stays_native(verdict: Verdict) -> None:
    assert verdict("newfstatat", -100, 0x1000, 0x2000, 0) == NOTIFY
    assert verdict("newfstatat", -100, 0x1000, 0x2000, 0x100) == NOTIFY  # AT_SYMLINK_NOFOLLOW
    assert verdict("newfstatat", 3, 0x1000, 0x2000, 0x1000) == ALLOW  # AT_EMPTY_PATH
    assert verdict("newfstatat", 3, 0x1000, 0x2000, 0x1100) == ALLOW


@pytest.mark.parametrize("call", ["pread64", "pwrite64"])
@pytest.mark.parametrize(
    ("size", "offset", "expected"),
    [
        (4, 0, NOTIFY),
        (4096, 0xFFF, NOTIFY),
        (4097, 0, ALLOW),
        (1 << 32, 0, ALLOW),
        (4 | 1 << 32, 0, ALLOW),
        (4, BIG - 1, NOTIFY),
        (4097, BIG - 1, ALLOW),
        (4097, BIG, NOTIFY),
        (1 << 32, BIG, NOTIFY),
        (4, 7 * BIG, NOTIFY),
        (1 << 20, -1, NOTIFY),
    ],
)
def test_reads_and_writes_where_a_register_may_be(
    verdict: Verdict, call: str, size: int, offset: int, expected: int
) -> None:
    assert verdict(call, 3, 0x1000, size, offset) == expected


@pytest.mark.parametrize(
    ("offset", "whence", "expected"),
    [
        (0, 0, NOTIFY),
        (0, 2, NOTIFY),
        (0, 1, ALLOW),
        (1, 1, NOTIFY),
        (1 << 32, 1, NOTIFY),
        (-1, 1, NOTIFY),
        (0, 9, NOTIFY),
    ],
)
def test_asking_for_the_position_stays_native(verdict: Verdict, offset: int, whence: int, expected: int) -> None:
    assert verdict("lseek", 3, offset, whence) == expected


@pytest.mark.parametrize(("command", "expected"), [(0, ALLOW), (1, ALLOW), (2, ALLOW), (3, NOTIFY), (4, ALLOW)])
def test_of_fcntl_only_f_getfl_is_trapped(verdict: Verdict, command: int, expected: int) -> None:
    assert verdict("fcntl", 3, command, 0) == expected


@pytest.mark.parametrize(
    ("flags", "fd", "expected"),
    [
        (0x01, 3, NOTIFY),  # MAP_SHARED
        (0x02, 3, NOTIFY),  # MAP_PRIVATE
        (0x03, 0, NOTIFY),  # MAP_SHARED_VALIDATE
        (0x01, -1, ALLOW),
        (0x01, 0xFFFFFFFF, ALLOW),
        (0x22, 3, ALLOW),  # MAP_ANONYMOUS
        (0x802, 3, ALLOW),  # MAP_DENYWRITE: the dynamic linker
    ],
)
def test_mappings_of_files_are_trapped(verdict: Verdict, flags: int, fd: int, expected: int) -> None:
    assert verdict("mmap", 0, 4096, 3, flags, fd, 0) == expected


def test_what_is_not_asked_for_is_not_trapped(machine: Architecture) -> None:
    code = bpf.build(machine, ["ioctl"])
    for call in ("openat", "pread64", "newfstatat"):
        data = struct.pack("<IIQ6Q", machine.numbers[call], machine.audit, 0, 0, 0, 0, 7 * BIG, 0, 0)
        assert execute(code, data) == ALLOW


def test_the_numbers_are_this_machines(build: Callable[..., str]) -> None:
    """A C program that was compiled with the machine's own <sys/syscall.h> names them."""
    import platform
    import subprocess

    lines = subprocess.run([build("numbers")], capture_output=True, text=True, check=True).stdout.splitlines()
    theirs = {name: int(number) for name, number in (line.split() for line in lines)}
    ours = _KNOWN[platform.machine()]
    assert {name: theirs.get(name) for name in ours.numbers} == ours.numbers
    assert theirs["seccomp"] == ours.seccomp
