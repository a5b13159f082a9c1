"""A board, powered on: its interrupt controller and its devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices import MODELS, Device, Line, find_model
from kvmvfio_emu.hw.gic import Gic

if TYPE_CHECKING:
    from kvmvfio_emu.hw.devices.pci import PciDevice


class Machine:
    """The hardware of one emulated host. ``models`` adds device classes of a user's own."""

    def __init__(
        self, board: Board, clock: Clock, trace: Trace, models: Mapping[str, type[Device]] | None = None
    ) -> None:
        self.board = board
        self.gic = Gic(board.cpus)
        self.devices: dict[str, Device] = {}
        known = {**MODELS, **(models or {})}
        for spec in board.devices:
            try:
                model = find_model(spec.model, known)
                if spec.bus == "pci" and model is Device:  # "none": a function without behaviour, but with a header
                    model = find_model("kvmvfio_emu.hw.devices.pci:PciDevice")
                if model.on_pci != (spec.bus == "pci"):
                    raise BoardError(f"model {spec.model!r} is not for bus {spec.bus!r}")
            except BoardError as error:
                raise BoardError(f"board {board.name}: device {spec.name}: {error}") from error
            lines = tuple(
                Line(self.gic, trace, interrupt.hwirq, f"{spec.name}#{index}")
                for index, interrupt in enumerate(spec.interrupts)
            )
            self.devices[spec.name] = model(spec, lines, clock)
        functions = [cast("PciDevice", device).function for device in self.devices.values() if device.on_pci]
        if functions:
            from kvmvfio_emu.hw.pci import assign_bars  # here: most boards have no PCI, and start faster without it

            assign_bars(functions)
