"""Every ioctl with a struct, at the very end of a mapping: up to the last byte it works, one byte over is EFAULT."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import CPU, DIST, DIST_BASE, NR_IRQS, Client, Edge

from kvmvfio_emu import uapi

Case = tuple[int, bytes | bytearray]
#: name -> (request, struct) that works on a VM with a VGIC and a vCPU. Written as functions of the client.
VM_CASES: dict[str, Callable[[Client], Case]] = {
    "KVM_CREATE_DEVICE": lambda client: (
        uapi.KVM_CREATE_DEVICE,
        uapi.pack("struct kvm_create_device", type=uapi.KVM_DEV_TYPE_VFIO, flags=1),
    ),
    "KVM_SET_USER_MEMORY_REGION": lambda client: (
        uapi.KVM_SET_USER_MEMORY_REGION,
        uapi.pack("struct kvm_userspace_memory_region", memory_size=0x1000, userspace_addr=0x10000),
    ),
    "KVM_IRQ_LINE": lambda client: (
        uapi.KVM_IRQ_LINE,
        uapi.pack("struct kvm_irq_level", irq=1 << 24 | 32, level=1),
    ),
    "KVM_IRQ_LINE_STATUS": lambda client: (
        uapi.KVM_IRQ_LINE_STATUS,
        uapi.pack("struct kvm_irq_level", irq=1 << 24 | 32, level=1),
    ),
    "KVM_IRQFD": lambda client: (uapi.KVM_IRQFD, uapi.pack("struct kvm_irqfd", fd=client.eventfd())),
    "KVM_IOEVENTFD": lambda client: (
        uapi.KVM_IOEVENTFD,
        uapi.pack("struct kvm_ioeventfd", fd=client.eventfd(), addr=0x1000, len=4),
    ),
    "KVM_ARM_PREFERRED_TARGET": lambda client: (uapi.KVM_ARM_PREFERRED_TARGET, bytes(32)),
    "KVM_SET_GSI_ROUTING": lambda client: (
        uapi.KVM_SET_GSI_ROUTING,
        uapi.pack("struct kvm_irq_routing", nr=1)
        + uapi.pack("struct kvm_irq_routing_entry", gsi=5, type=uapi.KVM_IRQ_ROUTING_IRQCHIP),
    ),
}


@pytest.mark.parametrize("name", VM_CASES)
@pytest.mark.parametrize("beyond", [1, 4])
def test_vm_struct_over_the_end_is_efault_and_up_to_it_works(
    boot: Callable[..., Client], name: str, beyond: int
) -> None:
    client = boot(irq_routing=True)
    vm, _ = client.machine()
    request, struct = VM_CASES[name](client)
    edge = Edge()
    client.refused("EFAULT", client.ioctl, vm, request, edge.put(struct, beyond=beyond))
    assert client.ioctl(vm, request, edge.put(struct)) == 0


@pytest.mark.parametrize("beyond", [1, 8])
def test_device_attr_over_the_end_is_efault_and_up_to_it_works(client: Client, vm: int, beyond: int) -> None:
    vgic, edge = client.vgic(vm), Edge()
    payload = client.pointer((64).to_bytes(4, "little"))
    struct = uapi.pack("struct kvm_device_attr", group=NR_IRQS, addr=payload)
    for request in (uapi.KVM_HAS_DEVICE_ATTR, uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_GET_DEVICE_ATTR):
        client.refused("EFAULT", client.ioctl, vgic, request, edge.put(struct, beyond=beyond))
        assert client.ioctl(vgic, request, edge.put(struct)) == 0


def test_legacy_address_over_the_end_is_efault_and_up_to_it_works(client: Client, vm: int) -> None:
    client.ioctl(vm, uapi.KVM_CREATE_IRQCHIP)
    edge = Edge()
    for frame in (DIST, CPU):
        struct = uapi.pack("struct kvm_arm_device_addr", id=frame, addr=DIST_BASE + 0x10000 * frame)
        client.refused("EFAULT", client.ioctl, vm, uapi.KVM_ARM_SET_DEVICE_ADDR, edge.put(struct, beyond=1))
        assert client.ioctl(vm, uapi.KVM_ARM_SET_DEVICE_ADDR, edge.put(struct)) == 0


def test_struct_that_cannot_be_written_back_is_efault(client: Client, vm: int) -> None:
    address = Edge(writable=False).put(bytes(32))
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_ARM_PREFERRED_TARGET, address)


def test_struct_that_is_only_read_may_be_read_only(client: Client) -> None:
    vm, _ = client.machine()
    address = Edge(writable=False).put(uapi.pack("struct kvm_irqfd", fd=client.eventfd()))
    assert client.ioctl(vm, uapi.KVM_IRQFD, address) == 0
