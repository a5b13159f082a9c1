"""A board, powered on: its interrupt controller and its devices."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices import MODELS, Device, Line
from kvmvfio_emu.hw.devices.pci import PciDevice
from kvmvfio_emu.hw.gic import Gic
from kvmvfio_emu.hw.pci import assign_bars


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
                    model = PciDevice
                if issubclass(model, PciDevice) != (spec.bus == "pci"):
                    raise BoardError(f"model {spec.model!r} is not for bus {spec.bus!r}")
            except BoardError as error:
                raise BoardError(f"board {board.name}: device {spec.name}: {error}") from error
            lines = tuple(
                Line(self.gic, trace, interrupt.hwirq, f"{spec.name}#{index}")
                for index, interrupt in enumerate(spec.interrupts)
            )
            self.devices[spec.name] = model(spec, lines, clock)
        assign_bars(device.function for device in self.devices.values() if isinstance(device, PciDevice))


def find_model(name: str, known: Mapping[str, type[Device] | str] = MODELS) -> type[Device]:
    """The device class called ``name``: a key of ``known``, or ``module:Class``, which is imported.

    Raises `BoardError`. Importing runs the module: a board file is as trusted as a program.
    """
    place = known.get(name, name)
    if not isinstance(place, str):
        return place
    module_name, colon, class_name = place.partition(":")
    if not colon:
        raise BoardError(f"no model {name!r}; known: {', '.join(sorted(known))}, or module:Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises
        raise BoardError(f"model {name!r}: cannot import {module_name!r}: {error}") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise BoardError(f"model {name!r}: module {module_name!r} has no {class_name!r}")
    if not (isinstance(found, type) and issubclass(found, Device)):
        raise BoardError(f"model {name!r}: not a subclass of kvmvfio_emu.hw.devices.Device")
    return found
