"""An emulated Linux KVM and VFIO kernel API: real ioctl numbers, structs and eventfds, no kernel module, no privileges.

`Kernel` is the way in for Python code; `kvmvfio_emu.uapi` has the numbers and structs; `kvmvfio_emu.guest` what a vCPU
executes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmvfio_emu.doors.inprocess import Kernel
    from kvmvfio_emu.engine.trace import Event
    from kvmvfio_emu.kernel.errors import KvmVfioEmuError

__all__ = ["Event", "Kernel", "KvmVfioEmuError", "__version__"]

__version__ = "0.1.0"

# Found when they are first asked for: whoever only wants the numbers of `uapi` does not load a kernel.
_HOMES = {
    "Event": "kvmvfio_emu.engine.trace",
    "Kernel": "kvmvfio_emu.doors.inprocess",
    "KvmVfioEmuError": "kvmvfio_emu.kernel.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
