"""An emulated Linux KVM and VFIO kernel API: real ioctl numbers, structs and eventfds, no kernel module, no privileges.

`Kernel` is the way in for Python code; `kvmvfio_emu.uapi` has the numbers and structs; `kvmvfio_emu.guest` what a vCPU
executes.
"""

from __future__ import annotations

from kvmvfio_emu.doors.inprocess import Kernel
from kvmvfio_emu.engine.trace import Event
from kvmvfio_emu.kernel.errors import KvmVfioEmuError

__all__ = ["Event", "Kernel", "KvmVfioEmuError", "__version__"]

__version__ = "0.1.0"
