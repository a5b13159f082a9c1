"""Builds a running kernel from a board and a profile: the only room that knows all the others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from kvmvfio_emu import profiles
from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Trace
from kvmvfio_emu.guest.base import GuestProgram
from kvmvfio_emu.hw import boards
from kvmvfio_emu.hw.board import Board
from kvmvfio_emu.hw.devices import Device
from kvmvfio_emu.hw.machine import Machine
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.kvm.module import Kvm
from kvmvfio_emu.kernel.vfio.module import Vfio
from kvmvfio_emu.profiles import Profile

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

#: To whoever runs a vCPU whose memory holds code.
NO_ENGINE = "a vCPU is to execute machine code, which takes: pip install kvmvfio-emu[vcpu]"
DEFAULT_MACHINE = "calxeda-midway"


def boot(
    profile: str | Profile = profiles.DEFAULT,
    machine: str | Board | None = None,
    models: Mapping[str, type[Device]] | None = None,
    gic: int | None = None,
) -> Host:
    """A kernel that has just booted.

    ``profile`` and ``machine`` are names (a board may also be a path to a TOML file) or ready objects; without a
    ``machine`` it is the profile's, or `DEFAULT_MACHINE`;
    ``models`` adds device models by name; ``gic`` is the version of the machine's interrupt controller (2 or 3)
    if it is not to be the board's. KvmVfioEmuError when a name or a board is no good.
    """
    if isinstance(profile, str):
        profile = profiles.load(profile)
    if machine is None:
        machine = profile.machine or DEFAULT_MACHINE
    board = boards.load(machine) if isinstance(machine, str) else machine
    if gic is not None:
        board = replace(board, gic_version=gic)
    clock = Clock()
    trace = Trace(clock)
    host = Host(Machine(board, clock, trace, models), profile, clock, trace)
    Kvm(host)
    if profile.iommufd:
        from kvmvfio_emu.kernel.iommufd.module import Iommufd

        host.modules["iommufd"] = Iommufd(host)
    host.modules["vfio"] = Vfio(host)
    if profile.arch != "x86_64":
        host.guest_engine = load_engine
    return host


def load_engine(vcpu: Vcpu) -> GuestProgram | None:
    """What executes the machine code in the memory of ``vcpu``; None, and a line on stderr, without the extra."""
    try:
        from kvmvfio_emu.guest.machine.start import machine_guest
    except ModuleNotFoundError as missing:
        if missing.name != "unicorn":
            raise
        if vcpu.index == 0 and not vcpu.has_run:
            print(f"kvmvfio-emu: {NO_ENGINE}", file=sys.stderr)
        vcpu.host.event("no_engine", vcpu=vcpu.index)
        return None
    return machine_guest(vcpu)


def load_guest(place: str) -> Callable[[int], GuestProgram | None]:
    """The function ``module:function`` that gives each vCPU (by number) its program. KvmVfioEmuError."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise KvmVfioEmuError(f"guest {place!r}: {error}; it is named module:function") from error
    if not callable(found):
        raise KvmVfioEmuError(f"guest {place!r} is no function")
    return cast("Callable[[int], GuestProgram | None]", found)
