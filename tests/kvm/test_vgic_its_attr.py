"""KVM_DEV_TYPE_ARM_VGIC_ITS: creation, ADDR, CTRL and ITS_REGS."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from gicv3_rig import INIT, ITS, ITS_BASE, ITS_REGS, UNSET, Machine, boot_v3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from its_rig import BASER0, BASER1, CBASER, CREADR, CTLR, CWRITER, IIDR, TYPER, Guest
from support import ADDR, BAD_POINTERS, CTRL, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, wait_for_interrupt
from kvmvfio_emu.guest.script import Routine
from kvmvfio_emu.kernel.errors import KernelError

FRESH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
QUAD = st.integers(0, (1 << 64) - 1)
TYPE = uapi.KVM_VGIC_ITS_ADDR_TYPE
SAVE, RESTORE, RESET = (
    uapi.KVM_DEV_ARM_ITS_SAVE_TABLES,
    uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES,
    uapi.KVM_DEV_ARM_ITS_CTRL_RESET,
)
MSI_DEVID = uapi.KVM_CAP_MSI_DEVID


@pytest.fixture
def client(boot: Callable[..., Client]) -> Client:
    return boot_v3(boot)


@pytest.fixture
def machine(client: Client) -> Machine:
    """Initialised, with an ITS that has an address."""
    machine = Machine(client, 2)
    machine.add_its()
    return machine


# -- creation and address ---------------------------------------------------------------------------------------------


def test_its_comes_before_or_after_the_gic_and_as_often_as_wanted(client: Client) -> None:
    vm = client.vm()
    its = [client.create_device(vm, ITS)]
    client.create_device(vm, 7)
    its += [client.create_device(vm, ITS), client.create_device(vm, ITS)]
    assert all(client.kernel.emulates(fd) for fd in its)


def test_its_makes_msis_need_a_device_id(client: Client) -> None:
    vm = client.vm()
    assert client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, MSI_DEVID) == 0
    client.create_device(vm, ITS)
    assert client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, MSI_DEVID) == 1


def test_address(client: Client) -> None:
    machine = Machine(client, 1, ready=False)
    its = machine.add_its(None)
    assert client.get(its, ADDR, TYPE, 8) == UNSET
    for value, name in (
        (ITS_BASE + 0x1000, "EINVAL"),
        (1 << 40, "E2BIG"),
        ((1 << 40) - 0x10000, "E2BIG"),
        (UNSET & ~0xFFFF, "EINVAL"),
    ):
        client.refused(name, client.set_u64, its, ADDR, TYPE, value)
    client.set_u64(its, ADDR, TYPE, (1 << 40) - 0x20000)
    assert client.get(its, ADDR, TYPE, 8) == (1 << 40) - 0x20000
    client.refused("EEXIST", client.set_u64, its, ADDR, TYPE, ITS_BASE)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 5, 6])
def test_other_address_types_are_enodev_but_not_there(machine: Machine, kind: int) -> None:
    client = machine.client
    client.refused("ENXIO", client.has, machine.its, ADDR, kind)
    client.refused("ENODEV", client.set_at, machine.its, ADDR, kind, 0)
    client.refused("ENODEV", client.get_at, machine.its, ADDR, kind, 0)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
@pytest.mark.parametrize(("group", "attr"), [(ADDR, TYPE), (ITS_REGS, CTLR), (ITS_REGS, CBASER)])
def test_wild_pointers(machine: Machine, group: int, attr: int, pointer: int) -> None:
    machine.client.refused("EFAULT", machine.client.set_at, machine.its, group, attr, pointer)
    machine.client.refused("EFAULT", machine.client.get_at, machine.its, group, attr, pointer)


@pytest.mark.parametrize("group", [1, 2, 3, 5, 6, 7, 9])
def test_other_groups_are_enxio(machine: Machine, group: int) -> None:
    machine.client.refused("ENXIO", machine.client.has, machine.its, group, 0)
    machine.client.refused("ENXIO", machine.client.set_at, machine.its, group, 0, 0)
    machine.client.refused("ENXIO", machine.client.get_at, machine.its, group, 0, 0)


# -- control ----------------------------------------------------------------------------------------------------------


def test_controls(machine: Machine) -> None:
    client = machine.client
    for attribute in (INIT, SAVE, RESTORE, RESET):
        assert client.has(machine.its, CTRL, attribute) == 0
        assert client.set_at(machine.its, CTRL, attribute, 0) == 0
    for attribute in (3, 5, 99):
        client.refused("ENXIO", client.has, machine.its, CTRL, attribute)
        assert client.set_at(machine.its, CTRL, attribute, 0) == 0
    client.refused("ENXIO", client.get_at, machine.its, CTRL, INIT, 0)


def test_while_a_vcpu_runs_all_but_init_is_ebusy(machine: Machine) -> None:
    def main(cpu: Cpu) -> Routine:
        while True:
            yield wait_for_interrupt()

    client = machine.client
    client.kernel.attach_guest(0, Script(main))
    call = client.kernel.start(machine.vcpus[0], uapi.KVM_RUN)
    client.kernel.run()
    assert client.set_at(machine.its, CTRL, INIT, 0) == 0
    for attribute in (SAVE, RESTORE, RESET, 99):
        client.refused("EBUSY", client.set_at, machine.its, CTRL, attribute, 0)
    client.refused("EBUSY", machine.its_reg, CTLR)
    client.refused("EINVAL", machine.its_reg, CTLR + 1)
    client.refused("EBUSY", machine.sysreg, 0xC230)
    client.refused("EBUSY", client.set_at, machine.gic, CTRL, uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, 0)
    call.interrupt()


# -- registers --------------------------------------------------------------------------------------------------------


def test_map_of_the_registers(machine: Machine) -> None:
    device = machine.model.devices[-1]
    attr = uapi.view("struct kvm_device_attr", uapi.pack("struct kvm_device_attr", group=ITS_REGS))
    found: dict[str, set[int]] = {"": set(), "EINVAL": set()}
    for offset in range(0, 0x20010, 2):
        attr.attr = offset
        try:
            device.has_attr(attr)
        except KernelError as error:
            if error.errno == errno.EINVAL:
                found["EINVAL"].add(offset)
        else:
            found[""].add(offset)
    ids = set(range(0xFFD0, 0x10000, 4))
    assert found[""] == {0, 4, 8, 0x80, 0x88, 0x90, *range(0x100, 0x140, 8), *ids}
    wide = {offset for offset in range(8, 0xFFD0, 2) if offset % 8}
    narrow = {offset for offset in (*range(8), *range(0xFFD0, 0x20010)) if offset % 4 == 2}
    assert found["EINVAL"] == wide | narrow


def test_without_an_address_there_are_no_registers(client: Client) -> None:
    machine = Machine(client, 1)
    machine.add_its(None)
    assert client.has(machine.its, ITS_REGS, CTLR) == 0
    client.refused("ENXIO", machine.its_reg, CTLR)
    client.refused("EINVAL", machine.its_reg, CBASER + 4)


@pytest.mark.parametrize("offset", [0x10, 0x98, 0x140, 0x10040, 0x20000])
def test_no_register(machine: Machine, offset: int) -> None:
    machine.client.refused("ENXIO", machine.its_reg, offset)
    machine.client.refused("ENXIO", machine.its_reg, offset, 0)


def test_reset_values(machine: Machine) -> None:
    baser = 3 << 59 | 1 << 10 | 2 << 8 | 7 << 48
    expected = {CTLR: 1 << 31, IIDR: 0x4B00043B, CBASER: 0, CWRITER: 0, CREADR: 0}
    expected |= {TYPER: 1 | 7 << 4 | 15 << 8 | 15 << 13, BASER0: baser | 1 << 56, BASER1: baser | 4 << 56, 0x110: 0}
    expected |= {0xFFE0: 0x92, 0xFFE4: 0xB4, 0xFFE8: 0x3B, 0xFFD0: 0x40, 0xFFD4: 0}
    expected |= {0xFFF0: 0x0D, 0xFFF4: 0xF0, 0xFFF8: 0x05, 0xFFFC: 0xB1}
    assert {offset: machine.its_reg(offset) for offset in expected} == expected


def attributes(value: int) -> int:
    """Shareability 11:10, inner cacheability 61:59, outer 55:53 as KVM leaves them."""
    inner, share, outer = value >> 59 & 7, value >> 10 & 3, value >> 53 & 7
    value &= ~(7 << 59 | 3 << 10 | 7 << 53)
    return value | (3 if inner < 2 else inner) << 59 | (1 if share == 2 else share) << 10 | (outer == 1) << 53


@given(value=QUAD)
@FRESH
def test_base_registers_are_sanitised(machine: Machine, value: int) -> None:
    fixed = 0x1F << 48 | 7 << 56 | 3 << 8
    for offset, kind, lost in ((BASER0, 1, 0), (BASER1, 4, 1 << 62)):
        machine.its_reg(offset, value)
        expected = attributes(value) & ~(fixed | lost) | 7 << 48 | kind << 56 | 2 << 8
        assert machine.its_reg(offset) == expected
    machine.its_reg(0x110, value)
    assert machine.its_reg(0x110) == 0
    machine.its_reg(CBASER, value)
    assert machine.its_reg(CBASER) == attributes(value) & ~0xF000


def test_command_queue_starts_anew_with_its_address(machine: Machine) -> None:
    machine.its_reg(CBASER, 1)
    machine.its_reg(CWRITER, 0x1FE0 | 0x1F)
    machine.its_reg(CREADR, 0x40)
    assert (machine.its_reg(CWRITER), machine.its_reg(CREADR)) == (0x1FE0, 0x40)
    assert machine.its_reg(CTLR) == 0
    machine.its_reg(CWRITER, 0x2000)  # beyond
    assert machine.its_reg(CWRITER) == 0x1FE0
    machine.client.refused("EINVAL", machine.its_reg, CREADR, 0x2000)
    machine.its_reg(CBASER, 0)
    assert (machine.its_reg(CWRITER), machine.its_reg(CREADR)) == (0, 0)


def test_enabling_needs_all_three_tables(machine: Machine) -> None:
    valid = 1 << 63
    for registers in ((), (BASER0,), (BASER0, BASER1), (BASER0, CBASER), (BASER1, CBASER)):
        for register in (BASER0, BASER1, CBASER):
            machine.its_reg(register, valid if register in registers else 0)
        machine.its_reg(CTLR, 1)
        assert machine.its_reg(CTLR) == 1 << 31, registers


def test_enabled_its_keeps_its_tables(machine: Machine) -> None:
    Guest(machine)
    before = [machine.its_reg(register) for register in (BASER0, BASER1, CBASER)]
    for register in (BASER0, BASER1, CBASER):
        machine.its_reg(register, 0)
    assert [machine.its_reg(register) for register in (BASER0, BASER1, CBASER)] == before
    machine.client.refused("EBUSY", machine.its_reg, CREADR, 0)
    assert machine.its_reg(CTLR) == 1 << 31 | 1
    machine.client.set_at(machine.its, CTRL, RESET, 0)
    assert machine.its_reg(CTLR) == 1 << 31
    assert [machine.its_reg(register) >> 63 for register in (BASER0, BASER1, CBASER)] == [0, 0, 0]


@pytest.mark.parametrize("value", [0x1000, 0xF000])
def test_iidr_takes_the_revision_of_the_tables(machine: Machine, value: int) -> None:
    machine.client.refused("EINVAL", machine.its_reg, IIDR, value)
    machine.its_reg(IIDR, 0xFFFF0FFF)
    assert machine.its_reg(IIDR) == 0x4B00043B
