"""Device models, by the name that a board description uses for them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from kvmvfio_emu.hw.boards import BoardError
from kvmvfio_emu.hw.devices.base import Device, DmaFault, Line

__all__ = ["MODELS", "Device", "DmaFault", "Line", "find_model"]

#: Model name in a board file -> class, or where to find it: a board loads only the models that it uses.
MODELS: dict[str, type[Device] | str] = {
    "none": Device,
    "composite": "kvmvfio_emu.hw.devices.composite:Composite",
    "edu": "kvmvfio_emu.hw.devices.edu:Edu",
    "pci-testdev": "kvmvfio_emu.hw.devices.pci_testdev:PciTestdev",
    "pl031": "kvmvfio_emu.hw.devices.pl031:Pl031",
    "pl061": "kvmvfio_emu.hw.devices.pl061:Pl061",
    "virtio-mmio": "kvmvfio_emu.hw.devices.virtio_mmio:VirtioMmio",
    "xgmac": "kvmvfio_emu.hw.devices.xgmac:Xgmac",
}


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
