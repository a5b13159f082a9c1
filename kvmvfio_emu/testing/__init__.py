"""A kit for tests of the contract: the pytest plugin, a small VMM, a state machine over orders of steps.

Nothing is loaded before it is asked for: the plugin is imported at every start of pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmvfio_emu.testing.machine import AFTER, ROUTES, Life, step
    from kvmvfio_emu.testing.safeguards import Safeguards
    from kvmvfio_emu.testing.vmm import GuestDriver, VfioDevice, Vm

__all__ = ["AFTER", "ROUTES", "GuestDriver", "Life", "Safeguards", "VfioDevice", "Vm", "step"]

_HOMES = {
    "AFTER": "machine",
    "GuestDriver": "vmm",
    "Life": "machine",
    "ROUTES": "machine",
    "Safeguards": "safeguards",
    "VfioDevice": "vmm",
    "Vm": "vmm",
    "step": "machine",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
