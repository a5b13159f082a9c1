"""The forward control of the later drafts: other names, a larger struct, other rules for an active interrupt. 2.6."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import ASSIGN, BAD_POINTERS, CLOSED, CTRL, DEASSIGN, DEVICE, Client, Edge

from kvmvfio_emu import uapi

FORWARD, UNFORWARD = uapi.KVM_DEV_VFIO_DEVICE_FORWARD_IRQ, uapi.KVM_DEV_VFIO_DEVICE_UNFORWARD_IRQ
MASK, TRIGGER = uapi.VFIO_IRQ_SET_ACTION_MASK, uapi.VFIO_IRQ_SET_ACTION_TRIGGER
HWIRQ = 77 + 32
DRAFT3 = ["rfc-v2", "draft-v3"]


def _machine(client: Client) -> tuple[int, int]:
    """(KVM-VFIO device, VFIO device) of a machine that can forward."""
    return client.kvm_vfio(client.machine()[0]), client.device()


def _dev_irq(*gsis: int, **fields: int) -> bytearray:
    """A struct kvm_vfio_dev_irq."""
    defaults = {"argsz": 20 + 4 * len(gsis), "count": len(gsis)}
    tail = b"".join(gsi.to_bytes(4, "little") for gsi in gsis)
    return uapi.pack("struct kvm_vfio_dev_irq", **{**defaults, **fields}) + tail


def _set(client: Client, control: int, attr: int, payload: bytes | bytearray) -> None:
    client.set_at(control, DEVICE, attr, client.pointer(payload))


def test_the_names_changed_but_not_the_numbers() -> None:
    assert (FORWARD, UNFORWARD) == (ASSIGN, DEASSIGN) == (1, 2)


# -- rfc-v2 and draft-v3: the struct of the first RFC --------------------------------------------------------------


@pytest.mark.parametrize("profile", DRAFT3)
def test_forward_and_unforward_with_12_bytes(boot: Callable[..., Client], profile: str) -> None:
    client = boot(profile)
    control, nic = _machine(client)
    before = client.state()
    client.forward(control, FORWARD, nic)
    client.refused("EINVAL", client.forward, control, FORWARD, nic, gsi=81)
    client.refused("EEXIST", client.forward, control, FORWARD, nic, index=1)
    client.forward(control, UNFORWARD, nic)
    client.refused("EINVAL", client.forward, control, UNFORWARD, nic)
    assert client.state() == before


@pytest.mark.parametrize("profile", DRAFT3)
def test_bad_fd_is_ebadf_and_another_file_einval(boot: Callable[..., Client], profile: str) -> None:
    client = boot(profile)
    control, _ = _machine(client)
    client.refused("EBADF", client.forward, control, FORWARD, CLOSED)
    client.refused("EINVAL", client.forward, control, FORWARD, client.eventfd())


def test_active_interrupt_is_the_users_duty_in_rfc_v2(boot: Callable[..., Client]) -> None:
    client = boot("rfc-v2")
    control, nic = _machine(client)
    client.host.machine.gic.set_active(HWIRQ)
    client.forward(control, FORWARD, nic)


def test_forward_while_a_trigger_is_set_is_ebusy_in_draft_v3(boot: Callable[..., Client]) -> None:
    client = boot("draft-v3")
    control, nic = _machine(client)
    client.set_irqs(nic, TRIGGER, client.eventfd())
    client.refused("EBUSY", client.forward, control, FORWARD, nic)
    client.forward(control, FORWARD, nic, index=1)
    client.set_irqs(nic, TRIGGER, -1)
    client.forward(control, FORWARD, nic, gsi=81)


# -- draft-v4 ------------------------------------------------------------------------------------------------------


@pytest.fixture
def v4(boot: Callable[..., Client]) -> Client:
    return boot("draft-v4")


def test_forward_with_the_struct_that_grows(v4: Client) -> None:
    control, nic = _machine(v4)
    before = v4.state()
    _set(v4, control, FORWARD, _dev_irq(80, fd=nic))
    assert [(node.virt, node.phys) for node in v4.host.modules["kvm"].vms[0].vgic.physmap] == [(112, HWIRQ)]
    _set(v4, control, UNFORWARD, _dev_irq(80, fd=nic))
    assert v4.state() == before


@pytest.mark.parametrize("argsz", [0, 12, 19, 20, 23])
def test_argsz_that_does_not_hold_the_gsi_is_einval(v4: Client, argsz: int) -> None:
    control, nic = _machine(v4)
    v4.refused("EINVAL", _set, v4, control, FORWARD, _dev_irq(80, fd=nic, argsz=argsz))


@pytest.mark.parametrize("argsz", [24, 28, 0xFFFFFFFF])
def test_argsz_may_be_larger(v4: Client, argsz: int) -> None:
    control, nic = _machine(v4)
    _set(v4, control, FORWARD, _dev_irq(80, fd=nic, argsz=argsz))


@pytest.mark.parametrize(
    "fields",
    [{"count": 0}, {"count": 2}, {"count": 0xFFFFFFFF}, {"start": 1}, {"start": 0xFFFFFFFF, "count": 2}],
    ids=str,
)
def test_start_other_than_0_or_count_other_than_1_is_einval(v4: Client, fields: dict[str, int]) -> None:
    control, nic = _machine(v4)
    payload = _dev_irq(80, **{"argsz": 0xFFFFFFFF, "fd": nic, **fields})
    v4.refused("EINVAL", _set, v4, control, FORWARD, payload)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_payload_is_efault(v4: Client, pointer: int) -> None:
    control, _ = _machine(v4)
    v4.refused("EFAULT", v4.set_at, control, DEVICE, FORWARD, pointer)


def test_gsi_over_the_end_of_a_mapping_is_efault_before_the_fd_is_looked_at(v4: Client) -> None:
    control, nic = _machine(v4)
    edge = Edge()
    v4.refused("EFAULT", v4.set_at, control, DEVICE, FORWARD, edge.put(_dev_irq(80, fd=CLOSED), beyond=1))
    v4.refused("EFAULT", v4.set_at, control, DEVICE, FORWARD, edge.put(_dev_irq(80, fd=nic), beyond=4))
    assert v4.set_at(control, DEVICE, FORWARD, edge.put(_dev_irq(80, fd=nic))) == 0


@pytest.mark.parametrize(("fd", "name"), [(CLOSED, "EBADF"), (0xFFFFFFFF, "EBADF"), (None, "EINVAL")])
def test_fd_that_is_no_device(v4: Client, fd: int | None, name: str) -> None:
    control, _ = _machine(v4)
    payload = _dev_irq(80, fd=v4.eventfd() if fd is None else fd)
    v4.refused(name, _set, v4, control, FORWARD, payload)


def test_forward_twice_is_einval_in_draft_v4(v4: Client) -> None:
    control, nic = _machine(v4)
    _set(v4, control, FORWARD, _dev_irq(80, fd=nic))
    v4.refused("EINVAL", _set, v4, control, FORWARD, _dev_irq(81, fd=nic))


def test_forward_while_automasked_is_eagain(v4: Client) -> None:
    control, nic = _machine(v4)
    v4.set_irqs(nic, TRIGGER, v4.eventfd())
    v4.kernel.device("10000000.nic").lines[0].set(True)
    v4.refused("EAGAIN", _set, v4, control, FORWARD, _dev_irq(80, fd=nic))


def test_forward_while_masked_by_the_user_is_eagain(v4: Client) -> None:
    control, nic = _machine(v4)
    v4.set_irqs(nic, TRIGGER, v4.eventfd())
    mask = v4.eventfd(1)
    v4.set_irqs(nic, MASK, mask)
    v4.refused("EAGAIN", _set, v4, control, FORWARD, _dev_irq(80, fd=nic))


def test_forward_while_active_is_eagain(v4: Client) -> None:
    control, nic = _machine(v4)
    v4.set_irqs(nic, TRIGGER, v4.eventfd())
    v4.host.machine.gic.set_active(HWIRQ)
    v4.refused("EAGAIN", _set, v4, control, FORWARD, _dev_irq(80, fd=nic))
    v4.host.machine.gic.deactivate(HWIRQ)
    _set(v4, control, FORWARD, _dev_irq(80, fd=nic))


def test_forward_while_armed_and_idle_is_0(v4: Client) -> None:
    control, nic = _machine(v4)
    v4.set_irqs(nic, TRIGGER, v4.eventfd())
    _set(v4, control, FORWARD, _dev_irq(80, fd=nic))


def test_unforward_never_fails_for_an_active_interrupt(v4: Client) -> None:
    control, nic = _machine(v4)
    v4.set_irqs(nic, TRIGGER, v4.eventfd())
    _set(v4, control, FORWARD, _dev_irq(80, fd=nic))
    v4.host.machine.gic.set_active(HWIRQ)
    _set(v4, control, UNFORWARD, _dev_irq(80, fd=nic))
    assert not v4.host.machine.gic.is_active(HWIRQ)


def test_irqfd_before_ctrl_init_is_eagain_in_draft_v4(v4: Client) -> None:
    vm, vgic = v4.machine()
    v4.refused("EAGAIN", v4.irqfd, vm, v4.eventfd(), 80)
    v4.set_at(vgic, CTRL, 0, 0)
    v4.irqfd(vm, v4.eventfd(), 80)
