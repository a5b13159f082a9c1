"""What calls are about: a profile, a board, and so which devices, groups, device types and ioctls there are."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from kvmvfio_emu import profiles, uapi
from kvmvfio_emu.hw import boards
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.kernel.boot import DEFAULT_MACHINE
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup, offered
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES
from kvmvfio_emu.profiles import Profile


class Setting:
    """``profile``, ``machine`` and ``gic`` as for `Kernel`. Device types are those that the board's GIC allows."""

    def __init__(
        self,
        profile: str | Profile = profiles.DEFAULT,
        machine: str | Board | None = None,
        gic: int | None = None,
    ) -> None:
        self.profile = profiles.load(profile) if isinstance(profile, str) else profile
        machine = machine or self.profile.machine or DEFAULT_MACHINE
        board = boards.load(machine) if isinstance(machine, str) else machine
        self.board = board if gic is None else replace(board, gic_version=gic)

    @cached_property
    def devices(self) -> dict[str, int]:
        """Device name -> IOMMU group."""
        return {device.name: device.group for device in self.board.devices}

    @property
    def most_vcpus(self) -> int:
        """What KVM_CAP_MAX_VCPUS says, or what there can be without it."""
        return self.profile.capability("KVM_CAP_MAX_VCPUS") or 8

    @cached_property
    def types(self) -> list[type[KvmDevice]]:
        """The kinds of KVM devices that can be created, in the order in which a sequence creates them."""
        wanted = (0, self.board.gic_version)
        found = [one for one in DEVICE_TYPES if self.profile.offers(one.when) and one.host_gic in wanted]
        return sorted(found, key=lambda one: int(getattr(uapi, one.type_name)))

    def place(self, type_name: str) -> int | None:
        """Which of a sequence's devices has that type; None when the kernel has no such type."""
        names = [one.type_name for one in self.types]
        return names.index(type_name) if type_name in names else None

    def rows(self, kind: type[KvmDevice]) -> list[AttrGroup]:
        """The attributes that devices of that kind have here."""
        return list(offered(kind.attributes, self.profile))
