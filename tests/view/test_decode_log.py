"""`kvmvfio-emu decode` on logs of strace: every way in which strace writes an ioctl, and what is no log."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvmvfio_emu import uapi
from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view.decode_log import ForeignLogError, LogDecoder, Named
from kvmvfio_emu.view.fdkinds import kind_of_path


class Decoded:
    """A log decoded: its lines, the calls, the complaints."""

    def __init__(self, log: str | bytes) -> None:
        self.complaints: list[str] = []
        self.decoder = LogDecoder("log", self.complaints.append)
        self.text = ""
        self.calls: list[Named] = []
        for text, named in self.decoder.decode(io.BytesIO(log.encode() if isinstance(log, str) else log)):
            self.text += text
            if named is not None:
                self.calls.append(named)

    def named(self) -> list[tuple[str, str]]:
        """(kind of file, request) of each call."""
        return [(" or ".join(call.kinds), " or ".join(call.names)) for call in self.calls]


START = """\
ioctl(3, 0xae01, 0) = 4
ioctl(4, 0xae41, 0) = 5
"""


# ---- one line ----------------------------------------------------------------------------------------------------


def test_a_raw_call_gets_its_name_and_its_meaning() -> None:
    decoded = Decoded("ioctl(4, 0x4020ae76, 0x7ffd0)        = 0\n")
    expected = "ioctl(4, 0x4020ae76 /* KVM_IRQFD */, 0x7ffd0)        = 0  # vm: ties an eventfd to a guest interrupt"
    assert decoded.text.startswith(expected)
    assert decoded.text.endswith("\n")


def test_the_argument_that_is_a_constant_is_named() -> None:
    capability = uapi.KVM_CAP_IRQFD
    decoded = Decoded(f"ioctl(3, 0xae03, {capability:#x}) = 1\nioctl(9, 0x3b66, 0x1) = 0\n")
    assert f"{capability:#x} /* KVM_CAP_IRQFD */) = 1" in decoded.text
    assert "0x1 /* VFIO_TYPE1_IOMMU */) = 0" in decoded.text


PREFIXES = {
    "pid in a file": "4511  ",
    "pid on a terminal": "[pid  4511] ",
    "pid with its name": "[pid  4511<qemu-system-x86>] ",
    "pid with its name in a file": "4511<qemu-system-x86> ",
    "-t": "12:34:56 ",
    "-tt": "4511  12:34:56.123456 ",
    "-ttt": "[pid 4511] 1700000000.123456 ",
    "-r": "     0.000123 ",
    "-r in a terminal": "[pid  4511]      0.000123 ",
    "-r -t": "12:34:56 (+     0.000123) ",
    "-n": "[  16] ",
    "-i": "[00007f72dbdfe5a0] ",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES.keys())
def test_prefixes_of_all_options(prefix: str) -> None:
    (call,) = Decoded(f"{prefix}ioctl(4, 0x4020ae76, 0x7ffd0) = 0 <0.000012>\n").calls
    assert call.names == ("KVM_IRQFD",)
    assert call.pid == (4511 if "4511" in prefix else 0)
    assert call.result == 0


FORMS = {
    "raw": "0xae80",
    "raw, decimal": "44672",
    "verbose": "0xae80 /* KVM_RUN */",
    "by name": "KVM_RUN",
    "unknown to strace": "_IOC(_IOC_NONE, 0xae, 0x80, 0)",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_requests_in_all_forms(form: str) -> None:
    decoded = Decoded(f"ioctl(5, {form}, 0) = 0\n")
    assert decoded.named() == [("vcpu", "KVM_RUN")]
    assert decoded.text.count("KVM_RUN") == 1


def test_an_unknown_request_with_a_size() -> None:
    (call,) = Decoded("ioctl(4, _IOC(_IOC_WRITE, 0xae, 0x76, 0x20), 0x7ffd0) = 0\n").calls
    assert call.names == ("KVM_IRQFD",)
    assert call.number == 0x4020AE76


def test_a_number_that_nobody_knows_shows_its_parts() -> None:
    decoded = Decoded("ioctl(4, 0x4020aeff, 0x7ffd0) = -1 ENOTTY (Inappropriate ioctl for device)\n")
    assert decoded.named() == [("", "_IOW(0xAE, 0xFF, 32)")]
    assert decoded.calls[0].errno == "ENOTTY"


def test_a_negative_number_is_the_c_int() -> None:
    assert Decoded("ioctl(3, 0xffffffffc008ae05, 0) = 0\n").calls[0].names == ("KVM_GET_SUPPORTED_CPUID",)


def test_sizes_of_other_machines() -> None:
    """KVM_GET_REGS has another size on each; what else has this number does not matter."""
    for number in ("0x8090ae81", "0x8360ae81", "0x8110ae81"):
        assert Decoded(f"ioctl(5, {number}, 0x7ffd0) = 0\n").calls[0].names == ("KVM_GET_REGS",)


def test_structs_strings_and_paths_do_not_confuse_the_arguments() -> None:
    line = (
        'ioctl(9<a,b (1, "2")/vfio\\76>, 0x3b6a /* VFIO_GROUP_GET_DEVICE_FD */, "0000:00:01.0), = -1 \\"") = '
        "12<anon_inode:[vfio-device]>\n"
    )
    (call,) = Decoded(line).calls
    assert call.arg == '"0000:00:01.0), = -1 \\""'
    assert call.result == 12


# ---- what a descriptor is ------------------------------------------------------------------------------------------


def test_one_number_two_names_by_the_file_it_goes_to() -> None:
    decoded = Decoded(START + "ioctl(4, 0x4010aeab, 0x1000) = 0\nioctl(5, 0x4010aeab, 0x1000) = 0\n")
    assert decoded.named()[2:] == [("vm", "KVM_ARM_SET_DEVICE_ADDR"), ("vcpu", "KVM_GET_ONE_REG")]


def test_not_knowing_is_said() -> None:
    decoded = Decoded("ioctl(5, 0x4010aeab, 0x1000) = 0\n")
    assert decoded.named() == [("vm or vcpu", "KVM_ARM_SET_DEVICE_ADDR or KVM_GET_ONE_REG")]
    assert "0x4010aeab /* KVM_ARM_SET_DEVICE_ADDR or KVM_GET_ONE_REG */" in decoded.text


def test_other_requests_tell_what_a_descriptor_is() -> None:
    decoded = Decoded("ioctl(5, 0xae80, 0) = 0\nioctl(5, 0x4010aeab, 0x1000) = 0\n")
    assert decoded.named()[1] == ("vcpu", "KVM_GET_ONE_REG")


@pytest.mark.parametrize(
    ("line", "results"),
    [
        ("ioctl(5, 0xae80, 0) = 017\n", [15]),
        ("ioctl(5, 0xae80, 0) = 08\n", []),
        (f"ioctl(5, 0xae80, 0) = {'9' * 5000}\n", []),
        (f"ioctl({'9' * 5000}, 0xae80, 0) = 0\n", []),
        (f"ioctl(5, {'9' * 5000}, 0) = 0\n", []),
        (f"ioctl(5, _IOC(_IOC_NONE, 0xae, 0x80, 0x{'f' * 5000}), 0) = 0\n", []),
        (f"ioctl(5, 0xae80, {'9' * 5000}) = 0\n", [0]),
        (f"{'9' * 5000} ioctl(5, 0xae80, 0) = 0\n", []),
    ],
)
def test_numbers_as_c_writes_them_and_endless_ones(line: str, results: list[int]) -> None:
    assert [call.result for call in Decoded("ioctl(5, 0x5401, 0) = 0\n" + line).calls] == results


@pytest.mark.parametrize(
    "text", ["VFIO_DEVICE_GET_PCI_HOT_RESET_INFO or VFIO_IOMMU_GET_INFO or VFIO_IOMMU_SPAPR_TCE_GET_INFO", "0x3b70"]
)
def test_straces_alternatives_are_resolved(text: str) -> None:
    log = f"""\
openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR|O_CLOEXEC) = 7
openat(AT_FDCWD, "/dev/vfio/12", O_RDWR) = 8
ioctl(8, 0x3b6a, "0000:00:01.0") = 9
ioctl(7, {text}, 0x7ffd0) = 0
ioctl(9, {text}, 0x7ffd0) = 0
"""
    assert Decoded(log).named() == [
        ("group", "VFIO_GROUP_GET_DEVICE_FD"),
        ("container", "VFIO_IOMMU_GET_INFO"),
        ("vfio-device", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO"),
    ]


def test_opens_copies_and_closes_are_followed() -> None:
    log = """\
open("/dev/kvm", O_RDWR) = 3
dup(3) = 10
fcntl(10, F_DUPFD_CLOEXEC, 0) = 11
fcntl(11, 0x406, 0) = 12
close(3) = 0
openat(0xffffff9c, "/dev/iommu", 0x2) = 3
ioctl(3, 0x3b64) = 0
ioctl(12, 0xae03, 0x1) = 1
"""
    assert Decoded(log).named() == [("iommufd", "VFIO_GET_API_VERSION"), ("kvm", "KVM_CHECK_EXTENSION")]


def test_a_number_that_was_reused_unseen_is_what_its_requests_say() -> None:
    decoded = Decoded(START + "ioctl(5, 0x3b6b, 0x1000) = 0\n")
    assert decoded.named()[-1] == ("vfio-device", "VFIO_DEVICE_GET_INFO")


def test_devices_have_no_descriptor_in_a_raw_log() -> None:
    """KVM_CREATE_DEVICE returns it in its struct; what the log does not know must be one."""
    log = START + "ioctl(4, 0xc00caee0, 0x7ffd0) = 0\nioctl(6, 0x4018aee1, 0x7ffd0) = 0\nioctl(4, 0x4018aee1, 0) = 0\n"
    assert Decoded(log).named()[3:] == [("device", "KVM_SET_DEVICE_ATTR"), ("vm", "KVM_SET_DEVICE_ATTR")]


def test_devices_have_one_where_strace_prints_the_struct() -> None:
    log = "ioctl(4, KVM_CREATE_DEVICE, {type=KVM_DEV_TYPE_VFIO, fd=6, flags=0}) = 0\nioctl(6, 0x4018aee3, 0) = 0\n"
    assert Decoded(log).named()[1] == ("device", "KVM_HAS_DEVICE_ATTR")


def test_processes_have_their_own_descriptors_and_threads_do_not() -> None:
    log = """\
1 openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR) = 7
1 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 2
1 clone3({flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_THREAD, stack=0x7f}, 88) = 3
2 close(7) = 0
2 openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 7
3 ioctl(7, 0x3b64) = 0
2 ioctl(7, 0x3b64) = 0
2 +++ exited with 0 +++
"""
    assert [kind for kind, _ in Decoded(log).named()] == ["container", "iommufd"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/dev/kvm", "kvm"),
        ("/dev/kvm<char 10:232>", "kvm"),
        ("/dev/kvmfoo", None),
        ("anon_inode:kvm-vm", "vm"),
        ("anon_inode:[kvm-vm]", "vm"),
        ("anon_inode:kvm-vcpu:0", "vcpu"),
        ("anon_inode:kvm-vcpu", "vcpu"),
        ("anon_inode:kvm-vcpu-stats:0", None),
        ("anon_inode:kvm-vfio", "device"),
        ("anon_inode:kvm-arm-vgic-v2", "device"),
        ("/dev/vfio/vfio", "container"),
        ("/dev/vfio/12", "group"),
        ("/dev/vfio/noiommu-0", "group"),
        ("/dev/vfio/devices/vfio0", "vfio-device"),
        ("anon_inode:[vfio-device]", "vfio-device"),
        ("/dev/iommu", "iommufd"),
        ("anon_inode:[eventfd]", None),
    ],
)
def test_kinds_by_the_paths_of_y(path: str, kind: str | None) -> None:
    assert kind_of_path(path) == kind


def test_paths_of_y_win_over_memory() -> None:
    decoded = Decoded(START + "ioctl(5<anon_inode:kvm-vm>, 0x4010aeab, 0x1000) = 0\n")
    assert decoded.named()[-1] == ("vm", "KVM_ARM_SET_DEVICE_ADDR")


# ---- calls over several lines -------------------------------------------------------------------------------------


def test_unfinished_and_resumed_are_one_call() -> None:
    log = """\
[pid 2] ioctl(3, 0xae01 <unfinished ...>
[pid 3] ioctl(9, 0x5401, 0x7ffd0 <unfinished ...>
[pid 2] <... ioctl resumed>, 0) = 4
[pid 3] <... ioctl resumed>) = -1 ENOTTY (Inappropriate ioctl for device)
[pid 2] ioctl(4, 0x4010aeab, 0x7ffd0 <unfinished ...>
[pid 2] <... ioctl resumed>) = 0
"""
    decoded = Decoded(log)
    assert decoded.named() == [("kvm", "KVM_CREATE_VM"), ("vm", "KVM_ARM_SET_DEVICE_ADDR")]
    assert decoded.calls[0].result == 4
    assert decoded.calls[0].arg == "0"
    lines = decoded.text.splitlines()
    assert "/* KVM_CREATE_VM */" in lines[0]
    assert lines[1:2] == ["[pid 3] ioctl(9, 0x5401, 0x7ffd0 <unfinished ...>"]
    assert lines[2].endswith("# kvm: KVM_CREATE_VM")


def test_an_open_over_two_lines_is_followed() -> None:
    log = """\
1 openat(AT_FDCWD, "/dev/iommu", O_RDWR <unfinished ...>
2 ioctl(3, 0xae00, 0) = 12
1 <... openat resumed>) = 7
1 ioctl(7, 0x3b64) = 0
"""
    assert Decoded(log).named()[-1] == ("iommufd", "VFIO_GET_API_VERSION")


def test_a_call_that_never_returns_is_still_there() -> None:
    (call,) = Decoded("1 ioctl(5, 0xae80, 0 <unfinished ...>\n").calls
    assert call.names == ("KVM_RUN",)
    assert call.result is None


def test_an_interrupted_call_has_no_result() -> None:
    (call,) = Decoded("ioctl(5, 0xae80, 0) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)\n").calls
    assert (call.result, call.errno) == (None, "ERESTARTSYS")


# ---- what is not to be touched, what is wrong ---------------------------------------------------------------------


def test_everything_else_passes_unchanged() -> None:
    log = (
        b'1 openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY) = 3\r\n'
        b"1 --- SIGUSR1 {si_signo=10} ---\n"
        b"1 ioctl(0, TCGETS, {c_iflag=ICRNL}) = 0\n"
        b"1 ioctl(0, 0x5401, 0x7ffd0) = 0\n"
        b"\xff\xfe\0 not utf-8\n\n"
        b"qemu: a message of the program's own, ioctl(\n"
        b"1 ioctl(3, BTRFS_IOC_CLONE or FICLONE, 4) = 0\n"
        b"1 +++ exited with 0 +++"
    )
    decoded = Decoded(log)
    assert decoded.text.encode("utf-8", "surrogateescape") == log
    assert decoded.calls == []


def test_a_cut_line_is_told_with_its_place() -> None:
    decoded = Decoded("ioctl(4, 0x4020ae76, 0x7ffd0) = 0\nioctl(4, 0x4020ae")
    assert decoded.complaints == ["log:2: not understood, it ends in the middle: ioctl(4, 0x4020ae"]
    assert decoded.text.endswith("\nioctl(4, 0x4020ae")
    assert len(decoded.calls) == 1


def test_a_call_without_a_result_is_told() -> None:
    decoded = Decoded("ioctl(4, 0x4020ae76, 0x7ffd0)\nioctl(4, 0x4020ae76, 0) = 0\n")
    assert decoded.complaints[0].startswith("log:1: not understood, it has no result")


@pytest.mark.parametrize("log", ["", "hello\nworld\n", '{"kvmvfio_emu_trace": 1}\n', "\0" * 200_000])
def test_a_foreign_log_is_refused_at_its_end(log: str) -> None:
    with pytest.raises(ForeignLogError, match=r"^log: (empty|no ioctl in \d+ lines)"):
        Decoded(log)


def test_lines_without_end_are_passed_in_pieces() -> None:
    log = b'ioctl(4, 0x4020ae76, 0) = 0\nioctl(4, 0x4020ae76, "' + b"x" * 300_000 + b'") = 0\nioctl(4, 0xae41, 0) = 5\n'
    decoded = Decoded(log)
    assert decoded.text.count("x") >= 300_000
    assert [call.line for call in decoded.calls] == [1, 3]


def test_memory_does_not_grow_with_the_log() -> None:
    """Every table has a bound: descriptors, processes, calls in progress."""

    class Endless(io.RawIOBase):
        """Ever new processes and descriptors, and calls that never return."""

        def __init__(self) -> None:
            self.at = 0

        def readline(self, size: int | None = -1) -> bytes:
            self.at += 1
            n = self.at
            if n > 20_000:
                return b""
            if n % 3 == 0:
                return b"%d ioctl(%d, 0x4020ae76, 0 <unfinished ...>\n" % (n, n)
            return b"%d fork() = %d\n" % (n, n + 1) if n % 300 == 1 else b"1 ioctl(%d, 0xae80, 0) = 0\n" % n

    decoder = LogDecoder("log", lambda text: None)
    for _ in decoder.decode(Endless()):  # type: ignore[arg-type]
        pass
    descriptors = decoder._descriptors
    assert len(decoder._unfinished) <= 4096
    assert len(descriptors._tables) <= 256
    assert len(descriptors._common.kinds) <= 4096


# ---- the command -----------------------------------------------------------------------------------------------------


def test_json_is_one_object_a_call(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("1 getpid() = 1\n1 ioctl(4, 0x4020ae76, 0x7ffd0) = -1 EBUSY (Device or resource busy)\n")
    assert main(["decode", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "line": 2,
        "pid": 1,
        "fd": 4,
        "file": "vm",
        "request": "KVM_IRQFD",
        "number": "0x4020ae76",
        "meaning": "ties an eventfd to a guest interrupt, or unties it",
        "arg": "0x7ffd0",
        "result": -1,
        "errno": "EBUSY",
    }


def test_a_log_comes_by_the_input_and_many_complaints_are_counted() -> None:
    log = "ioctl(4, 0x4020ae76, 0) = 0\n" + "ioctl(4\n" * 50
    done = subprocess.run(
        [sys.executable, "-m", "kvmvfio_emu.cli.main", "decode"], input=log, text=True, capture_output=True
    )
    assert done.returncode == 0
    assert "/* KVM_IRQFD */" in done.stdout
    assert done.stderr.splitlines()[-1] == "kvmvfio-emu: 40 more lines not understood"
    assert len(done.stderr.splitlines()) == 11


def test_a_log_without_our_calls_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("ioctl(0, 0x5401, 0) = 0\n")
    assert main(["decode", str(path)]) == 0
    assert "1 ioctls, none of them of KVM, VFIO or iommufd" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/nonexistent/log", "/"])
def test_a_file_that_cannot_be_read(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", path]) == 2
    assert capsys.readouterr().err.startswith(f"kvmvfio-emu: {path}: ")


# ---- a real QEMU -----------------------------------------------------------------------------------------------------

_OURS = re.compile(r"ioctl\(\d+, (0x[0-9a-f]{0,4}(?:ae|3b)[0-9a-f]{2})\b")
QUIET = ["-nodefaults", "-display", "none", "-monitor", "stdio"]


def traced(tmp_path: Path, command: list[str]) -> Decoded:
    for program in ("strace", next(word for word in command if word.startswith("qemu-"))):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    log = tmp_path / "log"
    strace = ["strace", "-f", "-o", str(log), "-e", "trace=ioctl", "-X", "raw"]
    done = subprocess.run([*strace, *command], input="quit\n", text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    decoded = Decoded(log.read_bytes())
    ours = [line for line in log.read_text().splitlines() if _OURS.search(line)]
    assert len(ours) == len(decoded.calls) > 0
    for call in decoded.calls:
        assert len(call.names) == 1, f"not named: {call}"
        assert re.fullmatch(r"(KVM|VFIO|IOMMU)_\w+", call.names[0]), f"not named: {call}"
        assert call.meaning
    assert decoded.complaints == []
    return decoded


def test_every_call_of_a_qemu_start_under_us_is_named(tmp_path: Path) -> None:
    ours = [sys.executable, "-m", "kvmvfio_emu.cli.main", "run", "--"]
    virt = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", "256", *QUIET, "-S"]
    decoded = traced(tmp_path, [*ours, *virt, "-device", "vfio-calxeda-xgmac,host=fff51000.ethernet"])
    named = {name for _, name in decoded.named()}
    assert {"VFIO_GROUP_SET_CONTAINER", "VFIO_SET_IOMMU", "VFIO_IOMMU_MAP_DMA", "VFIO_DEVICE_SET_IRQS"} <= named


def test_every_call_of_a_qemu_start_on_the_real_kvm_is_named(tmp_path: Path) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm to use")
    decoded = traced(tmp_path, ["qemu-system-x86_64", "-accel", "kvm", "-M", "q35", "-m", "64", *QUIET, "-S"])
    kinds = {name: kind for kind, name in decoded.named()}
    assert kinds["KVM_CREATE_VCPU"] == "vm"
    assert kinds["KVM_SET_SREGS2" if "KVM_SET_SREGS2" in kinds else "KVM_SET_SREGS"] == "vcpu"
