"""The VFIO module: nodes, groups, drivers; models the module and driver core parts of drivers/vfio/vfio.c."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.vfio.bus import VFIO_DRIVERS, BusDevice, enumerate_devices
from kvmvfio_emu.kernel.vfio.container import Container, ContainerFile
from kvmvfio_emu.kernel.vfio.device import VfioDevice, VfioDeviceFile
from kvmvfio_emu.kernel.vfio.group import VfioGroup
from kvmvfio_emu.kernel.vfio.platform import VfioPlatformDevice

#: What each VFIO driver makes of a device that is bound to it, or where to find that: loaded with the first device.
DRIVERS: dict[str, type[VfioDevice] | str] = {
    "vfio-platform": VfioPlatformDevice,
    "vfio-amba": VfioPlatformDevice,
    "vfio-pci": "kvmvfio_emu.kernel.vfio.pci:VfioPciDevice",
}


class Vfio:
    """All of VFIO on one host. ``drivers`` adds or replaces VFIO bus drivers, by name.

    ``allow_unsafe_interrupts`` is the parameter of that name of vfio_iommu_type1: accept an IOMMU that does
    not isolate message signalled interrupts.
    """

    def __init__(self, host: Host, drivers: Mapping[str, type[VfioDevice]] | None = None) -> None:
        self.host = host
        self.allow_unsafe_interrupts = False
        self.handlers = 0  #: interrupt handlers that are signalling just now
        self.devices: dict[str, BusDevice] = enumerate_devices(host.machine.devices, host.irqs)
        self.groups: dict[int, VfioGroup] = {}
        self.unbinding: dict[str, VfioDevice] = {}
        self._drivers = {**DRIVERS, **(drivers or {})}
        host.nodes["/dev/vfio/vfio"] = lambda: ContainerFile(self)
        for device in self.devices.values():
            self._probe(device)

    # -- binding drivers ---------------------------------------------------------------------------

    def bind(self, name: str, driver: str) -> None:
        """Bind host driver ``driver`` to the unbound device ``name``, as a write to sysfs would."""
        device = self._device(name)
        if device.driver or name in self.unbinding:
            raise KvmVfioEmuError(f"{name} is bound to {device.driver}; unbind it first")
        group = self.groups.get(device.spec.group)
        if driver not in VFIO_DRIVERS and group is not None and group.container_users:
            raise KvmVfioEmuError(f"binding {driver} to {name} while userspace has its group: Linux stops here (BUG)")
        device.driver = driver
        self._probe(device)

    def unbind(self, name: str) -> bool:
        """Unbind the driver of device ``name``.

        False while that is blocked: somebody holds the VFIO device, and in Linux the write to sysfs would not
        return. It completes by itself when the last holder goes; call again to ask. Each call asks the holder for
        the device, as Linux does at once and then every ten seconds.
        """
        device = self._device(name)
        vfio_device = self._vfio_device(device)
        if name in self.unbinding:
            self.unbinding[name].request()
            return False
        if vfio_device is None:
            device.driver = ""
            return True
        self.unbinding[name] = vfio_device
        self.host.event("driver_unbind", device=name, driver=device.driver)
        vfio_device.put()
        if name in self.unbinding:
            vfio_device.request()
        return name not in self.unbinding

    def device_gone(self, vfio_device: VfioDevice) -> None:
        """The last reference to it is dropped: the driver that waited in remove goes on."""
        self.unbinding.pop(vfio_device.name, None)
        vfio_device.device.driver = ""
        self.host.event("driver_unbound", device=vfio_device.name)

    def forget_group(self, group: VfioGroup) -> None:
        """Nothing refers to ``group`` any more: its node vanishes."""
        del self.groups[group.number]
        del self.host.nodes[group.path]

    def _device(self, name: str) -> BusDevice:
        if name not in self.devices:
            raise KvmVfioEmuError(f"no device {name!r}; the board has {', '.join(sorted(self.devices))}")
        return self.devices[name]

    def _vfio_device(self, device: BusDevice) -> VfioDevice | None:
        group = self.groups.get(device.spec.group)
        return group.devices.get(device.name) if group is not None else None

    def _probe(self, device: BusDevice) -> None:
        driver = self._drivers.get(device.driver)
        if driver is None:
            return
        if isinstance(driver, str):
            module, _, name = driver.partition(":")
            driver = self._drivers[device.driver] = cast("type[VfioDevice]", getattr(import_module(module), name))
        number = device.spec.group
        group = self.groups.get(number)
        if group is None:
            members = [member for member in self.devices.values() if member.spec.group == number]
            group = self.groups[number] = VfioGroup(self, number, members)
            self.host.nodes[group.path] = group.open
        driver(group, device)

    # -- invariants --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError when references do not balance or parts disagree."""
        files = list(self.host.files.values())
        containers: set[Container] = {file.container for file in files if isinstance(file, ContainerFile)}
        containers |= {group.container for group in self.groups.values() if group.container is not None}
        for container in containers:
            holders = sum(isinstance(file, ContainerFile) and file.container is container for file in files)
            assert container.refs == holders + len(container.groups), "container references do not balance"
            assert container.groups or container.iommu is None, "a container has an IOMMU but no group"
            if container.iommu is not None:
                assert container.iommu.groups == container.groups, "container and IOMMU disagree on the groups"
                container.iommu.check()
        for group in self.groups.values():
            self._check_group(group)
            for device in group.devices.values():
                opened = sum(isinstance(file, VfioDeviceFile) and file.device is device for file in files)
                bound = device.name not in self.unbinding
                assert device.open_count == opened, f"{device}: {opened} files"
                assert device.refs == bound + opened + device.external_users, f"{device}: references do not balance"
                device.check()

    def _check_group(self, group: VfioGroup) -> None:
        by_file = self.host.profile.group_add_needs_iommu
        external = group.external_users if by_file else 0
        opened = sum(device.open_count for device in group.devices.values())
        refs = len(group.devices) + (group.file is not None) + external
        assert group.refs == refs, f"{group}: {refs} holders"
        assert (group.container is not None) == (group.container_users > 0), f"{group}: container without users"
        own = group.container_users - opened - external
        assert own in (0, 1), f"{group}: {opened} device files, {external} external users"
        assert not own or group.file is not None, f"{group}: in a container on behalf of a closed file"
        if group.container is not None:
            assert group in group.container.groups, f"{group}: its container does not know it"
