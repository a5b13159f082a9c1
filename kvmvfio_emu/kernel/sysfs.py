"""What the kernel shows of its devices as files: sysfs, IOMMU groups, the device tree (drivers/base, drivers/iommu).

Pure data: virtual absolute path -> `Link`, bytes (a file), or None (a directory). A door decides how to present it.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple, cast

from kvmvfio_emu.hw.board import DeviceSpec
from kvmvfio_emu.kernel.host import Host

if TYPE_CHECKING:
    from kvmvfio_emu.hw.devices.pci import PciDevice

#: The GIC's three interrupt cells of a device tree: shared, number, level-high or edge-rising.
_SHARED, _LEVEL_HIGH, _EDGE_RISING = 0, 4, 1
_PCI_ROOT = "/sys/devices/pci0000:00"
_BAR_FLAGS = 0x200  # IORESOURCE_MEM
_BARS = 6
#: The major number of VFIO devices' own nodes, as dynamic as on any host.
VFIO_DEV_MAJOR = 510


class Link(NamedTuple):
    """A symbolic link; ``target`` is a virtual absolute path, shown relative as sysfs does."""

    target: str

    def relative_to(self, path: str) -> str:
        """The text of the link at ``path``."""
        return os.path.relpath(self.target, os.path.dirname(path))


Node = Link | bytes | None


def tree(host: Host) -> dict[str, Node]:
    """Everything, parents before what they hold."""
    nodes: dict[str, Node] = {"/dev": None, "/dev/vfio": None, "/sys/kernel/iommu_groups": None}
    for name in host.nodes:
        nodes[name] = b""
    for bus in ("platform", "pci"):
        nodes[f"/sys/bus/{bus}/devices"] = nodes[f"/sys/bus/{bus}/drivers"] = None
    for name, device in host.machine.devices.items():
        spec = device.spec
        place = device_path(spec)
        nodes[place] = None
        nodes[f"/sys/bus/{spec.bus}/devices/{name}"] = Link(place)
        nodes[f"{place}/subsystem"] = Link(f"/sys/bus/{spec.bus}")
        nodes[f"{place}/driver_override"] = b"(null)\n"
        if spec.driver:
            driver = f"/sys/bus/{spec.bus}/drivers/{spec.driver}"
            nodes[driver] = None
            nodes[f"{place}/driver"] = Link(driver)
            nodes[f"{driver}/{name}"] = Link(place)
        group = f"/sys/kernel/iommu_groups/{spec.group}"
        nodes[f"{place}/iommu_group"] = Link(group)
        nodes[f"{group}/type"] = b"DMA\n"
        nodes[f"{group}/devices/{name}"] = Link(place)
        nodes.update(_pci(place, cast("PciDevice", device)) if device.on_pci else _platform(place, spec))
    for view in host.views:
        nodes.update(view())
    return nodes


def device_path(spec: DeviceSpec) -> str:
    """Where sysfs has the device itself; bus directories only link to it."""
    return f"{_PCI_ROOT}/{spec.name}" if spec.bus == "pci" else f"/sys/devices/{spec.bus}/{spec.name}"


def _platform(place: str, spec: DeviceSpec) -> dict[str, Node]:
    modalias = f"of:N{_base_name(spec)}T(null)" + "".join(f"C{name}" for name in spec.compatible)
    uevent = f"DRIVER={spec.driver}\nOF_NAME={_base_name(spec)}\nOF_COMPATIBLE_N={len(spec.compatible)}\n"
    node = f"/proc/device-tree/{tree_name(spec)}"
    return {
        f"{place}/modalias": f"{modalias}\n".encode(),
        f"{place}/uevent": f"{uevent}MODALIAS={modalias}\n".encode(),
        f"{place}/of_node": Link(node),
        node: None,
        f"{node}/name": _base_name(spec).encode() + b"\0",
        f"{node}/compatible": b"".join(name.encode() + b"\0" for name in spec.compatible),
        f"{node}/reg": b"".join(struct.pack(">II", r.address & 0xFFFFFFFF, r.size) for r in spec.regions),
        f"{node}/interrupts": b"".join(
            struct.pack(">III", _SHARED, i.spi, _LEVEL_HIGH if i.level else _EDGE_RISING) for i in spec.interrupts
        ),
        f"{node}/dma-coherent": b"",
    }


def _base_name(spec: DeviceSpec) -> str:
    """The node's name without its address: Linux calls a device ADDRESS.NAME."""
    return spec.name.partition(".")[2] or spec.name


def tree_name(spec: DeviceSpec) -> str:
    """The node's name in the device tree: NAME@ADDRESS."""
    address, dot, name = spec.name.partition(".")
    return f"{name}@{address}" if dot else spec.name


def _pci(place: str, device: PciDevice) -> dict[str, Node]:
    function = device.function
    config = b"".join(function.read(at, 1).to_bytes(1, "little") for at in range(256))
    word = struct.Struct("<H").unpack_from

    def number(at: int) -> bytes:
        return f"0x{word(config, at)[0]:04x}\n".encode()

    resource = []
    for index in range(_BARS):
        bar = function.bars.get(index)
        base = int.from_bytes(config[16 + 4 * index : 20 + 4 * index], "little") & ~0xF
        resource.append((base, base + bar.size - 1, _BAR_FLAGS) if bar else (0, 0, 0))
    lines = "".join(f"0x{start:016x} 0x{end:016x} 0x{flags:016x}\n" for start, end, flags in [*resource, (0, 0, 0)])
    return {
        f"{place}/vendor": number(0),
        f"{place}/device": number(2),
        f"{place}/subsystem_vendor": number(0x2C),
        f"{place}/subsystem_device": number(0x2E),
        f"{place}/revision": f"0x{config[8]:02x}\n".encode(),
        f"{place}/class": f"0x{int.from_bytes(config[9:12], 'little'):06x}\n".encode(),
        f"{place}/config": config,
        f"{place}/resource": lines.encode(),
        f"{place}/irq": f"{config[0x3C]}\n".encode(),
        f"{place}/enable": b"0\n",
        f"{place}/uevent": f"DRIVER={device.spec.driver}\nPCI_SLOT_NAME={device.spec.name}\n".encode(),
        f"{place}/reset": b"",
    }
