"""`kvmvfio-emu ls` prints what `view.offered` finds."""

from __future__ import annotations

import json

import pytest

from kvmvfio_emu import profiles
from kvmvfio_emu.cli.main import main


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["ls", *arguments]) == 0
    return capsys.readouterr().out


def test_lists_a_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "--profile", "linux-6.1")
    for line in (
        "Ioctls of vm files",
        "  0x4020ae76  KVM_IRQFD",
        "Ioctls of vfio-device (platform) files",
        "   5  KVM_DEV_TYPE_ARM_VGIC_V2, on a host with a GICv2",
        "  KVM_DEV_VFIO_GROUP",
        "     1  KVM_DEV_VFIO_GROUP_ADD",
        "  not_container_errno = EINVAL",
    ):
        assert line in text.splitlines()
    assert "KVM_DEV_VFIO_DEVICE" not in text


def test_every_named_difference_is_told_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(out(capsys, "--profile", "linux-6.12", "differences").split())
    for difference in profiles.differences(profiles.Profile):
        since = f" ({difference.since})" if difference.since else ""
        assert f"{difference.name} = " in told
        assert " ".join((difference.what + since).split()) in told


def test_only_the_sections_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "capabilities")
    assert "KVM_CAP_IRQFD" in text
    assert "Ioctls" not in text
    assert "In what kernels differ" not in text


def test_diff_shows_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "--diff", "rfc-2014", "linux-6.1")
    assert "< KVM_DEV_TYPE_VFIO KVM_DEV_VFIO_DEVICE KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ = 1" in text
    assert "> KVM_DEV_TYPE_VFIO KVM_DEV_VFIO_DEVICE" not in text
    assert "> vm KVM_SET_GSI_ROUTING = 0x4008ae6a" in text
    text = out(capsys, "--diff", "linux-6.1", "linux-6.12")
    assert "< type1_nesting = true\n> type1_nesting = false\n" in text
    case = "vfio-group/set_container/group_itself"
    assert f"< {case} = -1 EINVAL\n> {case} = -1 EBADFD\n" in text


def test_diff_of_kernels_that_were_not_recorded_has_no_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\nanswers\n" not in out(capsys, "--diff", "rfc-2014", "linux-6.1")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    listing = json.loads(out(capsys, "--json", "--profile", "linux-6.12"))
    assert listing["profile"] == "linux-6.12"
    assert listing["ioctls"]["vm"]["KVM_IRQFD"] == "0x4020ae76"
    assert listing["differences"]["not_container_errno"]["value"] == "EBADFD"
    diff = json.loads(out(capsys, "--json", "--diff", "linux-6.1", "linux-6.12"))
    assert {"section": "differences", "item": "type1_nesting", "left": True, "right": False} in diff["changes"]


@pytest.mark.parametrize("arguments", [["--profile", "none"], ["--diff", "linux-6.1", "none"], ["nonsense"]])
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", *arguments]) == 2
    assert capsys.readouterr().err.startswith("kvmvfio-emu: no ")
