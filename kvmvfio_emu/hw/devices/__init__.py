"""Device models, by the name that a board description uses for them."""

from __future__ import annotations

from kvmvfio_emu.hw.devices.base import Device, DmaFault, Line
from kvmvfio_emu.hw.devices.xgmac import Xgmac

__all__ = ["MODELS", "Device", "DmaFault", "Line"]

#: model name in a board file -> class
MODELS: dict[str, type[Device]] = {"none": Device, "xgmac": Xgmac}
