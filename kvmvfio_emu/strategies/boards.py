"""Boards: machines that `Kernel` boots on, with devices whose names, groups and interrupts do not collide."""

from __future__ import annotations

from hypothesis import strategies as st

from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, RegionSpec

_PAGE = 0x1000
_BASE = 0x1000_0000


@st.composite
def boards(
    draw: st.DrawFn,
    *,
    min_devices: int = 1,
    max_devices: int = 4,
    max_cpus: int = 4,
    gic_version: int = 2,
    split_eoi: bool | None = None,
) -> Board:
    """A board of platform devices without registers of their own, each with up to three interrupts."""
    count = draw(st.integers(min_devices, max_devices))
    spis = draw(st.lists(st.integers(0, 200), min_size=3 * count, max_size=3 * count, unique=True))
    devices = []
    for number in range(count):
        lines = draw(st.integers(1, 3))
        levels = draw(st.lists(st.booleans(), min_size=lines, max_size=lines))
        own = spis[3 * number : 3 * number + lines]
        address = _BASE + number * 16 * _PAGE
        devices.append(
            DeviceSpec(
                f"{address:x}.device",
                "none",
                draw(st.integers(1, count)) if draw(st.booleans()) else number + 1,  # groups may be shared
                regions=(RegionSpec(address, _PAGE * draw(st.integers(1, 4))),),
                interrupts=tuple(InterruptSpec(spi, level) for spi, level in zip(own, levels, strict=True)),
            )
        )
    return Board(
        name="drawn",
        cpus=draw(st.integers(1, max_cpus)),
        gic_version=gic_version,
        list_registers=draw(st.integers(1, 4)),
        split_eoi=draw(st.booleans()) if split_eoi is None else split_eoi,
        devices=tuple(devices),
    )
