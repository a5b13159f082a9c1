"""KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ and DEASSIGN_IRQ of the first RFC: every refusal, and their order. Contract 2.5."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import pytest
from support import (
    AMBA,
    ASSIGN,
    BAD_POINTERS,
    BOARD,
    CLOSED,
    DEASSIGN,
    DEVICE,
    NIC,
    NR_IRQS,
    PCI,
    UART,
    Client,
    Edge,
)

from kvmvfio_emu import uapi

BOTH = pytest.mark.parametrize("attr", [ASSIGN, DEASSIGN])
#: The NIC's first interrupt in the GIC.
HWIRQ = 77 + 32


@dataclasses.dataclass
class Ready:
    """A machine that could forward: with VGIC, vCPU, KVM-VFIO device and an assigned NIC."""

    client: Client
    vm: int
    vgic: int
    control: int
    nic: int

    def forward(self, attr: int, fd: int | None = None, index: int = 0, gsi: int = 80) -> None:
        self.client.forward(self.control, attr, self.nic if fd is None else fd, index, gsi)

    def refused(self, name: str, *args: object, **kwargs: object) -> None:
        self.client.refused(name, self.forward, *args, **kwargs)


def _ready(client: Client) -> Ready:
    vm, vgic = client.machine()
    return Ready(client, vm, vgic, client.kvm_vfio(vm), client.device())


@pytest.fixture
def ready(client: Client) -> Ready:
    return _ready(client)


# -- 1, 2: is there such a thing -----------------------------------------------------------------------------------


@BOTH
def test_without_the_arch_hook_is_enxio(boot: Callable[..., Client], attr: int) -> None:
    ready = _ready(boot("mainline"))
    ready.refused("ENXIO", attr)


@BOTH
def test_host_gic_without_split_eoi_is_enxio(boot: Callable[..., Client], attr: int) -> None:
    ready = _ready(boot(board=dataclasses.replace(BOARD, split_eoi=False)))
    ready.refused("ENXIO", attr)
    ready.client.refused("ENXIO", ready.client.has, ready.control, DEVICE, attr)


@pytest.mark.parametrize("attr", [0, 3, 4, 1 << 32])
def test_unknown_attr_is_enxio_before_the_payload_is_read(ready: Ready, attr: int) -> None:
    ready.refused("ENXIO", attr)
    ready.client.refused("ENXIO", ready.client.set_at, ready.control, DEVICE, attr, 0)


# -- 3: the payload ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_payload_is_efault(ready: Ready, attr: int, pointer: int) -> None:
    ready.client.refused("EFAULT", ready.client.set_at, ready.control, DEVICE, attr, pointer)


@BOTH
def test_payload_one_byte_over_the_end_is_efault(ready: Ready, attr: int) -> None:
    payload = Edge().put(bytes(12), beyond=1)
    ready.client.refused("EFAULT", ready.client.set_at, ready.control, DEVICE, attr, payload)


def test_payload_at_the_last_bytes_of_a_mapping(ready: Ready) -> None:
    edge = Edge()
    payload = edge.put(uapi.pack("struct kvm_arch_forwarded_irq", fd=ready.nic, gsi=80))
    assert ready.client.set_at(ready.control, DEVICE, ASSIGN, payload) == 0


# -- 4 to 7: what it names -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("fd", [CLOSED, -1, 0x80000000, 0xFFFFFFFF])
def test_closed_fd_is_ebadf_whatever_index_and_gsi_are(ready: Ready, attr: int, fd: int) -> None:
    ready.refused("EBADF", attr, fd)
    ready.refused("EBADF", attr, fd, index=99, gsi=0xFFFFFFFF)


@BOTH
def test_closed_fd_is_ebadf_even_without_vgic_and_vfio(client: Client, control: int, attr: int) -> None:
    del client.host.modules["vfio"]
    client.refused("EBADF", client.forward, control, attr, CLOSED)


def test_assign_with_group_fd_is_einval(ready: Ready) -> None:
    ready.refused("EINVAL", ASSIGN, ready.client.group(2))


@BOTH
def test_fd_that_is_no_vfio_device_is_einval(ready: Ready, attr: int) -> None:
    client = ready.client
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (client.eventfd(), client.container(), client.kvm, ready.vm, ready.vgic, ready.control, null):
        ready.refused("EINVAL", attr, fd)
    os.close(null)


@BOTH
@pytest.mark.parametrize("name", [PCI, AMBA])
def test_device_that_is_not_on_the_platform_bus_is_einval(ready: Ready, attr: int, name: str) -> None:
    ready.refused("EINVAL", attr, ready.client.device(name))


@BOTH
@pytest.mark.parametrize("index", [3, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_index_without_interrupt_is_einval(ready: Ready, attr: int, index: int) -> None:
    ready.refused("EINVAL", attr, index=index)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_interrupt_can_be_forwarded_level_or_edge(ready: Ready, index: int) -> None:
    ready.forward(ASSIGN, index=index)
    assert [desc.hwirq for desc in ready.client.host.irqs.descs.values() if desc.forwarded] == [HWIRQ + index]


def test_vfio_that_is_not_loaded_is_einval(ready: Ready) -> None:
    vfio = ready.client.host.modules.pop("vfio")
    ready.refused("EINVAL", ASSIGN)
    ready.client.host.modules["vfio"] = vfio


# -- 8, 9: where it goes -------------------------------------------------------------------------------------------


@BOTH
def test_vm_without_vgic_is_einval(client: Client, vm: int, control: int, attr: int) -> None:
    client.vcpu(vm)
    client.refused("EINVAL", client.forward, control, attr, client.device())


@BOTH
def test_vm_without_vcpu_is_einval(client: Client, vm: int, control: int, attr: int) -> None:
    client.vgic(vm)
    client.refused("EINVAL", client.forward, control, attr, client.device())


@pytest.mark.parametrize(
    ("irqs", "last"), [(None, 223), (64, 31), (96, 63), (992, 959), (1024, 987)], ids=lambda value: str(value)
)
def test_gsi_behind_the_last_interrupt_is_einval(ready: Ready, irqs: int | None, last: int) -> None:
    if irqs is not None:
        ready.client.set_u32(ready.vgic, NR_IRQS, 0, irqs)
    for gsi in (last + 1, 0x7FFFFFFF, 0xFFFFFFE0, 0xFFFFFFFF):
        ready.refused("EINVAL", ASSIGN, gsi=gsi)
    ready.forward(ASSIGN, gsi=last)


# -- 10 to 14: assign ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gsi", [80, 81])
def test_assign_twice_is_einval_whatever_the_gsi(ready: Ready, gsi: int) -> None:
    ready.forward(ASSIGN, gsi=80)
    ready.refused("EINVAL", ASSIGN, gsi=gsi)


def test_assign_twice_through_a_dup_is_einval(ready: Ready) -> None:
    ready.forward(ASSIGN)
    ready.refused("EINVAL", ASSIGN, os.dup(ready.nic), gsi=81)


def test_assign_of_another_index_to_a_mapped_gsi_is_eexist(ready: Ready) -> None:
    ready.forward(ASSIGN, index=0)
    ready.refused("EEXIST", ASSIGN, index=1)


def test_assign_of_another_device_to_a_mapped_gsi_is_eexist(ready: Ready) -> None:
    ready.forward(ASSIGN)
    ready.refused("EEXIST", ASSIGN, ready.client.device(UART))


def test_assign_of_what_another_vm_has_is_ebusy(ready: Ready) -> None:
    other = ready.client.machine()[0]
    ready.forward(ASSIGN)
    ready.client.refused("EBUSY", ready.client.forward, ready.client.kvm_vfio(other), ASSIGN, ready.nic)


def test_mapped_gsi_is_eexist_before_another_vm_is_ebusy(ready: Ready) -> None:
    other = ready.client.kvm_vfio(ready.client.machine()[0])
    ready.forward(ASSIGN)
    ready.client.forward(other, ASSIGN, ready.client.device(UART))
    ready.client.refused("EEXIST", ready.client.forward, other, ASSIGN, ready.nic)


def test_deassign_in_another_vm_is_einval(ready: Ready) -> None:
    other = ready.client.machine()[0]
    ready.forward(ASSIGN)
    ready.client.refused("EINVAL", ready.client.forward, ready.client.kvm_vfio(other), DEASSIGN, ready.nic)


def test_same_gsi_in_two_vms(ready: Ready) -> None:
    other = ready.client.machine()[0]
    ready.forward(ASSIGN)
    ready.client.forward(ready.client.kvm_vfio(other), ASSIGN, ready.client.device(UART))


def test_assign_while_active_is_the_users_duty(ready: Ready) -> None:
    ready.client.host.machine.gic.set_active(HWIRQ)
    ready.forward(ASSIGN)
    assert ready.client.kernel.counters["forward_hazard"] == 1


def test_assign_while_active_is_ebusy_when_strict(boot: Callable[..., Client]) -> None:
    ready = _ready(boot(forward_active="strict"))
    ready.client.host.machine.gic.set_active(HWIRQ)
    ready.refused("EBUSY", ASSIGN)
    ready.client.host.machine.gic.deactivate(HWIRQ)
    ready.forward(ASSIGN)


def test_assign_needs_neither_group_add_nor_trigger_nor_irqfd(ready: Ready) -> None:
    before = ready.client.state()
    ready.forward(ASSIGN)
    assert ready.client.state() != before


# -- 15 to 17: de-assign -------------------------------------------------------------------------------------------


def test_deassign_of_what_is_not_forwarded_is_einval(ready: Ready) -> None:
    ready.refused("EINVAL", DEASSIGN)
    ready.forward(ASSIGN)
    ready.refused("EINVAL", DEASSIGN, index=1)


def test_deassign_twice_is_einval(ready: Ready) -> None:
    ready.forward(ASSIGN)
    ready.forward(DEASSIGN)
    ready.refused("EINVAL", DEASSIGN)


@pytest.mark.parametrize("gsi", [80, 0, 223])
def test_deassign_ignores_the_gsi_and_gives_everything_back(ready: Ready, gsi: int) -> None:
    before = ready.client.state()
    ready.forward(ASSIGN, gsi=80)
    ready.forward(DEASSIGN, gsi=gsi)
    assert ready.client.state() == before


def test_deassign_while_active_completes_the_interrupt(ready: Ready) -> None:
    gic = ready.client.host.machine.gic
    ready.forward(ASSIGN)
    gic.set_active(HWIRQ)
    ready.forward(DEASSIGN)
    assert not gic.is_active(HWIRQ)


def test_deassign_frees_the_gsi(ready: Ready) -> None:
    ready.forward(ASSIGN)
    ready.forward(DEASSIGN)
    ready.forward(ASSIGN, index=1)


# -- references and the end ----------------------------------------------------------------------------------------


def test_each_forwarded_interrupt_holds_the_device_once(ready: Ready) -> None:
    device = ready.client.host.modules["vfio"].groups[1].devices[NIC]
    before = device.refs
    for held, index in enumerate((0, 1, 2), 1):
        ready.forward(ASSIGN, index=index, gsi=80 + index)
        assert (device.refs, device.external_users) == (before + held, held)
    ready.forward(DEASSIGN, index=1)
    assert device.refs == before + 2


def test_closing_kvm_vfio_leaves_the_forwarding(ready: Ready) -> None:
    ready.forward(ASSIGN)
    ready.client.close(ready.control)
    assert ready.client.host.irqs.descs[16].forwarded


def test_vm_that_goes_completes_what_is_active(ready: Ready) -> None:
    gic = ready.client.host.machine.gic
    ready.forward(ASSIGN)
    gic.set_active(HWIRQ)
    for fd in ready.client.descriptors():
        if fd != ready.nic:
            ready.client.close(fd)
    assert not gic.is_active(HWIRQ)
    assert not ready.client.host.irqs.descs[16].forwarded


def test_closed_device_is_ebadf_but_a_new_descriptor_of_it_deassigns(client: Client) -> None:
    control, group = client.kvm_vfio(client.machine()[0]), client.group()
    nic = client.device(NIC, group)
    client.forward(control, ASSIGN, nic)
    client.close(nic)
    client.refused("EBADF", client.forward, control, DEASSIGN, nic)
    client.forward(control, DEASSIGN, client.device(NIC, group))
    assert not client.host.irqs.descs[16].forwarded


def test_driver_unbind_waits_for_deassign(ready: Ready) -> None:
    vfio = ready.client.host.modules["vfio"]
    ready.forward(ASSIGN)
    again = os.dup(ready.nic)
    assert not vfio.unbind(NIC)
    ready.forward(DEASSIGN, again)
    ready.client.close(again)
    ready.client.close(ready.nic)
    assert vfio.unbind(NIC)
