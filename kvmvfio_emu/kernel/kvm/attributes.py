"""Device attributes, declared once a device type: what KVM_HAS_DEVICE_ATTR, the listings and the reference go by."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.profiles import Profile


@dataclass(frozen=True, slots=True)
class AttrGroup:
    """Attributes of one group, by the names of their constants. Rows of the same group add up.

    A row without ``names`` has its attribute numbers free: ``encodes`` says what such a number means. ``when`` is a
    condition on the profile (`Profile.offers`).

    For the listings and the reference: ``payload`` is the C type at ``addr``, empty where that is not looked at;
    ``gettable`` whether it can be read, too; ``what`` says what setting it does; each of ``errors`` is an errno and
    what it means here, besides EFAULT for the payload.
    """

    group: str
    names: tuple[str, ...] = ()
    encodes: str = ""
    when: str = ""
    payload: str = ""
    gettable: bool = False
    what: str = ""
    errors: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """The group's."""
        return int(getattr(uapi, self.group))

    def has(self, attr: int) -> bool:
        """Whether attribute ``attr`` is of this row."""
        return not self.names or any(getattr(uapi, name) == attr for name in self.names)


def offered(rows: Iterable[AttrGroup], profile: Profile) -> Iterator[AttrGroup]:
    """The rows that a kernel has."""
    return (row for row in rows if profile.offers(row.when))


def find(rows: Iterable[AttrGroup], attr: Any, profile: Profile, owner: str) -> AttrGroup:
    """The row of a ``struct kvm_device_attr``. ENXIO when ``owner`` (its name, for the reason) has none."""
    for row in rows:
        if row.number == attr.group and row.has(attr.attr) and profile.offers(row.when):
            return row
    raise KernelError(errno.ENXIO, f"{owner} has no attribute {attr.attr:#x} in group {attr.group}")
