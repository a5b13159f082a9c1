"""Numbers that are not the same on all architectures, for a probe that was built for another one than the kernel's.

The probe built for x86-64 asks an emulated arm64 kernel. Descriptors are the host's own, so a few numbers in its
answers are those of x86-64, while arm64 has others for the same meaning. They are translated; nothing is left out.
"""

from __future__ import annotations

from typing import Any

#: Flags of open(2) that differ (asm/fcntl.h), as F_GETFL returns them.
OPEN_FLAGS: dict[str, dict[str, int]] = {
    "O_DIRECT": {"x86_64": 0o40000, "aarch64": 0o200000},
    "O_LARGEFILE": {"x86_64": 0o100000, "aarch64": 0o400000},
    "O_DIRECTORY": {"x86_64": 0o200000, "aarch64": 0o40000},
    "O_NOFOLLOW": {"x86_64": 0o400000, "aarch64": 0o100000},
}
#: Fields of an answer whose value is made of such flags.
FLAG_FIELDS: dict[str, dict[str, dict[str, int]]] = {"fl": OPEN_FLAGS}


def translate(out: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    """``out`` as a program built for ``target`` would have printed it; unchanged for architectures not known here."""
    if source == target:
        return out
    return {
        name: _translate_flags(value, FLAG_FIELDS[name], source, target) if name in FLAG_FIELDS else value
        for name, value in out.items()
    }


def _translate_flags(value: int, flags: dict[str, dict[str, int]], source: str, target: str) -> int:
    known = [numbers for numbers in flags.values() if source in numbers and target in numbers]
    kept = value & ~sum(numbers[source] for numbers in known)
    return kept | sum(numbers[target] for numbers in known if value & numbers[source])
