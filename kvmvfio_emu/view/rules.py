"""Reviewed differences from a TOML file of [[difference]] tables: what is not as declared is told, with its file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError


def read_rules(path: Path, keys: Mapping[str, type], needed: tuple[str, ...]) -> list[dict[str, Any]]:
    """The tables, arrays as tuples. ``keys``: which there may be, and of what type; ``needed``: which must be there.

    KvmVfioEmuError for a file that cannot be read, or is not so.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise KvmVfioEmuError(f"{path}: {error}") from error
    tables = data.pop("difference", [])
    if data:
        raise KvmVfioEmuError(f"{path}: unknown keys {', '.join(data)}; rules are [[difference]]")
    for table in tables:
        for key, value in table.items():
            if not isinstance(value, keys.get(key, ())):
                raise KvmVfioEmuError(f"{path}: {key} = {value!r}; a rule has {', '.join(keys)}")
        if not all(table.get(key) for key in needed):
            raise KvmVfioEmuError(f"{path}: a rule needs {', '.join(needed)}: {table}")
    return [
        {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()} for table in tables
    ]
