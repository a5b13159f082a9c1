"""The state of an emulated kernel as plain data: what the control channel dumps, and the Python API with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.kvm.module import Kvm
from kvmvfio_emu.kernel.kvm.vgic.dist import Vgic
from kvmvfio_emu.kernel.lib.rbtree import RbNode
from kvmvfio_emu.kernel.vfio.device import VfioDeviceFile
from kvmvfio_emu.kernel.vfio.module import Vfio

State = dict[str, Any] | list[Any]


def files(host: Host) -> State:
    """Every open file: its kind, the link that /proc shows, how many hold it."""
    return [
        {"kind": file.kind, "link": file.link, "references": file.references}
        for file in sorted(host.files.values(), key=lambda file: file.kind)
    ]


def gic(host: Host) -> State:
    """The physical interrupts that the board uses: line, enable, state (I, P, A, AP)."""
    hardware = host.machine.gic
    return [
        {
            "hwirq": desc.hwirq,
            "name": desc.name,
            "line": hardware.is_line_high(desc.hwirq),
            "enabled": hardware.is_enabled(desc.hwirq),
            "state": hardware.state(desc.hwirq),
            "edge": hardware.is_edge(desc.hwirq),
        }
        for desc in host.irqs.descs.values()
    ]


def irqs(host: Host) -> State:
    """The host's interrupt descriptors."""
    return [
        {
            "irq": desc.irq,
            "hwirq": desc.hwirq,
            "name": desc.name,
            "requested": desc.handler is not None,
            "depth": desc.depth,
            "pending": desc.pending,
            "forwarded": desc.forwarded,
            "hits": desc.hits,
        }
        for desc in host.irqs.descs.values()
    ]


def vfio(host: Host) -> State:
    """The interrupts of open VFIO devices that can be masked."""
    devices = {file.device.name: file.device for file in host.files.values() if isinstance(file, VfioDeviceFile)}
    return [
        {"device": name, "index": index, "masked": masked}
        for name, device in sorted(devices.items())
        for index, masked in device.masks().items()
    ]


def vgic(host: Host) -> State:
    """The distributor of each virtual machine: interrupts that are not as after reset."""
    return [vm.vgic.dump() for vm in kvm(host).vms if vm.vgic is not None]


def list_registers(host: Host) -> State:
    """The list registers of each vCPU, raw and in words."""
    return [
        {
            "vm": number,
            "vcpu": vcpu.index,
            "in_guest": vcpu.in_guest,
            "blocked": vcpu.blocked,
            "lr": [{"value": lr, "text": vcpu.interface.text(lr)} for lr in vcpu.interface.lr],
            "eisr": vcpu.interface.eisr,
        }
        for number, vm in enumerate(kvm(host).vms)
        for vcpu in vm.vcpus
    ]


def rbtree(host: Host) -> State:
    """The tree of forwarded interrupts of each virtual machine, as nested nodes; None where nothing has one."""
    return [_node(vm.vgic.physmap.root.node) if isinstance(vm.vgic, Vgic) else None for vm in kvm(host).vms]


def iova(host: Host) -> State:
    """What each IOMMU group's devices can reach: the mappings of its container."""
    vfio = host.modules["vfio"]
    assert isinstance(vfio, Vfio)
    return {
        str(number): []
        if group.container is None or group.container.iommu is None
        else [
            {"iova": dma.iova, "size": dma.size, "vaddr": dma.vaddr, "read": dma.read, "write": dma.write}
            for dma in group.container.iommu.mappings()
        ]
        for number, group in sorted(vfio.groups.items())
    }


def counters(host: Host) -> State:
    """How often each event happened."""
    return dict(sorted(host.trace.counters.items()))


#: name -> what it shows
VIEWS: dict[str, Callable[[Host], State]] = {
    "files": files,
    "gic": gic,
    "irqs": irqs,
    "vfio": vfio,
    "vgic": vgic,
    "list-registers": list_registers,
    "rbtree": rbtree,
    "iova": iova,
    "counters": counters,
}


def kvm(host: Host) -> Kvm:
    """The module, with its virtual machines."""
    module = host.modules["kvm"]
    assert isinstance(module, Kvm)
    return module


def _node(node: RbNode | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {
        "virtual": getattr(node, "virt", None),
        "physical": getattr(node, "phys", None),
        "color": "red" if node.is_red else "black",
        "left": _node(node.left),
        "right": _node(node.right),
    }
