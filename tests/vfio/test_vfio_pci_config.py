"""Configuration space of PCI devices as the user sees it: what is virtual, what is writable, what has effects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pci_bench import CONFIG, EDU, FULL, OLD, TWIN, TWIN2, PciBench
from vfio_bench import fails

COMMAND, STATUS, BAR0, ROM, LIST, LINE, PIN = 0x04, 0x06, 0x10, 0x30, 0x34, 0x3C, 0x3D
PM, MSI, HIDDEN, MSIX, VENDOR, EXPRESS = 0x40, 0x50, 0x70, 0x78, 0x90, 0xA0


@pytest.fixture
def bench() -> Iterator[PciBench]:
    bench = PciBench()
    yield bench
    bench.finish()


def test_the_header_is_the_devices(bench: PciBench) -> None:
    bench.use(EDU)
    assert bench.config(0) == 0x11E81234
    assert bench.config(8) == 0x00FF0010
    assert bench.config(0x2C) == 0x11001AF4
    assert bench.config(PIN, 1) == 1
    bench.close(bench.fd)
    bench.use(TWIN)
    assert bench.config(PIN, 1) == 0


def test_identification_and_status_cannot_be_written(bench: PciBench) -> None:
    bench.use(EDU)
    before = bench.pread(12, CONFIG)
    bench.pwrite(b"\xff" * 4, CONFIG)
    bench.pwrite(b"\xff" * 2, CONFIG + STATUS)
    bench.pwrite(b"\xff" * 4, CONFIG + 8)
    assert bench.pread(12, CONFIG) == before


def test_after_opening_memory_is_decoded_and_bus_mastering_is_off(bench: PciBench) -> None:
    bench.use(EDU)
    assert bench.config(COMMAND, 2) == 0x0002
    bench.set_config(COMMAND, 0x0006, 2)
    assert bench.config(COMMAND, 2) == bench.edu.function.command == 0x0006


@pytest.mark.parametrize(
    ("name", "bar", "mask"),
    [(EDU, 0, 0xFFF00000), (FULL, 0, 0xFFFFFF00), (FULL, 2, 0xFFFFFFE1), (FULL, 4, 0xFFE0000C), (EDU, 1, 0)],
)
def test_sizing_a_bar(bench: PciBench, name: str, bar: int, mask: int) -> None:
    bench.use(name)
    function = bench.card(name).function
    place = BAR0 + 4 * bar
    before = bench.config(place)
    assert before & mask & ~0xF == function.addresses.get(bar, 0) & 0xFFFFFFFF
    bench.set_config(place, 0xFFFFFFFF)
    assert bench.config(place) == mask
    bench.set_config(place, before)
    assert bench.config(place) == before
    assert function.read(place, 4) == before, "the real BAR is never touched"


def test_the_upper_half_of_a_64_bit_bar_is_sized_too(bench: PciBench) -> None:
    bench.use(FULL)
    bench.set_config(BAR0 + 20, 0xFFFFFFFF)
    assert bench.config(BAR0 + 20) == 0xFFFFFFFF


def test_a_bar_may_be_written_in_bytes(bench: PciBench) -> None:
    bench.use(EDU)
    for byte in range(4):
        bench.set_config(BAR0 + byte, 0x50 + byte, 1)
    assert bench.config(BAR0) == 0x53500000
    assert bench.pread(3, CONFIG + BAR0 + 1) == b"\x00\x50\x53"


def test_no_rom(bench: PciBench) -> None:
    bench.use(EDU)
    bench.set_config(ROM, 0xFFFFF800)
    assert bench.config(ROM) == 0


def test_the_interrupt_line_is_virtual(bench: PciBench) -> None:
    bench.use(EDU)
    bench.set_config(LINE, 0x2A, 1)
    assert bench.config(LINE, 1) == 0x2A
    assert bench.edu.function.read(LINE, 1) == 0
    bench.set_config(PIN, 4, 1)
    assert bench.config(PIN, 1) == 1


def test_an_access_of_any_size_and_alignment(bench: PciBench) -> None:
    bench.use(FULL)
    whole = bench.pread(256, CONFIG)
    for offset in (0, 1, 2, 3, 0x3D, 0x50, 0x51, 0x9E, 0xFF):
        for size in (1, 2, 3, 4, 5, 7, 8, 13):
            if offset + size <= 256:
                assert bench.pread(size, CONFIG + offset) == whole[offset : offset + size]


def test_beyond_the_end_is_efault_whole(bench: PciBench) -> None:
    bench.use(EDU)
    for offset, size in ((0x100, 1), (0xFF, 2), (0x1000, 4), (0, 257)):
        with fails("EFAULT"):
            bench.pread(size, CONFIG + offset)
        with fails("EFAULT"):
            bench.pwrite(bytes(size), CONFIG + offset)


def test_the_file_position_moves(bench: PciBench) -> None:
    file = bench.task.files[bench.use(EDU)]
    file.position = CONFIG
    assert file.read(4, None) == b"\x34\x12\xe8\x11"
    assert file.read(2, None) == b"\x02\x00"
    assert file.write(b"\x06\x00", None) == 2
    assert file.position == CONFIG + 8


# -- capabilities --------------------------------------------------------------------------------------------


def test_an_unknown_capability_is_hidden_from_the_list(bench: PciBench) -> None:
    bench.use(FULL)
    function = bench.card(FULL).function
    assert function.read(MSI + 1, 1) == HIDDEN
    found, at = {}, bench.config(LIST, 1)
    while at:
        found[at] = bench.config(at, 1)
        at = bench.config(at + 1, 1)
    assert found == {PM: 1, MSI: 5, MSIX: 0x11, VENDOR: 9, EXPRESS: 0x10}
    bench.pwrite(b"\0\0", CONFIG + MSI)
    assert bench.config(MSI, 2) == MSIX << 8 | 5


def test_without_any_capability_the_status_says_so(bench: PciBench) -> None:
    bench.use(OLD)
    assert bench.config(STATUS, 2) == 0
    assert bench.config(LIST, 1) == 0


def test_what_no_capability_claims_goes_through(bench: PciBench) -> None:
    bench.use(FULL)
    function = bench.card(FULL).function
    function._writable[0x4C] = 0xFF
    bench.set_config(0x4C, 0x5A, 1)
    assert function.read(0x4C, 1) == bench.config(0x4C, 1) == 0x5A


def test_vendor_specific_data_go_through(bench: PciBench) -> None:
    bench.use(FULL)
    assert bench.pread(5, CONFIG + VENDOR + 3) == b"hello"
    bench.pwrite(b"JJ", CONFIG + VENDOR + 3)
    assert bench.pread(5, CONFIG + VENDOR + 3) == b"Jello"


def test_msi_is_virtual_and_cannot_be_enabled_by_hand(bench: PciBench) -> None:
    bench.use(FULL)
    function = bench.card(FULL).function
    bench.set_config(MSI + 4, 0xFEE00000)
    bench.set_config(MSI + 12, 0x4321, 2)
    assert (bench.config(MSI + 4), bench.config(MSI + 12, 2)) == (0xFEE00000, 0x4321)
    assert function.read(MSI + 4, 4) == 0
    bench.set_config(MSI + 2, 0x21, 2)
    assert bench.config(MSI + 2, 1) & 0x71 == 0, "not enabled by SET_IRQS, no vectors"
    assert not function.messages.msi_enabled


def test_the_users_msi_enable_reaches_the_device_once_vectors_are_allocated(bench: PciBench) -> None:
    bench.use(FULL)
    bench.set_config(COMMAND, 6, 2)
    function = bench.card(FULL).function
    bench.triggers(1, bench.eventfd(), bench.eventfd())
    assert function.messages.msi_enabled
    assert bench.config(MSI + 2, 1) & 1 == 0, "what the user sees is what the user wrote"
    bench.set_config(MSI + 2, 0x31, 2)
    assert bench.config(MSI + 2, 1) & 0x71 == 0x11, "2 vectors at most"
    bench.set_config(MSI + 2, 0x10, 2)
    assert not function.messages.msi_enabled


def test_msix_control_is_the_devices_and_read_only(bench: PciBench) -> None:
    bench.use(FULL)
    bench.set_config(MSIX + 2, 0xC000, 2)
    assert bench.config(MSIX + 2, 2) == 4
    bench.triggers(2, bench.eventfd())
    assert bench.config(MSIX + 2, 2) == 0x8004


def test_power_states_stop_the_bars(bench: PciBench) -> None:
    bench.use(FULL)
    card = bench.card(FULL)
    bench.set_config(PM + 4, 3, 2)
    assert card.function.power_state == bench.config(PM + 4, 1) & 3 == 3
    assert bench.pread(4, 0) == b"\xff" * 4
    bench.set_config(PM + 4, 0, 2)
    assert bench.pread(4, 0) == bytes(4)


def test_closing_in_d3_wakes_the_device(bench: PciBench) -> None:
    bench.use(TWIN2)
    bench.set_config(PM + 4, 3, 2)
    bench.close(bench.fd)
    assert bench.card(TWIN2).function.power_state == 0


def test_a_function_level_reset_by_the_user_keeps_the_configuration(bench: PciBench) -> None:
    bench.use(FULL)
    card = bench.card(FULL)
    bench.set_config(COMMAND, 6, 2)
    card.memory[0][0] = 1
    resets = card.resets
    bars = bench.pread(24, CONFIG + BAR0)
    bench.set_config(EXPRESS + 8, 0x8000, 2)
    assert card.resets == resets + 1
    assert bench.config(EXPRESS + 8, 2) & 0x8000 == 0
    assert bench.config(COMMAND, 2) == 6
    assert bench.pread(24, CONFIG + BAR0) == bars
    assert card.function.decodes(0)


def test_bars_come_back_after_a_reset_behind_the_kernels_back(bench: PciBench) -> None:
    bench.use(FULL)
    function = bench.card(FULL).function
    before = function.read(BAR0 + 4, 4)
    function.reset()
    assert function.read(BAR0 + 4, 4) == 0
    bench.set_config(COMMAND, 7, 2)
    assert function.read(BAR0 + 4, 4) == before


def test_extended_space_is_read_only(bench: PciBench) -> None:
    bench.use(FULL)
    bench.set_config(0x100, 0xFFFFFFFF)
    assert bench.config(0x100) == 0


def test_the_last_close_restores_the_configuration(bench: PciBench) -> None:
    bench.use(EDU)
    bench.set_config(COMMAND, 0x0406, 2)
    bench.set_config(0x0C, 0x10, 1)
    bench.close(bench.fd)
    assert bench.edu.function.command == 0
    assert bench.edu.function.read(0x0C, 1) == 0
    bench.close(bench.group_fd, bench.container_fd)
    bench.use(EDU)
    assert bench.config(COMMAND, 2) == 2, "a new opening starts afresh"
