"""The VFIO module: nodes, groups, drivers; models the module and driver core parts of drivers/vfio/vfio.c."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from itertools import count
from typing import cast

from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.sysfs import VFIO_DEV_MAJOR, Link, Node, device_path
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
        self.registered: dict[int, VfioDevice] = {}  #: by the number in the name of their own node
        self._drivers = {**DRIVERS, **(drivers or {})}
        host.nodes["/dev/vfio/vfio"] = lambda: ContainerFile(self)
        host.views.append(self._view)
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
        self.host.nodes.pop(vfio_device.path, None)  # nobody new while it waits
        vfio_device.put()
        if name in self.unbinding:
            vfio_device.request()
        return name not in self.unbinding

    def register(self, vfio_device: VfioDevice) -> int:
        """Give it a number, the lowest that is free, and on kernels with such nodes a node of its own."""
        index = next(number for number in count() if number not in self.registered)
        self.registered[index] = vfio_device
        if self.host.profile.vfio_device_cdev:
            self.host.nodes[f"/dev/vfio/devices/vfio{index}"] = vfio_device.open_node
        return index

    def device_gone(self, vfio_device: VfioDevice) -> None:
        """The last reference to it is dropped: the driver that waited in remove goes on."""
        self.unbinding.pop(vfio_device.name, None)
        del self.registered[vfio_device.index]
        self.host.nodes.pop(vfio_device.path, None)
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

    def _view(self) -> dict[str, Node]:
        """The class vfio-dev of sysfs, by which a device's own node is found."""
        nodes: dict[str, Node] = {}
        if self.host.profile.vfio_device_cdev:
            nodes["/dev/vfio/devices"] = nodes["/sys/class/vfio-dev"] = None
            for index, device in self.registered.items():
                place = f"{device_path(device.device.spec)}/vfio-dev/vfio{index}"
                nodes[f"{place}/dev"] = f"{VFIO_DEV_MAJOR}:{index}\n".encode()
                nodes[f"{place}/device"] = Link(device_path(device.device.spec))
                nodes[f"/sys/class/vfio-dev/vfio{index}"] = Link(place)
        return nodes

    # -- invariants --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError when references do not balance or parts disagree."""
        holders: dict[Container, int] = {}
        holders.update((group.container, 0) for group in self.groups.values() if group.container is not None)
        opened: dict[VfioDevice, list[VfioDeviceFile]] = {}
        for file in self.host.files.values():
            if isinstance(file, ContainerFile):
                holders[file.container] = holders.get(file.container, 0) + 1
            elif isinstance(file, VfioDeviceFile):
                opened.setdefault(file.device, []).append(file)
        for container, files in holders.items():
            assert container.refs == files + len(container.groups), "container references do not balance"
            assert container.groups or container.iommu is None, "a container has an IOMMU but no group"
            if container.iommu is not None:
                assert container.iommu.groups == container.groups, "container and IOMMU disagree on the groups"
                container.iommu.check()
        for group in self.groups.values():
            of_group = []
            for device in group.devices.values():
                mine = opened.get(device, [])
                of_group += mine
                bound = device.name not in self.unbinding
                granted = sum(file.granted for file in mine)
                assert device.open_count == granted, f"{device}: {granted} files"
                assert device.refs == bound + len(mine) + device.external_users, f"{device}: references do not balance"
                device.check()
            self._check_group(group, of_group)

    def _check_group(self, group: VfioGroup, files: list[VfioDeviceFile]) -> None:
        by_file = self.host.profile.group_add_needs_iommu
        external = group.external_users if by_file else 0
        opened = sum(file.in_container for file in files)
        nodes = sum(file.granted and not file.by_group for file in files)
        assert group.node_users == nodes, f"{group}: {nodes} devices without it"
        assert not nodes or (group.file is None and group.container is None), f"{group}: used in two ways"
        assert group.iommufd is None or group.file is not None, f"{group}: an iommufd of a closed file"
        refs = len(group.devices) + (group.file is not None) + external
        assert group.refs == refs, f"{group}: {refs} holders"
        assert (group.container is not None) == (group.container_users > 0), f"{group}: container without users"
        own = group.container_users - opened - external
        assert own in (0, 1), f"{group}: {opened} device files, {external} external users"
        assert not own or group.file is not None, f"{group}: in a container on behalf of a closed file"
        if group.container is not None:
            assert group in group.container.groups, f"{group}: its container does not know it"
