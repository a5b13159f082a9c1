"""Device models, by the name that a board description uses for them."""

from __future__ import annotations

from kvmvfio_emu.hw.devices.base import Device, DmaFault, Line

__all__ = ["MODELS", "Device", "DmaFault", "Line"]

#: Model name in a board file -> class, or where to find it: a board loads only the models that it uses.
MODELS: dict[str, type[Device] | str] = {
    "none": Device,
    "edu": "kvmvfio_emu.hw.devices.edu:Edu",
    "xgmac": "kvmvfio_emu.hw.devices.xgmac:Xgmac",
}
