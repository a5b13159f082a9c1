"""Differences between kernels that were looked at, as rules with a reason: a TOML file.

[[difference]]
calls = "KVM_CHECK_EXTENSION"     # a pattern, as of fnmatch, for the ioctl's name, or open, dup, close, signal, count
on = "vm"                         # the kind of file; any if absent
differs = "value"                 # "value": both succeed, and say different things; "errno": one is refused, or both
argument = ["KVM_CAP_NR_VCPUS"]   # of an ioctl whose argument is a number or a constant; any if absent
targets = ["host"]                # one of the two is among these; any if absent
profiles = ["linux-6.18-x86"]     # those that it is for; all if absent
reason = "why it differs"
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.testing.player import Call
from kvmvfio_emu.view import names
from kvmvfio_emu.view.rules import read_rules

if TYPE_CHECKING:
    from kvmvfio_emu.testing.fuzz.compare import Difference

#: The reviewed ones, which come with the package.
REVIEWED = Path(__file__).with_name("known.toml")
_KEYS: dict[str, type] = {
    "calls": str,
    "on": str,
    "differs": str,
    "argument": list,
    "targets": list,
    "profiles": list,
    "reason": str,
}
_NEEDED = ("calls", "differs", "reason")
_DIFFERS = ("value", "errno")


@dataclass(frozen=True)
class Known:
    """One rule; what is empty stands for all."""

    calls: str
    differs: str
    reason: str
    on: str = ""
    argument: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()

    def is_for(self, profile: str, targets: Collection[str]) -> bool:
        """Whether it says anything of these two kernels."""
        return (not self.profiles or profile in self.profiles) and (
            not self.targets or any(name in self.targets for name in targets)
        )

    def matches(self, call: Call | None, found: Difference) -> bool:
        """Whether it explains that difference in the answers to ``call`` (None: the counts at the end)."""
        from kvmvfio_emu.testing.fuzz.compare import name_of

        name = name_of(call)
        if found.kind != self.differs or not fnmatchcase(name, self.calls):
            return False
        if self.on and (call is None or call.get("on", [""])[0] != self.on):
            return False
        return not self.argument or (call is not None and _argument(name, call) in self.argument)


def _argument(name: str, call: Call) -> str:
    return str(names.scalar(name, call.get("argument") or 0))


def load(path: Path, profile: str, targets: Collection[str]) -> list[Known]:
    """The rules for two kernels. KvmVfioEmuError for a file that is not as above."""
    rules = [Known(**table) for table in read_rules(path, _KEYS, _NEEDED)]
    for rule in rules:
        if rule.differs not in _DIFFERS:
            raise KvmVfioEmuError(f"{path}: differs = {rule.differs!r}; it is {' or '.join(_DIFFERS)}")
    return [rule for rule in rules if rule.is_for(profile, targets)]
