"""A request is named by its number and by the kind of file that got it."""

from __future__ import annotations

import pytest

from kvmvfio_emu import uapi


def test_same_number_is_told_apart_by_the_file() -> None:
    assert uapi.KVM_ARM_SET_DEVICE_ADDR == uapi.KVM_GET_ONE_REG
    assert uapi.ioctl_name(uapi.KVM_GET_ONE_REG, "vm") == "KVM_ARM_SET_DEVICE_ADDR"
    assert uapi.ioctl_name(uapi.KVM_GET_ONE_REG, "vcpu") == "KVM_GET_ONE_REG"
    assert uapi.ioctl_name(uapi.KVM_GET_ONE_REG) == "KVM_ARM_SET_DEVICE_ADDR|KVM_GET_ONE_REG"
    assert uapi.ioctl_name(0x3B71, "container") == "VFIO_IOMMU_MAP_DMA"
    assert uapi.ioctl_name(0x3B71, "vfio-device") == "VFIO_DEVICE_PCI_HOT_RESET"


def test_same_number_of_another_size_is_another_request() -> None:
    assert uapi.ioctl_name(0xC008AE67, "vm") == "KVM_IRQ_LINE_STATUS"
    assert uapi.ioctl_name(0x4010AE67, "vm") == "KVM_REGISTER_COALESCED_MMIO"


@pytest.mark.parametrize(
    ("number", "kind", "name"),
    [
        (uapi.KVM_RUN, "container", "_IO(0xAE, 0x80)"),
        (0x4008AEFE, "vm", "_IOW(0xAE, 0xFE, 8)"),
        (0x3BC7, None, "_IO(0x3B, 0xC7)"),
        (0xC0FFAEFE, None, "_IOWR(0xAE, 0xFE, 255)"),
        (-1, None, "-0x1"),
        (1 << 32, "vm", "0x100000000"),
    ],
)
def test_unknown_number_gives_its_parts(number: int, kind: str | None, name: str) -> None:
    assert uapi.ioctl_name(number, kind) == name


@pytest.mark.parametrize("row", uapi.IOCTLS.values(), ids=lambda row: row.name)
def test_table_agrees_with_the_number(row: uapi.Ioctl) -> None:
    assert row.number == getattr(uapi, row.name)
    assert row.direction in ("none", "in", "out", "inout")
    assert (row.direction == "none") == (row.struct is None)
    if row.name.startswith("KVM_"):
        assert row.number >> 16 & 0x3FFF == row.size


def test_every_ioctl_of_the_headers_is_in_the_table() -> None:
    """Less those that only a POWER IOMMU or a migration fd takes; the emulation has neither."""
    elsewhere = {name for name in uapi.constants.__all__ if "SPAPR" in name or "EEH" in name}
    elsewhere.add("VFIO_MIG_GET_PRECOPY_INFO")
    ioctls = {
        name
        for name in uapi.constants.__all__
        if getattr(uapi, name) >> 8 & 0xFF in (0xAE, 0x3B)
        and not name.startswith(("KVM_REG_", "KVM_PSCI", "PSCI"))
        and getattr(uapi, name) < 1 << 32
    }
    assert ioctls - elsewhere == {row.name for row in uapi.IOCTLS.values()}
    assert {kind for kind, _ in uapi.IOCTLS} == set(uapi.KINDS)
