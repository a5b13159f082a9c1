"""A board, powered on: its interrupt controller and its devices."""

from __future__ import annotations

from collections.abc import Mapping

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.hw.devices import MODELS, Device, Line
from kvmvfio_emu.hw.gic import Gic
from kvmvfio_emu.kernel.errors import KvmVfioEmuError


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
            if spec.model not in known:
                raise KvmVfioEmuError(f"device {spec.name}: no model {spec.model!r}; known: {', '.join(sorted(known))}")
            lines = tuple(
                Line(self.gic, trace, interrupt.hwirq, f"{spec.name}#{index}")
                for index, interrupt in enumerate(spec.interrupts)
            )
            self.devices[spec.name] = known[spec.model](spec, lines, clock)
