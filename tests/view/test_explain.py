"""`kvmvfio-emu explain`: a refusal of a trace, and refusals in general; the catalogue tells only what is there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli.main import main
from kvmvfio_emu.view import catalogue, explain
from kvmvfio_emu.view.clauses import source
from kvmvfio_emu.view.jsonl import JsonlSink
from kvmvfio_emu.view.record import Recorder, header
from kvmvfio_emu.view.requests import by_name


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.removeprefix("kvmvfio-emu: ").rstrip("\n")


# ---- in general --------------------------------------------------------------------------------------------------


def test_an_ioctl_and_its_errno(capsys: pytest.CaptureFixture[str]) -> None:
    said = explained(capsys, "KVM_IRQFD", "EBUSY")
    assert "KVM_IRQFD on a vm file" in said
    assert "EBUSY  " + os.strerror(errno.EBUSY) in said
    assert "the eventfd has an irqfd already" in said  # the clause
    assert "kvmvfio_emu/kernel/kvm/irqfd.py" in said  # where it is
    assert "virt/kvm/eventfd.c" in said  # what it models
    assert "DEASSIGN with the same fd and gsi first" in said  # what to do
    assert "EINVAL" not in said


@pytest.mark.parametrize("word", ["EBUSY", "ebusy", str(errno.EBUSY)])
def test_an_errno_by_name_and_number(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(capsys, "kvm_irqfd", word) == explained(capsys, "KVM_IRQFD", "EBUSY")


@pytest.mark.parametrize("word", ["EOPNOTSUPP", "ENOTSUP", str(errno.EOPNOTSUPP)])
def test_an_errno_with_two_names(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "EOPNOTSUPP  " in explained(capsys, "IOMMU_OPTION", word)
    assert source().matching("ENOTSUP", "a reserved field is set")


def test_all_errnos_of_an_ioctl_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = json.loads(explained(capsys, "KVM_RUN", "--json"))
    assert {"EINTR", "ENOEXEC", "ENXIO", "EINVAL"} <= set(entry["errors"])
    (clause,) = entry["errors"]["ENOEXEC"]["clauses"]
    assert clause["function"] == "VcpuFile._require_init"


def test_a_request_of_several_kinds_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    said = explained(capsys, "VFIO_SET_IOMMU", "EINVAL")
    assert "on a container file" in said
    assert "on a iommufd file" in said
    assert "on a iommufd file" not in explained(capsys, "VFIO_SET_IOMMU", "EINVAL", "--kind", "container")


def test_an_attribute_and_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    said = explained(capsys, "KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ", "EBUSY")
    assert said.startswith("KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ of KVM_DEV_TYPE_VFIO")
    assert "another virtual machine has it forwarded" in said
    group = explained(capsys, "KVM_DEV_ARM_VGIC_GRP_ADDR", "EEXIST")
    assert {line.split()[-1] for line in group.splitlines() if line.startswith("KVM_DEV_ARM")} == {
        "KVM_DEV_TYPE_ARM_VGIC_V2",
        "KVM_DEV_TYPE_ARM_VGIC_V3",
        "KVM_DEV_TYPE_ARM_VGIC_ITS",
    }


def test_setting_attributes_in_general_is_about_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    said = explained(capsys, "KVM_SET_DEVICE_ATTR", "EEXIST", "--kind", "device")
    assert "KVM_DEV_VFIO_GROUP of KVM_DEV_TYPE_VFIO" in said
    assert "KVM_DEV_ARM_VGIC_GRP_ADDR of KVM_DEV_TYPE_ARM_VGIC_V2" in said


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["KVM_IRQFX"], "no request or attribute is called 'KVM_IRQFX'; perhaps KVM_IRQFD"),
        (["KVM_IRQFD", "EBUSSY"], "no errno is called 'EBUSSY'; perhaps EBUSY"),
        (["KVM_IRQFD", "ENOSPC"], "KVM_IRQFD is not refused with ENOSPC here, but with EAGAIN, EBADF, EBUSY"),
        (["KVM_GET_SREGS"], "KVM_GET_SREGS is not answered here"),
        (["KVM_IRQFD", "--kind", "vcpu"], "KVM_IRQFD is not answered on a vcpu file here"),
    ],
)
def test_what_cannot_be_explained(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *words).startswith(answer)


def test_a_name_and_a_trace_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "KVM_IRQFD", "EBUSY", "--n", "3"])
    assert "--n, --last-error and --run are for a trace" in capsys.readouterr().err


# ---- the catalogue -----------------------------------------------------------------------------------------------


def test_a_docstrings_errnos_have_their_clauses() -> None:
    said = list(catalogue.phrases("Tie it. EBADF, EINVAL not an eventfd, EBUSY tied, or (later) so; ENXIO none.\nEIO."))
    assert said == [
        ("EBADF", ""),
        ("EINVAL", "not an eventfd"),
        ("EBUSY", "tied, or (later) so"),
        ("ENXIO", "none"),
        ("EIO", ""),
    ]
    assert list(catalogue.phrases("12. A non-zero argument is EINVAL.")) == [
        ("EINVAL", "A non-zero argument is EINVAL")
    ]


@pytest.mark.parametrize(
    ("request_name", "reasons"),
    [
        ("KVM_CREATE_VCPU", {"vCPU ... exists", "the VGIC is initialised for the vCPUs there are"}),
        ("KVM_CREATE_DEVICE", {"no device type ...", "the virtual machine has a KVM-VFIO device"}),
        ("KVM_IRQFD", {"the VGIC is not initialised", "descriptor ... is not an eventfd"}),
        ("VFIO_GROUP_UNSET_CONTAINER", {"... is in no container", "... users besides the group's own file"}),
        ("VFIO_IOMMU_MAP_DMA", {"overlaps the mapping at ...", "the range wraps"}),
        ("VFIO_DEVICE_SET_IRQS", {"the data must be of one type"}),
        ("KVM_SET_DEVICE_ATTR", {"gsi ... is that of another forwarded interrupt", "the frame has an address"}),
    ],
)
def test_clauses_are_found_through_all_that_a_handler_calls(request_name: str, reasons: set[str]) -> None:
    found = {
        clause.reason for one in catalogue.handled() if one.name == request_name for clause in catalogue.clauses(one)
    }
    assert reasons <= found


def test_clauses_of_others_are_not() -> None:
    (irqfd,) = (one for one in catalogue.handled() if one.name == "KVM_IRQFD")
    found = catalogue.clauses(irqfd)
    assert {clause.module.rpartition(".")[0] for clause in found} <= {
        "kvmvfio_emu.kernel",
        "kvmvfio_emu.kernel.kvm",
        "kvmvfio_emu.kernel.kvm.arch",
        "kvmvfio_emu.doors",
        "kvmvfio_emu.doors.supervisor",
    }
    assert len(found) < 12


def test_every_clause_matches_its_own_words() -> None:
    for clause in source().clauses:
        filled = clause.reason.replace("...", "7")
        if clause.reason.replace("...", ""):
            assert any(clause.reason == other.reason for other in source().matching(clause.errno, filled)), clause


COMPLETE = [
    "KVM_IRQFD",
    "KVM_CREATE_DEVICE",
    "KVM_RUN",
    "VFIO_GROUP_GET_STATUS",
    "VFIO_GROUP_SET_CONTAINER",
    "VFIO_GROUP_UNSET_CONTAINER",
    "VFIO_GROUP_GET_DEVICE_FD",
    "VFIO_SET_IOMMU",
    "VFIO_IOMMU_MAP_DMA",
    "VFIO_DEVICE_SET_IRQS",
]


@pytest.mark.parametrize("name", COMPLETE)
def test_there_is_advice_for_every_errno(name: str) -> None:
    for entry in explain.in_general(name):
        for code in entry["errors"]:
            found = explain.advice(code, name)
            assert found is not None, f"{name} {code}"
            assert found["cause"]
            assert found["do"]


@pytest.mark.parametrize("group", ["KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_DEV_VFIO_GROUP", "KVM_DEV_VFIO_DEVICE"])
def test_there_is_advice_for_every_errno_of_an_attribute(group: str) -> None:
    for entry in explain.in_general(group):
        for code in entry["errors"]:
            assert code in explain._advice()[group], f"{group} {code}"


def test_advice_is_for_what_exists() -> None:
    groups = {one.row.group for one in catalogue.attributes()}
    for subject, errors in explain._advice().items():
        assert subject == "any" or by_name(subject) or subject in groups, subject
        for code, advice in errors.items():
            assert hasattr(errno, code), code
            assert set(advice) == {"cause", "do"}


# ---- a trace -----------------------------------------------------------------------------------------------------


class Traced:
    """A kernel whose calls are recorded, as --trace does it."""

    def __init__(self, path: Path, runs: int = 1) -> None:
        self.path = path
        self.sink = JsonlSink(path.open("w", encoding="utf-8"))
        for number in range(1, runs + 1):
            self._run(number)
        self.sink.close()

    def _run(self, number: int) -> None:
        with Kernel() as kernel:
            self.sink.begin(header(kernel.host, "forwarded" if number == 2 else None))
            kernel.listen(Recorder(kernel.host, self.sink.record))
            vm = kernel.ioctl(kernel.open("/dev/kvm"), uapi.KVM_CREATE_VM)
            eventfd = os.eventfd(0)
            kernel.ioctl(vm, uapi.KVM_IRQFD, uapi.pack("struct kvm_irqfd", fd=eventfd, gsi=80))
            again = uapi.pack("struct kvm_irqfd", fd=eventfd, gsi=80 + number)
            with pytest.raises(OSError, match="busy"):
                kernel.ioctl(vm, uapi.KVM_IRQFD, again)
            os.close(eventfd)
            kernel.ioctl(vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD)


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    return Traced(tmp_path / "trace.jsonl", runs=2)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_last_refusal_of_a_trace(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    said = explained(capsys, str(traced.path))
    assert said.startswith("KVM_IRQFD fails with EBUSY\n")
    assert "run 2 (rfc-2014, forwarded)" in said
    assert "gsi=82" in said
    assert "Why: the eventfd has an irqfd already" in said
    assert "kvmvfio_emu/kernel/kvm/irqfd.py:" in said
    assert "virt/kvm/eventfd.c" in said
    before = said[said.index("Before it:") : said.index("Cause:")]
    assert "KVM_IRQFD" in before  # the call that took the eventfd
    assert "gsi=80" in before
    assert "Do:    DEASSIGN" in said
    assert explained(capsys, "--last-error", str(traced.path)) == said


def test_a_refusal_by_its_number_and_run(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    returned = next(record for record in records(traced.path) if "errno" in record.get("f", {}))
    by_return = json.loads(explained(capsys, str(traced.path), "--n", str(returned["n"]), "--json"))
    by_call = json.loads(explained(capsys, str(traced.path), "--n", str(returned["cause"]), "--run", "1", "--json"))
    assert by_return == by_call
    assert (by_call["run"], by_call["in"]["gsi"], by_call["n"]) == (1, 81, returned["cause"])


def test_state_that_was_recorded_is_shown(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    lines = records(traced.path)
    call = next(line for line in lines if line.get("f", {}).get("in", {}).get("gsi") == 80)
    call["s"] = {"vgic.0.114.level": True, "vgic.0.999.level": False}  # 114 is gsi 82
    for line in lines:
        if line.get("f", {}).get("in", {}).get("gsi") == 82:
            line["s"] = {"vgic.0.114.pending": True}
    second = lines.index(next(line for line in lines if line.get("mode") == "forwarded"))
    for line in lines[second:]:
        if line.get("f", {}).get("in", {}).get("gsi") == 80:
            line["s"] = call["s"]
    traced.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = json.loads(explained(capsys, str(traced.path), "--json"))["state"]
    assert state == {"vgic.0.114.level": True, "vgic.0.114.pending": True}


def test_an_injected_error_is_not_the_kernels(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    lines = records(traced.path)
    for line in lines:
        if "errno" in line.get("f", {}):
            line["f"]["injected"] = "error"
    traced.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "It was injected (error)" in explained(capsys, str(traced.path))


def test_calls_that_were_not_refused(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    fine = next(r for r in records(traced.path) if r.get("name") == "ioctl_return" and "errno" not in r["f"])
    place = str(traced.path)
    assert "was not refused: " in refused(capsys, place, "--n", str(fine["n"]))
    assert refused(capsys, place, "--n", "9999") == f"{place}: no call 9999 that returned in 2 runs"
    assert refused(capsys, place, "--run", "3") == f"{place}: no call was refused in run 3 of 2 runs"


def test_an_event_that_is_no_call(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"n": 900, "t": 9, "name": "host_irq", "actor": "host irq", "f": {"irq": 112}}
    lines = [*records(traced.path), other]
    traced.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = refused(capsys, str(traced.path), "--n", "900")
    assert said == f"{traced.path}: event 900 of run 2 is host_irq, no call"


def test_a_trace_that_is_cut_or_foreign_is_told_with_its_place(
    traced: Traced, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = traced.path.read_text().splitlines()
    traced.path.write_text("\n".join(lines[:4]) + '\n{"n": 4, "t"')
    assert refused(capsys, str(traced.path)).startswith(f"{traced.path}:5: ")
    traced.path.write_text("hello\n")
    assert refused(capsys, str(traced.path)).startswith(f"{traced.path}:1: ")
    missing = str(traced.path) + "x"
    assert refused(capsys, missing) == f"{missing}: {os.strerror(errno.ENOENT)}"
