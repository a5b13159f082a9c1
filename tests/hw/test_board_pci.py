"""PCI functions in board files: what arrives, what is refused and how it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmvfio_emu.hw.board import BarSpec, DeviceSpec, InterruptSpec, MsixSpec, PciSpec
from kvmvfio_emu.hw.boards import BoardError, load

HEAD = 'name = "tiny"\n[[devices]]\nmodel = "none"\ngroup = 0\nbus = "pci"\n'
NAME = 'name = "0000:00:01.0"\n'


def parse(tmp_path: Path, text: str, head: str = HEAD) -> DeviceSpec:
    path = tmp_path / "board.toml"
    path.write_text(head + text)
    return load(path).devices[0]


def test_a_function_needs_nothing_but_a_name(tmp_path: Path) -> None:
    assert parse(tmp_path, NAME) == DeviceSpec("0000:00:01.0", "none", 0, bus="pci", driver="vfio-pci")


def test_every_key_arrives(tmp_path: Path) -> None:
    text = """
interrupts = [{ spi = 4 }]
[devices.pci]
vendor = 0x8086
device = 0x10d3
subsystem_vendor = 1
subsystem = 0
class_code = 0x020000
revision = 0xff
bars = [
    { index = 0, size = 0x4000 },
    { index = 2, size = 0x20, kind = "io" },
    { index = 4, size = 0x200000, kind = "mem64", prefetchable = true },
]
msi = 8
msix = { vectors = 5, bar = 0, table = 0x1000, pba = 0x2000 }
express = true
power_management = true
"""
    device = parse(tmp_path, NAME + text)
    assert device.interrupts == (InterruptSpec(4),)
    assert device.pci == PciSpec(
        0x8086,
        0x10D3,
        1,
        0,
        0x020000,
        0xFF,
        (BarSpec(0, 0x4000), BarSpec(2, 0x20, "io"), BarSpec(4, 0x200000, "mem64", True)),
        8,
        MsixSpec(5, 0, 0x1000, 0x2000),
        True,
        True,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "edu"', "name: 'edu' is not a PCI function's"),
        ('name = "0000:00:20.0"', "is not a PCI function's"),
        ('name = "0000:00:01.8"', "is not a PCI function's"),
        (NAME + "regions = [{ address = 0, size = 0x1000 }]", "regions: a PCI function has BARs"),
        (NAME + "interrupts = [{ spi = 1 }, { spi = 2 }]", "interrupts: a PCI function has one pin"),
        (NAME + "interrupts = [{ spi = 1, level = false }]", "interrupts: a PCI function has one pin"),
        (NAME + 'driver = "vfio-platform"', "driver: vfio-platform does not bind to bus pci"),
        (NAME + "pci = { vendor = 0x10000 }", "pci: vendor: 65536 is not in"),
        (NAME + "pci = { vendro = 1 }", "pci: vendro: unknown key"),
        (NAME + "pci = { msi = 3 }", "pci: msi: 3 vectors"),
        (NAME + "pci = { msi = 64 }", "pci: msi: 64 is not in"),
        (NAME + "pci = { bars = [{ index = 6, size = 16 }] }", "bars[0]: index: 6 is not in"),
        (NAME + "pci = { bars = [{ index = 0, size = 0x1001 }] }", "bars[0]: size: 0x1001 is not a power of two"),
        (NAME + "pci = { bars = [{ index = 0, size = 8 }] }", "bars[0]: size: 0x8 is not a power of two"),
        (NAME + 'pci = { bars = [{ index = 0, size = 16, kind = "rom" }] }', "bars[0]: kind: 'rom' is none of"),
        (NAME + "pci = { bars = [{ index = 0, size = 16, address = 0 }] }", "bars[0]: address: unknown key"),
        (NAME + "pci = { bars = [{ index = 1, size = 16 }, { index = 1, size = 16 }] }", "BAR 1 is given twice"),
        (
            NAME + 'pci = { bars = [{ index = 0, size = 16, kind = "mem64" }, { index = 1, size = 16 }] }',
            "BAR 1 is given twice",
        ),
        (NAME + 'pci = { bars = [{ index = 5, size = 16, kind = "mem64" }] }', "has no room for 64 bits"),
        (NAME + "pci = { msix = { vectors = 1, bar = 0 } }", "msix: needs 0x808 bytes of a memory BAR 0"),
        (NAME + "pci = { msix = { bar = 0 } }", "msix: vectors: missing"),
        (NAME + "pci = { msix = { vectors = 1, bar = 0, table = 4 } }", "msix: table: 0x4 is not a multiple of 8"),
        (
            NAME + "pci = { bars = [{ index = 0, size = 0x1000 }], msix = { vectors = 256, bar = 0, table = 8 } }",
            "msix: needs 0x1008 bytes",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BoardError) as caught:
        parse(tmp_path, text + "\n")
    assert message in str(caught.value)


def test_only_pci_functions_have_a_pci_table_and_vfio_pci(tmp_path: Path) -> None:
    head = HEAD.replace('bus = "pci"\n', "")
    with pytest.raises(BoardError, match="pci: unknown key"):
        parse(tmp_path, 'name = "dev"\npci = { vendor = 1 }\n', head)
    with pytest.raises(BoardError, match="vfio-pci does not bind to bus platform"):
        parse(tmp_path, 'name = "dev"\ndriver = "vfio-pci"\n', head)
