"""Bytes of a fuzzer taken as values, one after the other; when they are used up, everything is zero."""

from __future__ import annotations


class Taken:
    """What is left of an input."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, size: int) -> bytes:
        """At most so many."""
        part = self._data[self._at : self._at + size]
        self._at += size
        return part

    def number(self, size: int = 1) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.bytes(size), "little")

    def rest(self) -> bytes:
        """All that is left."""
        return self.bytes(len(self._data))
