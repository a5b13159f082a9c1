"""KVM on x86_64 (profile linux-6.18-x86): interrupt controllers, routing, what a virtual machine does not know."""

from __future__ import annotations

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

    assert [ask(fd) for fd in (x86.kvm, x86.vm(), machine(x86))] == [15, 11, 15]
