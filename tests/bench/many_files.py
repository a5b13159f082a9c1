"""A program that opens 1,500 files, as Python programs do: it imports much, then reads what it imported from."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import construct  # noqa: F401
import hypothesis  # noqa: F401
import pytest  # noqa: F401

#: Beside the nearly six hundred that its imports and the interpreter's start open.
OPENED = 920

library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
for number in range(OPENED):
    with library[number % len(library)].open("rb") as file:
        file.read(64)
