"""Which kernel answers: capabilities and known differences, as data. Nothing else asks for a kernel's version."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.profiles.condition import holds
from kvmvfio_emu.profiles.difference import Difference, differences
from kvmvfio_emu.profiles.kvm import KvmDifferences
from kvmvfio_emu.profiles.pci import PciDifferences
from kvmvfio_emu.profiles.vfio import VfioDifferences
from kvmvfio_emu.profiles.vgic import VgicDifferences

__all__ = ["DEFAULT", "Difference", "Profile", "differences", "load", "names"]

DEFAULT = "rfc-2014"
_HERE = os.path.dirname(__file__)


@dataclass(frozen=True, kw_only=True)
class Profile(KvmDifferences, VgicDifferences, VfioDifferences, PciDifferences):
    """One kernel. Each inherited field is one thing in which kernels differ, and says what its value means."""

    name: str
    summary: str
    #: "arm64", "arm" (32-bit) or "x86_64".
    arch: str = "arm64"
    #: The board that goes with it where nobody chooses one; "" for the default one.
    machine: str = ""
    #: KVM_CHECK_EXTENSION: capability name -> answer; what is not listed answers 0.
    capabilities: dict[str, int] = field(default_factory=dict)

    def capability(self, name: str) -> int:
        """The answer to KVM_CHECK_EXTENSION for ``name`` (a KVM_CAP_* constant's name)."""
        return self.capabilities.get(name, 0)

    @property
    def is_arm(self) -> bool:
        """Whether the host is an Arm machine, of either width."""
        return self.arch in ("arm", "arm64")

    def offers(self, condition: str) -> bool:
        """Whether this kernel has what is declared for kernels that meet ``condition``; see `condition.holds`."""
        return holds(condition, self)


def names() -> list[str]:
    """The profiles that come with the package, sorted."""
    return sorted(name.removesuffix(".toml") for name in os.listdir(_HERE) if name.endswith(".toml"))


def load(name: str = DEFAULT) -> Profile:
    """The profile called ``name``, for the caller alone. KvmVfioEmuError when there is none."""
    values = _read(name)
    # TOML has lists only; a profile never changes.
    fixed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Profile(**fixed | {"capabilities": dict(values["capabilities"])})


@cache
def _read(name: str) -> dict[str, Any]:
    if name not in names():
        raise KvmVfioEmuError(f"no profile {name!r}; known: {', '.join(names())}")
    import tomllib  # here, as it would be a good part of the time to import the package

    with open(os.path.join(_HERE, f"{name}.toml"), "rb") as file:
        own = tomllib.load(file)
    base = own.pop("base", None)
    data = _read(base) if base else {}
    # Another architecture than Arm has its own capabilities; all else is common to both.
    inherited = {} if own.get("arch") == "x86_64" else data.get("capabilities", {})
    capabilities = {**inherited, **own.get("capabilities", {})}
    data = {**data, **own, "name": name, "capabilities": capabilities}
    unknown = set(data) - {f.name for f in fields(Profile)}
    if unknown:
        raise KvmVfioEmuError(f"profile {name}: unknown keys {', '.join(sorted(unknown))}")
    return data
