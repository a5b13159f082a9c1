"""Reading TOML tables so that each key is checked, none is left over, and an error says where it is."""

from __future__ import annotations

from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError


class BoardError(KvmVfioEmuError):
    """A board file cannot be used: unreadable, or it says something impossible. The text names file, device,
    key."""


class Table:
    """A TOML table whose keys are taken out one by one, each checked; `close` refuses what is left."""

    def __init__(self, where: str, table: dict[str, Any]) -> None:
        self.where = where
        self._left = dict(table)

    def error(self, key: str, problem: str) -> BoardError:
        return BoardError(f"{self.where}: {key}: {problem}")

    def _take(self, key: str, kind: type, default: Any) -> Any:
        if key not in self._left:
            if default is None:
                raise self.error(key, "missing")
            return default
        value = self._left.pop(key)
        if type(value) is not kind:  # True is an int to isinstance
            raise self.error(key, f"must be {_KINDS[kind]}, is {value!r}")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value: int = self._take(key, int, default)
        if not low <= value <= high:
            raise self.error(key, f"{value} is not in {low}..{high}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value: bool = self._take(key, bool, default)
        return value

    def string(self, key: str, default: str | None = None) -> str:
        value: str = self._take(key, str, default)
        if default is None and not value:
            raise self.error(key, "is empty")
        return value

    def items(self, key: str, kind: type, default: list[Any]) -> tuple[Any, ...]:
        value = self._take(key, list, default)
        for item in value:
            if type(item) is not kind:
                raise self.error(key, f"every item must be {_KINDS[kind]}, is {item!r}")
        return tuple(value)

    def table(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = self._take(key, dict, {})
        return value

    def tables(self, key: str) -> list[Table]:
        return [Table(f"{self.where}: {key}[{n}]", item) for n, item in enumerate(self.items(key, dict, []))]

    def close(self) -> None:
        for key in self._left:
            raise self.error(key, "unknown key")


_KINDS = {int: "an integer", bool: "true or false", str: "a string", list: "an array", dict: "a table"}
