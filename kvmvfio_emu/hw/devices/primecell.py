"""The identification registers that every Arm PrimeCell has in the last 32 bytes of its page."""

from __future__ import annotations

from kvmvfio_emu.hw.registers import Action, Register

_PERIPHERAL, _CELL = 0xFE0, 0xFF0
_CELL_BYTES = (0x0D, 0xF0, 0x05, 0xB1)


def identification(part: int, revision: int, configuration: int = 0) -> tuple[Register, ...]:
    """PERIPHID0 to 3 and PCELLID0 to 3 of ``part`` (12 bits), designed by Arm."""
    designer = 0x41
    value = part | designer << 12 | revision << 20 | configuration << 24
    bytes_ = [value >> 8 * index & 0xFF for index in range(4)]
    return (
        *(Register(_PERIPHERAL + 4 * n, Action.RO, reset=byte, name=f"PERIPHID{n}") for n, byte in enumerate(bytes_)),
        *(Register(_CELL + 4 * n, Action.RO, reset=byte, name=f"PCELLID{n}") for n, byte in enumerate(_CELL_BYTES)),
    )
