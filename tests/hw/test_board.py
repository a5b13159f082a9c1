"""Board files: the built-in one, what is refused and how it is named; and models found by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, IommuSpec, RegionSpec
from kvmvfio_emu.hw.boards import BoardError, load, names
from kvmvfio_emu.hw.devices import Device, find_model
from kvmvfio_emu.hw.devices.xgmac import Xgmac
from kvmvfio_emu.hw.machine import Machine
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

MINIMAL = 'name = "tiny"\n'
DEVICE = '[[devices]]\nname = "dev"\nmodel = "none"\ngroup = 0\n'


def parse(tmp_path: Path, text: str) -> Board:
    path = tmp_path / "board.toml"
    path.write_text(text)
    return load(path)


def power_on(board: Board) -> Machine:
    clock = Clock()
    return Machine(board, clock, Trace(clock))


# -- the built-in board -------------------------------------------------------------------------------------


def test_every_built_in_board_loads_under_its_own_name_and_powers_on() -> None:
    assert "calxeda-midway" in names()
    for name in names():
        board = load(name)
        assert board.name == name
        assert set(power_on(board).devices) == {device.name for device in board.devices}


def test_midway_is_the_real_machine() -> None:
    board = load("calxeda-midway")
    assert (board.cpus, board.gic_version, board.list_registers, board.split_eoi) == (4, 2, 4, True)
    assert board.iommu.page_sizes == (0x1000, 0x200000, 0x40000000)
    first, second = board.devices
    assert (first.name, first.group, first.regions) == (
        "fff50000.ethernet",
        4,
        (RegionSpec(0xFFF50000, 0x1000),),
    )
    assert (second.name, second.group, second.regions) == (
        "fff51000.ethernet",
        5,
        (RegionSpec(0xFFF51000, 0x1000),),
    )
    assert [interrupt.hwirq for interrupt in first.interrupts] == [109, 110, 111]
    assert [interrupt.spi for interrupt in second.interrupts] == [80, 81, 82]
    for device in board.devices:
        assert all(interrupt.level for interrupt in device.interrupts)
        assert device.compatible == ("calxeda,hb-xgmac",)
        assert (device.driver, device.bus, device.has_reset) == ("vfio-platform", "platform", True)
    assert all(isinstance(device, Xgmac) for device in power_on(board).devices.values())


# -- what a file may say ------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_dataclasses(tmp_path: Path) -> None:
    assert parse(tmp_path, MINIMAL) == Board("tiny")
    assert parse(tmp_path, MINIMAL + DEVICE).devices == (DeviceSpec("dev", "none", 0),)


def test_every_key_arrives(tmp_path: Path) -> None:
    board = parse(
        tmp_path,
        """
        name = "full"
        description = "all keys"
        cpus = 2
        gic_version = 3
        list_registers = 16
        split_eoi = false
        [iommu]
        page_sizes = [0x10000]
        coherent = false
        interrupt_remapping = false
        address_bits = 32
        [[devices]]
        name = "dev"
        model = "none"
        group = 7
        bus = "amba"
        driver = ""
        compatible = ["a,b", "c"]
        regions = [{ address = 0x1000, size = 0x20, writable = false, mappable = false }]
        interrupts = [{ spi = 987, level = false }]
        has_reset = true
        parameters = { speed = 10 }
        """,
    )
    assert board == Board(
        "full",
        "all keys",
        cpus=2,
        gic_version=3,
        list_registers=16,
        split_eoi=False,
        iommu=IommuSpec((0x10000,), False, False, 32),
        devices=(
            DeviceSpec(
                "dev",
                "none",
                7,
                "amba",
                "",
                ("a,b", "c"),
                (RegionSpec(0x1000, 0x20, False, False),),
                (InterruptSpec(987, False),),
                True,
                {"speed": 10},
            ),
        ),
    )


def test_neighbouring_windows_do_not_overlap(tmp_path: Path) -> None:
    text = MINIMAL + DEVICE + "regions = [{address = 0x1000, size = 0x1000}, {address = 0x2000, size = 4}]\n"
    assert len(parse(tmp_path, text).devices[0].regions) == 2


# -- what a file may not say --------------------------------------------------------------------------------

REGION = "regions = [{address = 0x1000, size = 0x1000}]\n"
SECOND = DEVICE.replace('"dev"', '"two"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name: missing"),
        ("name = ''", "name: is empty"),
        ("name = 3", "name: must be a string, is 3"),
        (MINIMAL + "colour = 'red'", "colour: unknown key"),
        (MINIMAL + "cpus = 0", "cpus: 0 is not in 1..8"),
        (MINIMAL + "cpus = 9", "cpus: 9 is not in 1..8"),
        (MINIMAL + "cpus = true", "cpus: must be an integer, is True"),
        (MINIMAL + "gic_version = 4", "gic_version: 4 is not in 2..3"),
        (MINIMAL + "gic_version = 3\nlist_registers = 17", "list_registers: 17 is not in 1..16"),
        (MINIMAL + "list_registers = 65", "list_registers: 65 is not in 1..64"),
        (MINIMAL + "split_eoi = 1", "split_eoi: must be true or false, is 1"),
        (MINIMAL + "iommu = 1", "iommu: must be a table, is 1"),
        (MINIMAL + "[iommu]\nsize = 1", "iommu: size: unknown key"),
        (MINIMAL + "[iommu]\npage_sizes = []", "iommu: page_sizes: must list at least one"),
        (MINIMAL + "[iommu]\npage_sizes = [0x1000, 0x1000]", "iommu: page_sizes: must list at least one"),
        (MINIMAL + "[iommu]\npage_sizes = [0x800]", "iommu: page_sizes: 0x800 is not a power of two"),
        (MINIMAL + "[iommu]\npage_sizes = [0x3000]", "iommu: page_sizes: 0x3000 is not a power of two"),
        (MINIMAL + "[iommu]\npage_sizes = ['4K']", "iommu: page_sizes: every item must be an integer"),
        (MINIMAL + "[iommu]\naddress_bits = 65", "iommu: address_bits: 65 is not in 32..64"),
        (MINIMAL + "devices = [1]", "devices: every item must be a table, is 1"),
        (MINIMAL + "[[devices]]\nmodel = 'none'", "devices[0]: name: missing"),
        (MINIMAL + "[[devices]]\nname = 'dev'\ngroup = 0", "device dev: model: missing"),
        (MINIMAL + "[[devices]]\nname = 'dev'\nmodel = 'none'", "device dev: group: missing"),
        (MINIMAL + DEVICE.replace("0", "-1"), "device dev: group: -1 is not in 0.."),
        (MINIMAL + DEVICE + "bus = 'isa'", "device dev: bus: 'isa' is none of platform, amba, pci"),
        (MINIMAL + DEVICE + "irq = 1", "device dev: irq: unknown key"),
        (MINIMAL + DEVICE + "compatible = 'a'", "device dev: compatible: must be an array, is 'a'"),
        (MINIMAL + DEVICE + "parameters = []", "device dev: parameters: must be a table, is []"),
        (MINIMAL + DEVICE + DEVICE, "device dev: name: another device has it already"),
        (MINIMAL + DEVICE + "regions = [{size = 4}]", "device dev: regions[0]: address: missing"),
        (MINIMAL + DEVICE + "regions = [{address = 0}]", "device dev: regions[0]: size: missing"),
        (MINIMAL + DEVICE + "regions = [{address = 0, size = 0}]", "regions[0]: size: 0 is not in 1.."),
        (
            MINIMAL + DEVICE + "regions = [{address = 2, size = 4}]",
            "regions[0]: address: 0x2 is not a multiple of 4",
        ),
        (
            MINIMAL + DEVICE + "regions = [{address = 0, size = 6}]",
            "regions[0]: size: 0x6 is not a multiple of 4",
        ),
        (
            MINIMAL + DEVICE + "regions = [{address = 0xfffffffffffffffc, size = 8}]",
            "regions[0]: size: 0xfffffffffffffffc..0x10000000000000003 ends beyond 64 bits",
        ),
        (
            MINIMAL + DEVICE + REGION + SECOND + REGION.replace("= 0x1000,", "= 0x1ffc,"),
            "device two: regions: 0x1ffc..0x2ffb overlaps 0x1000..0x1fff of dev",
        ),
        (
            MINIMAL + DEVICE + "regions = [{address = 8, size = 8}, {address = 0, size = 32}]",
            "device dev: regions: 0x0..0x1f overlaps 0x8..0xf of dev",
        ),
        (MINIMAL + DEVICE + "interrupts = [{level = true}]", "device dev: interrupts[0]: spi: missing"),
        (MINIMAL + DEVICE + "interrupts = [{spi = -1}]", "interrupts[0]: spi: -1 is not in 0..987"),
        (MINIMAL + DEVICE + "interrupts = [{spi = 988}]", "interrupts[0]: spi: 988 is not in 0..987"),
        (MINIMAL + DEVICE + "interrupts = [{spi = 1, edge = true}]", "interrupts[0]: edge: unknown key"),
        (
            MINIMAL + DEVICE + "interrupts = [{spi = 5}]\n" + SECOND + "interrupts = [{spi = 5}]",
            "device two: interrupts: SPI 5 is taken by dev",
        ),
        (
            MINIMAL + DEVICE + "interrupts = [{spi = 5}, {spi = 5}]",
            "device dev: interrupts: SPI 5 is taken by dev",
        ),
        ("name =", "not TOML"),
    ],
)
def test_a_mistake_is_named_by_file_device_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BoardError) as caught:
        parse(tmp_path, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "board.toml"))


def test_board_errors_are_errors_of_the_package() -> None:
    assert issubclass(BoardError, KvmVfioEmuError)


def test_a_name_that_no_board_has() -> None:
    with pytest.raises(BoardError, match=r"no board 'calxeda-noway'; known: .*calxeda-midway"):
        load("calxeda-noway")


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_file_that_is_not_there(tmp_path: Path, as_type: type) -> None:
    with pytest.raises(BoardError, match=r"none\.toml: No such file"):
        load(as_type(tmp_path / "none.toml"))


def test_a_path_needs_no_suffix_if_it_has_a_slash(tmp_path: Path) -> None:
    (tmp_path / "board").write_text(MINIMAL)
    assert load(f"{tmp_path}/board").name == "tiny"


# -- models -------------------------------------------------------------------------------------------------


class Blinker(Device):
    """A model of a user's own."""


def test_a_model_by_module_and_class() -> None:
    machine = power_on(Board("tiny", devices=(DeviceSpec("dev", f"{__name__}:Blinker", 0),)))
    assert type(machine.devices["dev"]) is Blinker


def test_a_model_given_to_the_machine() -> None:
    clock = Clock()
    board = Board("tiny", devices=(DeviceSpec("dev", "blinker", 0),))
    machine = Machine(board, clock, Trace(clock), {"blinker": Blinker})
    assert type(machine.devices["dev"]) is Blinker


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing", "no model 'nothing'; known: composite, edu, none, pci-testdev, pl031, "),
        ("no_such_module:Thing", "cannot import 'no_such_module'"),
        (":Thing", "cannot import ''"),
        (f"{__name__}:Thing", "has no 'Thing'"),
        (f"{__name__}:", "has no ''"),
        (f"{__name__}:MINIMAL", "not a subclass"),
        ("pathlib:Path", "not a subclass"),
    ],
)
def test_a_model_that_cannot_be_used(model: str, message: str) -> None:
    with pytest.raises(BoardError) as caught:
        power_on(Board("tiny", devices=(DeviceSpec("dev", model, 0),)))
    assert message in str(caught.value)
    assert str(caught.value).startswith("board tiny: device dev: ")


def test_a_module_that_fails_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_model.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BoardError, match="cannot import 'broken_model': division by zero"):
        find_model("broken_model:Thing")
    assert "broken_model" not in sys.modules
