"""KVM on x86_64 (profile linux-6.18-x86): interrupt controllers, routing, what a virtual machine does not know."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from linux6 import X86
from support import Client
from test_kvm_vm_linux6 import MSI, PIN, enable, region, routes

from kvmvfio_emu import uapi

IOAPIC = 2000  #: pins of chip 2 as `routes` has them


@pytest.fixture
def x86(boot: Callable[..., Client]) -> Client:
    return boot(X86)


def status(client: Client, vm: int, irq: int, level: int) -> int:
    buffer = uapi.pack("struct kvm_irq_level", irq=irq, level=level)
    client.ioctl(vm, uapi.KVM_IRQ_LINE_STATUS, buffer)
    return int.from_bytes(buffer[:4], "little", signed=True)


def machine(client: Client) -> int:
    """A virtual machine with all interrupt controllers."""
    vm = client.vm()
    client.ioctl(vm, uapi.KVM_CREATE_IRQCHIP)
    return vm


def test_unknown_ioctls_are_enotty_on_a_vm_only(x86: Client) -> None:
    vm = x86.vm()
    for request in (
        0xAEFE,
        uapi.KVM_GET_API_VERSION,
        uapi.KVM_SET_DEVICE_ATTR,
        uapi.KVM_HAS_DEVICE_ATTR,
        uapi.KVM_ARM_PREFERRED_TARGET,
        uapi.KVM_ARM_SET_DEVICE_ADDR,
    ):
        x86.refused("ENOTTY", x86.ioctl, vm, request, 0)
    x86.refused("EINVAL", x86.ioctl, x86.kvm, 0xAEFE, 0)
    x86.refused("EINVAL", x86.ioctl, x86.vcpu(vm), 0xAEFE, 0)


def test_no_vgic_and_no_other_machine_type(x86: Client) -> None:
    vm = x86.vm()
    for kind in (uapi.KVM_DEV_TYPE_ARM_VGIC_V2, uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS):
        x86.refused("ENODEV", x86.create_device, vm, kind)
    for machine_type in (1, 32, 40, 1 << 63):
        x86.refused("EINVAL", x86.ioctl, x86.kvm, uapi.KVM_CREATE_VM, machine_type)


def test_guest_addresses_have_52_bits(x86: Client) -> None:
    vm = x86.vm()
    region(x86, vm, 0, (1 << 52) - 4096, 4096)
    x86.refused("EINVAL", region, x86, vm, 1, 1 << 52, 4096)
    x86.refused("EINVAL", region, x86, vm, 32764, 0, 4096)
    region(x86, vm, 32763, 0, 4096)


def test_run_page_port_data_and_ring(x86: Client) -> None:
    assert x86.ioctl(x86.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE) == 3 * 4096


# -- interrupt controllers -----------------------------------------------------------------------------------------


def test_without_controllers_there_is_nothing_to_interrupt(x86: Client) -> None:
    vm = x86.vm()
    x86.refused("EINVAL", x86.irqfd, vm, -1, 5)
    x86.refused("ENXIO", status, x86, vm, 5, 1)
    x86.refused("EINVAL", routes, x86, vm)
    x86.refused("EINVAL", x86.call, vm, uapi.KVM_SIGNAL_MSI, "kvm_msi")
    x86.refused("EFAULT", x86.ioctl, vm, uapi.KVM_SET_GSI_ROUTING, 0)


def test_controllers_come_once_and_before_vcpus(x86: Client) -> None:
    vm = machine(x86)
    x86.refused("EEXIST", x86.ioctl, vm, uapi.KVM_CREATE_IRQCHIP)
    later = x86.vm()
    x86.vcpu(later)
    x86.refused("EINVAL", x86.ioctl, later, uapi.KVM_CREATE_IRQCHIP)
    x86.refused("EEXIST", enable, x86, later, uapi.KVM_CAP_SPLIT_IRQCHIP, 24)


def test_default_routes_lead_to_pic_and_ioapic(x86: Client) -> None:
    vm = machine(x86)
    # The 8259 counts, and the falling edge at the I/O APIC, whose pins are masked.
    assert [status(x86, vm, 5, level) for level in (1, 1, 0)] == [1, 1, 2]
    # Its request still stands.
    assert [status(x86, vm, 5, level) for level in (1, 1, 0)] == [0, 1, 2]
    # Only the I/O APIC: masked, merged, fallen.
    assert [status(x86, vm, 20, level) for level in (1, 1, 0)] == [-1, 0, 1]
    assert [status(x86, vm, 24, level) for level in (1, 0)] == [-1, -1]


def test_slave_asserts_the_masters_cascade(x86: Client) -> None:
    vm = machine(x86)
    assert [status(x86, vm, 2, level) for level in (1, 1, 0)] == [1, 1, 2]
    status(x86, vm, 9, 1)
    # The cascade has pulled input 2 low, so it rises anew, onto a request that stands.
    assert [status(x86, vm, 2, level) for level in (1, 1)] == [0, 0]


@pytest.mark.parametrize(
    ("chip", "pins"), [(0, 8), (1000, 8), (IOAPIC, 24), (3000, 0)], ids=["master", "slave", "ioapic", "none"]
)
def test_pins_of_each_controller(x86: Client, chip: int, pins: int) -> None:
    vm = machine(x86)
    for pin in range(26):
        if pin < pins:
            routes(x86, vm, (5, PIN, chip + pin))
        else:
            x86.refused("EINVAL", routes, x86, vm, (5, PIN, chip + pin))


def test_one_gsi_may_lead_to_several_controllers_but_not_twice_to_one(x86: Client) -> None:
    vm = machine(x86)
    routes(x86, vm, (5, PIN, 0), (5, PIN, 1000), (5, PIN, IOAPIC))
    x86.refused("EINVAL", routes, x86, vm, (5, PIN, 0), (5, PIN, 1))
    x86.refused("EINVAL", routes, x86, vm, (5, PIN, 0), (5, MSI, 0))


def test_messages_need_somebody_there(x86: Client) -> None:
    vm = machine(x86)
    x86.refused("EPERM", x86.call, vm, uapi.KVM_SIGNAL_MSI, "kvm_msi")
    x86.refused("EINVAL", x86.call, vm, uapi.KVM_SIGNAL_MSI, "kvm_msi", flags=2)
    routes(x86, vm, (5, MSI, 0xFEE00000))
    assert status(x86, vm, 5, 1) == -1
    x86.vcpu(vm)
    assert [status(x86, vm, 5, level) for level in (1, 0)] == [0, -1]
    x86.call(vm, uapi.KVM_SIGNAL_MSI, "kvm_msi")


def test_split_controllers_take_messages_only(x86: Client) -> None:
    vm = x86.vm()
    enable(x86, vm, uapi.KVM_CAP_SPLIT_IRQCHIP, 24)
    x86.refused("EEXIST", x86.ioctl, vm, uapi.KVM_CREATE_IRQCHIP)
    x86.refused("EINVAL", routes, x86, vm, (5, PIN, 5))
    routes(x86, vm, (5, MSI, 0xFEE00000))
    plain, resample = x86.eventfd(), x86.eventfd()
    x86.irqfd(vm, plain, 5)
    x86.refused("EINVAL", x86.irqfd, vm, x86.eventfd(), 5, uapi.KVM_IRQFD_FLAG_RESAMPLE, resample)


def test_an_eventfd_has_one_irqfd_on_the_whole_host(x86: Client) -> None:
    one, two, eventfd = machine(x86), machine(x86), x86.eventfd()
    x86.irqfd(one, eventfd, 5)
    x86.refused("EBUSY", x86.irqfd, two, eventfd, 5)
    x86.close(one)
    x86.irqfd(two, eventfd, 5)


# -- vCPUs, capabilities -------------------------------------------------------------------------------------------


def test_vcpu_ids_can_be_limited(x86: Client) -> None:
    vm = x86.vm()
    x86.refused("EINVAL", x86.vcpu, vm, 4096)
    enable(x86, vm, uapi.KVM_CAP_MAX_VCPU_ID, 3)
    x86.refused("EINVAL", x86.vcpu, vm, 3)
    x86.vcpu(vm, 2)
    x86.refused("EINVAL", enable, x86, vm, uapi.KVM_CAP_MAX_VCPU_ID, 4)


def test_mp_states_beyond_runnable_need_a_local_apic(x86: Client) -> None:
    bare, full = x86.vcpu(x86.vm()), x86.vcpu(machine(x86))
    for state in range(1, 5):
        x86.refused("EINVAL", x86.call, bare, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=state)
        x86.call(full, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=state)
    for vcpu in (bare, full):
        x86.refused("EINVAL", x86.call, vcpu, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=77)


def test_attributes_of_module_and_vcpu(x86: Client) -> None:
    vcpu = x86.vcpu(x86.vm())
    for fd in (x86.kvm, vcpu):
        assert x86.has(fd, 0, 0) == 0
        x86.refused("ENXIO", x86.has, fd, 0, 1)
        x86.refused("ENXIO", x86.has, fd, 1, 0)
        x86.refused("EFAULT", x86.get_at, fd, 0, 0, 0x10)
        x86.refused("EFAULT", x86.ioctl, fd, uapi.KVM_HAS_DEVICE_ATTR, 0)
    x86.set_u64(vcpu, 0, 0, 0x1234)
    assert x86.get(vcpu, 0, 0, size=8) == 0x1234
    x86.refused("EINVAL", x86.ioctl, x86.kvm, uapi.KVM_SET_DEVICE_ATTR, 0)


@pytest.mark.parametrize(
    ("cap", "good", "bad"),
    [("KVM_CAP_X86_DISABLE_EXITS", 0xE, 0x10), ("KVM_CAP_X2APIC_API", 3, 0x10), ("KVM_CAP_EXIT_HYPERCALL", 1 << 12, 1)],
)
def test_switches_take_only_bits_that_there_are(x86: Client, cap: str, good: int, bad: int) -> None:
    vm = x86.vm()
    enable(x86, vm, getattr(uapi, cap), good)
    x86.refused("EINVAL", enable, x86, vm, getattr(uapi, cap), bad)
    x86.refused("EINVAL", enable, x86, vm, getattr(uapi, cap), good, flags=1)


def test_capability_that_depends_on_the_controllers(x86: Client) -> None:
    def ask(fd: int) -> int:
        return int(x86.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_X2APIC_API))

    split = x86.vm()
    enable(x86, split, uapi.KVM_CAP_SPLIT_IRQCHIP, 24)
    assert [ask(fd) for fd in (x86.kvm, x86.vm(), machine(x86), split)] == [15, 11, 11, 15]


# -- what `kvmvfio-emu fuzz --targets emu,host` found ----------------------------------------------------------------


def state(client: Client, vcpu: int) -> int:
    return int(client.call(vcpu, uapi.KVM_GET_MP_STATE, "kvm_mp_state").mp_state)


def test_vcpus_behind_local_apics_wait_to_be_started_but_the_first(x86: Client) -> None:
    vm, bare = machine(x86), x86.vm()
    assert [state(x86, x86.vcpu(vm, number)) for number in (3, 0)] == [uapi.KVM_MP_STATE_UNINITIALIZED, 0]
    assert state(x86, x86.vcpu(bare, 3)) == uapi.KVM_MP_STATE_RUNNABLE


def test_a_sipi_is_taken_when_the_state_is_asked_for(x86: Client) -> None:
    vcpu = x86.vcpu(machine(x86), 1)
    for given, then in (
        (uapi.KVM_MP_STATE_SIPI_RECEIVED, uapi.KVM_MP_STATE_RUNNABLE),
        (uapi.KVM_MP_STATE_INIT_RECEIVED, uapi.KVM_MP_STATE_INIT_RECEIVED),
        (uapi.KVM_MP_STATE_HALTED, uapi.KVM_MP_STATE_HALTED),
    ):
        x86.call(vcpu, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=given)
        assert state(x86, vcpu) == then


NMI, INIT, SIPI, WAKE, LOWEST = 4 << 8, 5 << 8, 6 << 8, 3 << 8, 1 << 8


def send(client: Client, vm: int, data: int, to: int = 0, more: int = 0) -> int:
    packed = uapi.pack("struct kvm_msi", address_lo=0xFEE00000 | to << 12 | more, data=data)
    return int(client.ioctl(vm, uapi.KVM_SIGNAL_MSI, packed))


def test_messages_find_those_that_were_there_at_the_last_reset(x86: Client) -> None:
    vm = machine(x86)
    x86.vcpu(vm, 0)
    assert send(x86, vm, NMI) == 0  # the table was made before that vCPU counted
    x86.refused("EEXIST", x86.vcpu, vm, 0)
    assert send(x86, vm, NMI) == 1
    x86.vcpu(vm, 2)
    assert [send(x86, vm, NMI, to) for to in (0, 1, 2)] == [1, 0, 0]
    assert [send(x86, vm, data) for data in (0x20, LOWEST, 0x200)] == [0, 0, 0]
    assert send(x86, vm, NMI, 0xFF) == 2  # all are asked
    x86.refused("EPERM", send, x86, vm, LOWEST, 0xFF, 4)


def test_init_and_sipi_start_a_vcpu_and_make_the_table_anew(x86: Client) -> None:
    vm = machine(x86)
    x86.vcpu(vm, 0)
    vcpu = x86.vcpu(vm, 2)
    assert send(x86, vm, INIT, 0xFF) == 2
    assert send(x86, vm, NMI, 2) == 0
    assert state(x86, vcpu) == uapi.KVM_MP_STATE_INIT_RECEIVED
    assert send(x86, vm, SIPI, 2) == 1
    assert state(x86, vcpu) == uapi.KVM_MP_STATE_RUNNABLE
    x86.call(vcpu, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=uapi.KVM_MP_STATE_HALTED)
    assert send(x86, vm, WAKE, 2) == 1
    assert state(x86, vcpu) == uapi.KVM_MP_STATE_RUNNABLE


def test_two_vcpus_with_one_short_id_are_both_asked(x86: Client) -> None:
    vm = machine(x86)
    for number in (0, 256):
        x86.vcpu(vm, number)
    x86.refused("EEXIST", x86.vcpu, vm, 0)
    assert send(x86, vm, NMI) == 2
    x86.refused("EPERM", send, x86, vm, NMI, 7)


def test_the_highest_vcpu_id_is_settled_by_the_first_attempt(x86: Client) -> None:
    vm = x86.vm()
    x86.vcpu(vm)
    enable(x86, vm, uapi.KVM_CAP_MAX_VCPU_ID, 4096)
    for ids in (0, 3, 4097):
        x86.refused("EINVAL", enable, x86, vm, uapi.KVM_CAP_MAX_VCPU_ID, ids)


@pytest.mark.parametrize(
    ("cap", "good", "bad"),
    [
        ("EXIT_ON_EMULATION_FAILURE", (0, 1), (2, 3)),
        ("X86_USER_SPACE_MSR", (0, 7), (8,)),
        ("X86_BUS_LOCK_EXIT", (0, 1, 2), (3, 4)),
        ("VM_DISABLE_NX_HUGE_PAGES", (0,), (1,)),
        ("MSR_PLATFORM_INFO", (0, 1 << 63), ()),
    ],
)
def test_arguments_of_switches(x86: Client, cap: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    vm, number = x86.vm(), int(getattr(uapi, f"KVM_CAP_{cap}"))
    for argument in good:
        enable(x86, vm, number, argument)
    for argument in bad:
        x86.refused("EINVAL", enable, x86, vm, number, argument)


@pytest.mark.parametrize("cap", ["X86_DISABLE_EXITS", "VM_DISABLE_NX_HUGE_PAGES"])
def test_switches_that_come_before_vcpus(x86: Client, cap: str) -> None:
    vm, number = x86.vm(), int(getattr(uapi, f"KVM_CAP_{cap}"))
    enable(x86, vm, number, 0)
    x86.vcpu(vm)
    x86.refused("EINVAL", enable, x86, vm, number, 0)


def test_suppression_of_eoi_broadcasts_is_for_split_controllers(x86: Client) -> None:
    vm, cap = machine(x86), uapi.KVM_CAP_X2APIC_API
    enable(x86, vm, cap, 8)
    x86.refused("EINVAL", enable, x86, vm, cap, 4)
    split = x86.vm()
    enable(x86, split, uapi.KVM_CAP_SPLIT_IRQCHIP, 24)
    enable(x86, split, cap, 4)
    x86.refused("EINVAL", enable, x86, split, cap, 12)


def test_bus_cycle_of_local_apics(x86: Client) -> None:
    cap, most = uapi.KVM_CAP_X86_APIC_BUS_CYCLES_NS, 1 << 25
    x86.refused("ENXIO", enable, x86, x86.vm(), cap, 1)
    x86.refused("EINVAL", enable, x86, x86.vm(), cap, 0)
    vm = machine(x86)
    enable(x86, vm, cap, most)
    x86.refused("EINVAL", enable, x86, vm, cap, most + 1)
    x86.vcpu(vm)
    x86.refused("EINVAL", enable, x86, vm, cap, 1)


@pytest.mark.parametrize("cap", [uapi.KVM_CAP_DIRTY_LOG_RING, uapi.KVM_CAP_DIRTY_LOG_RING_ACQ_REL])
def test_rings_of_dirty_pages_take_the_place_of_the_logs(x86: Client, cap: int) -> None:
    vm = x86.vm()
    for size in (0, 1, 2048, 4096 + 8):
        x86.refused("EINVAL", enable, x86, vm, cap, size)
    x86.refused("E2BIG", enable, x86, vm, cap, 1 << 21)
    enable(x86, vm, cap, 1 << 20)
    x86.refused("EINVAL", enable, x86, vm, cap, 1 << 20)
    x86.refused("ENXIO", x86.call, vm, uapi.KVM_GET_DIRTY_LOG, "kvm_dirty_log")
    x86.refused("ENXIO", x86.call, vm, uapi.KVM_CLEAR_DIRTY_LOG, "kvm_clear_dirty_log")
    late = x86.vm()
    x86.vcpu(late)
    x86.refused("EINVAL", enable, x86, late, cap, 4096)


def test_an_eventfd_that_loses_its_irqfd_loses_its_count(x86: Client) -> None:
    for end in ("deassign", "close"):
        vm, eventfd = machine(x86), x86.eventfd(1)
        x86.irqfd(vm, eventfd, 5)
        if end == "deassign":
            x86.irqfd(vm, eventfd, 5, uapi.KVM_IRQFD_FLAG_DEASSIGN)
        else:
            x86.close(vm)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(eventfd)
