"""Hypothesis strategies for the contract, read from the declarations of ioctls and attributes.

Every strategy of arguments takes ``how``: "valid", "nearly" (valid but for one thing), "wild", or "any" of them.
"""

from kvmvfio_emu.strategies.arguments import attribute_calls, declared, ioctl_calls, payloads, structs
from kvmvfio_emu.strategies.boards import boards
from kvmvfio_emu.strategies.fields import HOWS, How
from kvmvfio_emu.strategies.guests import guest_programs
from kvmvfio_emu.strategies.sequences import beginning, calls, sequences
from kvmvfio_emu.strategies.setting import Setting

__all__ = [
    "HOWS",
    "How",
    "Setting",
    "attribute_calls",
    "beginning",
    "boards",
    "calls",
    "declared",
    "guest_programs",
    "ioctl_calls",
    "payloads",
    "sequences",
    "structs",
]
