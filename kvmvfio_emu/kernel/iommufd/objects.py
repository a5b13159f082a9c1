"""The numbered objects of an open /dev/iommu and who uses them; models iommufd_object in iommufd's main.c."""

from __future__ import annotations

import errno
from itertools import count
from typing import TypeVar

from kvmvfio_emu.kernel.errors import KernelError


class IommufdObject:
    """Something with a number. ``users``: who holds it, besides the table that it is in."""

    def __init__(self) -> None:
        self.id = 0
        self.users = 0

    def destroy(self) -> None:
        """It is out of the table, and nobody uses it: give up what it holds."""


_O = TypeVar("_O", bound=IommufdObject)


class Objects:
    """All of one file, by number."""

    def __init__(self) -> None:
        self._found: dict[int, IommufdObject] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, created: IommufdObject) -> None:
        """Give it the lowest number that is free."""
        created.id = next(number for number in count(1) if number not in self._found)
        self._found[created.id] = created

    def get(self, number: int, kind: type[_O]) -> _O:
        """Object ``number``, if it is of that kind. ENOENT."""
        found = self._found.get(number)
        if not isinstance(found, kind):
            raise KernelError(errno.ENOENT, f"no {kind.__name__} with number {number}")
        return found

    def of(self, kind: type[_O]) -> list[_O]:
        """All of that kind, by number."""
        return [found for _, found in sorted(self._found.items()) if isinstance(found, kind)]

    def remove(self, number: int) -> None:
        """Destroy it. ENOENT, EBUSY while it is used."""
        found = self.get(number, IommufdObject)
        if found.users:
            raise KernelError(errno.EBUSY, f"{type(found).__name__} {number} has {found.users} users")
        del self._found[number]
        found.destroy()

    def clear(self) -> None:
        """The file is gone: destroy all, users before what they use."""
        while self._found:
            leaves = [number for number, found in self._found.items() if not found.users]
            assert leaves, f"objects that use each other in a circle: {sorted(self._found)}"
            for number in leaves:
                self.remove(number)
