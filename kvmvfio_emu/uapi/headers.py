"""Where the C headers are, for the generator, for who compiles a VMM against them, and for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = ("linux/kvm.h", "asm/kvm.h", "linux/vfio.h", "linux/iommufd.h")


def include_dir() -> Path:
    """The directory for ``cc -I``: beside the package in a checkout, inside it when installed.

    Raises FileNotFoundError if the installation lacks it.
    """
    from pathlib import Path  # here, as it would be a good part of the time to import uapi

    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent / "include", package / "include"):
        if all((candidate / header).is_file() for header in HEADERS):
            return candidate
    raise FileNotFoundError(f"no include/ with {', '.join(HEADERS)} in or beside {package}")
