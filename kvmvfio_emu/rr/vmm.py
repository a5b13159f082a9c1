"""The VMM of `kvmvfio-emu tcp-rr`: the demo's, with more devices, on a board made for it."""

from __future__ import annotations

import dataclasses
import os

from kvmvfio_emu import uapi
from kvmvfio_emu.cli import story
from kvmvfio_emu.doors.inprocess import Kernel
from kvmvfio_emu.guest.base import GuestProgram
from kvmvfio_emu.guest.xgmac import GSI
from kvmvfio_emu.hw import boards
from kvmvfio_emu.hw.board import Board, DeviceSpec, InterruptSpec, RegionSpec
from kvmvfio_emu.hw.devices.xgmac import Xgmac
from kvmvfio_emu.kernel.boot import DEFAULT_MACHINE

#: As many as have their own page of addresses, gsi and IOMMU group here.
MOST_DEVICES = 32
_FIRST = int(story.DEVICE.partition(".")[0], 16)


def device_name(number: int) -> str:
    """The host's name of device ``number``; the first one is the demo's."""
    return f"{_FIRST + number * 0x1000:x}.ethernet"


def board(devices: int, cpus: int) -> Board:
    """The default machine with ``cpus`` physical CPUs, and ``devices`` xgmacs of one interrupt each."""
    midway = boards.load(DEFAULT_MACHINE)
    specs = tuple(
        DeviceSpec(
            name=device_name(number),
            model="xgmac",
            group=5 + number,
            has_reset=True,
            regions=(RegionSpec(_FIRST + number * 0x1000, 0x1000),),
            interrupts=(InterruptSpec(GSI + number),),
        )
        for number in range(devices)
    )
    return dataclasses.replace(midway, name=f"{midway.name}, {devices} xgmacs", cpus=cpus, devices=specs)


class RrVmm(story.Vmm):
    """Assigns every device of the board; the interrupt of device n is gsi 80 + n, and its SPI."""

    def __init__(self, kernel: Kernel, *, forward: bool, guest: GuestProgram) -> None:
        self._devices: list[int] = []
        self._in_kernel: list[int] = []
        super().__init__(kernel, forward=forward, guest=guest)
        self.hardware = [kernel.device(spec.name) for spec in kernel.host.machine.board.devices]
        self.eventfds = [self.trigger, self.resample]
        self.mappings = [self.registers]
        for number in range(1, len(self.hardware)):
            self._add(number, forward=forward)
        kernel.ioctl(self.vcpu, uapi.KVM_RUN)  # until the guest's driver is ready

    def _add(self, number: int, *, forward: bool) -> None:
        device = self.open_device(device_name(number), 5 + number)
        self.mappings.append(self.map_device(device, number))
        if forward:
            self.forward(device, 0, GSI + number)
        pair = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.eventfds += pair
        self.tie(device, pair[0], pair[1], GSI + number)

    def request(self, number: int) -> None:
        """A frame has come in at device ``number``."""
        hardware = self.hardware[number]
        assert isinstance(hardware, Xgmac)
        hardware.raise_interrupt()

    def open_device(self, name: str, number: int) -> int:
        """As `story.Vmm.open_device`."""
        self._devices.append(super().open_device(name, number))
        return self._devices[-1]

    def create_device(self, vm: int, device_type: int) -> int:
        """As `story.Vmm.create_device`."""
        self._in_kernel.append(super().create_device(vm, device_type))
        return self._in_kernel[-1]

    def close(self) -> None:
        """Give everything back: a sweep has hundreds of these."""
        for mapping in (self.run_page, *self.mappings):
            mapping.close()
        machine = (*self._in_kernel, self.vcpu, self.vm, self.kvm)
        for descriptor in (*self.eventfds, *machine, *self._devices, *self.groups, self.container):
            self.kernel.close(descriptor)
