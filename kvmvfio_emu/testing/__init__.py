"""A kit for tests of the contract: the pytest plugin, and a small VMM.

Nothing is loaded before it is asked for: the plugin is imported at every start of pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmvfio_emu.testing.vmm import GuestDriver, VfioDevice, Vm

__all__ = ["GuestDriver", "VfioDevice", "Vm"]

_HOMES = {
    "GuestDriver": "vmm",
    "VfioDevice": "vmm",
    "Vm": "vmm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
