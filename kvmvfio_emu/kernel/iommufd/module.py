"""The iommufd module: the node /dev/iommu and its parameter; models the module part of drivers/iommu/iommufd/main.c."""

from __future__ import annotations

from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.iommufd.file import IommufdFile

NODE = "/dev/iommu"


class Iommufd:
    """All of iommufd on one host.

    ``allow_unsafe_interrupts`` is the module parameter of that name: accept an IOMMU that does not isolate message
    signalled interrupts.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.allow_unsafe_interrupts = False
        host.nodes[NODE] = lambda: IommufdFile(host, self)

    def check(self) -> None:
        """Raise AssertionError when an open file's objects contradict each other."""
        for file in self.host.files.values():
            if isinstance(file, IommufdFile):
                file.check()
