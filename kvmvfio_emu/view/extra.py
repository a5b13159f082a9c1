"""Packages that only some trace formats need: their absence is one clear line, not a traceback."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kvmvfio_emu.kernel.errors import KvmVfioEmuError


class MissingPackageError(KvmVfioEmuError):
    """A format was asked for whose package is not installed; the message says how to get it."""


def load(module: str, what: str, extra: str) -> Any:
    """``module``, imported now. ``what`` needs it, the extra ``extra`` of this package brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{what} needs the Python package {error.name}: pip install 'kvmvfio-emu[{extra}]'"
        ) from error
