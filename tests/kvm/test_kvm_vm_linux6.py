"""Virtual machines of Linux 6.1 and 6.12: machine types, capabilities, dirty logs, routing, coalesced writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from linux6 import ARM, NEW, OLD
from support import Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, write
from kvmvfio_emu.guest.script import Routine

IPA_LIMIT = 44
BASE, PAGE = 0x40000000, 4096


@pytest.fixture(params=ARM)
def linux(request: pytest.FixtureRequest, boot: Callable[..., Client]) -> Client:
    return boot(request.param)


def region(client: Client, vm: int, slot: int, gpa: int, size: int, flags: int = 0, hva: int = 0x100000) -> None:
    fields = {"slot": slot, "guest_phys_addr": gpa, "memory_size": size, "flags": flags, "userspace_addr": hva}
    client.call(vm, uapi.KVM_SET_USER_MEMORY_REGION, "kvm_userspace_memory_region", **fields)


def enable(client: Client, fd: int, cap: int, argument: int = 0, flags: int = 0) -> None:
    buffer = uapi.pack("struct kvm_enable_cap", cap=cap, flags=flags)
    uapi.view("struct kvm_enable_cap", buffer).args[0] = argument
    client.ioctl(fd, uapi.KVM_ENABLE_CAP, buffer)


# -- machine types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0, 32, 36, 40, 43, 44])
def test_type_is_the_size_of_guest_addresses(linux: Client, bits: int) -> None:
    vm = linux.ioctl(linux.kvm, uapi.KVM_CREATE_VM, bits)
    limit = 1 << (bits or 40)
    region(linux, vm, 0, limit - PAGE, PAGE)
    linux.refused("EFAULT", region, linux, vm, 1, limit, PAGE)


@pytest.mark.parametrize("machine_type", [1, 31, 45, 48, 52, 255, 256, 0x80000000, 0x80000028, (1 << 64) - 1])
def test_other_types_are_einval(linux: Client, machine_type: int) -> None:
    linux.refused("EINVAL", linux.ioctl, linux.kvm, uapi.KVM_CREATE_VM, machine_type)


def test_overlap_is_seen_before_the_end_of_the_guest_addresses(linux: Client) -> None:
    vm = linux.vm()
    region(linux, vm, 0, (1 << 40) - PAGE, PAGE)
    linux.refused("EEXIST", region, linux, vm, 1, (1 << 40) - PAGE, 2 * PAGE)


# -- capabilities --------------------------------------------------------------------------------------------------


def test_whether_messages_need_a_device_id_only_a_vm_can_say(linux: Client) -> None:
    linux.refused("EINVAL", linux.ioctl, linux.kvm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MSI_DEVID)
    assert linux.ioctl(linux.vm(), uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MSI_DEVID) == 0


@pytest.mark.parametrize(
    "cap", [uapi.KVM_CAP_ARM_NISV_TO_USER, uapi.KVM_CAP_ARM_SYSTEM_SUSPEND, uapi.KVM_CAP_HALT_POLL]
)
def test_capabilities_that_can_be_enabled(linux: Client, cap: int) -> None:
    vm = linux.vm()
    enable(linux, vm, cap)
    linux.refused("EINVAL", enable, linux, vm, cap, flags=1)


@pytest.mark.parametrize("cap", [9999, uapi.KVM_CAP_IRQFD, uapi.KVM_CAP_ARM_MTE])
def test_others_are_einval(linux: Client, cap: int) -> None:
    linux.refused("EINVAL", enable, linux, linux.vm(), cap)
    linux.refused("EINVAL", enable, linux, linux.vcpu(linux.vm()), cap)
    linux.refused("EFAULT", linux.ioctl, linux.vm(), uapi.KVM_ENABLE_CAP, 0)


# -- the virtual machine's attributes ------------------------------------------------------------------------------


def _filter(client: Client, vm: int, base: int, count: int, action: int = uapi.KVM_SMCCC_FILTER_DENY) -> None:
    payload = uapi.pack("struct kvm_smccc_filter", base=base, nr_functions=count, action=action)
    client.set_at(vm, uapi.KVM_ARM_VM_SMCCC_CTRL, uapi.KVM_ARM_VM_SMCCC_FILTER, client.pointer(payload))


def test_attributes_of_a_vm_are_unknown_to_6_1(boot: Callable[..., Client]) -> None:
    client = boot(OLD)
    vm = client.vm()
    for request in (uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_HAS_DEVICE_ATTR, uapi.KVM_GET_DEVICE_ATTR):
        client.refused("EINVAL", client.ioctl, vm, request, 0)


def test_filter_of_firmware_calls_on_6_12(boot: Callable[..., Client]) -> None:
    client = boot(NEW)
    vm = client.vm()
    assert client.has(vm, 0, 0) == 0
    for group, attr in ((0, 1), (1, 0), (99, 0)):
        client.refused("ENXIO", client.has, vm, group, attr)
    client.refused("EINVAL", client.ioctl, vm, uapi.KVM_GET_DEVICE_ATTR, 0)  # there is nothing to get
    client.refused("EFAULT", client.set_at, vm, 0, 0, 0)
    client.refused("EINVAL", _filter, client, vm, 0x86000000, 0)
    client.refused("EINVAL", _filter, client, vm, 0xFFFFFFFF, 2)
    client.refused("EINVAL", _filter, client, vm, 0x86000000, 1, 3)
    client.refused("EEXIST", _filter, client, vm, 0x80000000, 1)  # SMCCC's own
    _filter(client, vm, 0x86000000, 0x10)
    client.refused("EEXIST", _filter, client, vm, 0x8600000F, 1)
    firmware = client.host.modules["kvm"].vms[0].arch.firmware
    assert [firmware.action(call) for call in (0x86000000, 0x8600000F, 0x86000010)] == [1, 1, 0]


# -- dirty logs ----------------------------------------------------------------------------------------------------


def _log(client: Client, vm: int, slot: int = 0) -> int:
    memory = uapi.ffi.new("uint64_t[3]")
    buffer = uapi.pack("struct kvm_dirty_log", slot=slot)
    uapi.view("struct kvm_dirty_log", buffer).dirty_bitmap = memory
    client.ioctl(vm, uapi.KVM_GET_DIRTY_LOG, buffer)
    return sum(int(word) << 64 * index for index, word in enumerate(memory))


def _clear(client: Client, vm: int, first: int, count: int, bits: int, slot: int = 0) -> None:
    memory = uapi.ffi.new("uint64_t[3]", [bits >> 64 * word & (1 << 64) - 1 for word in range(3)])
    buffer = uapi.pack("struct kvm_clear_dirty_log", slot=slot, first_page=first, num_pages=count)
    uapi.view("struct kvm_clear_dirty_log", buffer).dirty_bitmap = memory
    client.ioctl(vm, uapi.KVM_CLEAR_DIRTY_LOG, buffer)


def test_log_that_is_cleared_by_hand_starts_full(linux: Client) -> None:
    vm = linux.vm()
    enable(linux, vm, uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3)
    region(linux, vm, 0, BASE, 130 * PAGE, uapi.KVM_MEM_LOG_DIRTY_PAGES)
    assert _log(linux, vm) == _log(linux, vm) == (1 << 130) - 1
    _clear(linux, vm, 64, 64, 0b101)
    assert _log(linux, vm) == (1 << 130) - 1 & ~(0b101 << 64)
    _clear(linux, vm, 128, 2, 0b11)
    assert _log(linux, vm) == (1 << 128) - 1 & ~(0b101 << 64)


@pytest.mark.parametrize("options", [2, 4, 5])
def test_options_of_the_dirty_log_that_there_are_not(linux: Client, options: int) -> None:
    linux.refused("EINVAL", enable, linux, linux.vm(), uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, options)


@pytest.mark.parametrize(
    ("first", "count", "slot", "name"),
    [
        (1, 64, 0, "EINVAL"),
        (0, 1, 0, "EINVAL"),
        (0, 131, 0, "EINVAL"),
        (192, 0, 0, "EINVAL"),
        (0, 64, 1, "ENOENT"),
        (0, 64, 7, "ENOENT"),
        (1, 64, 7, "EINVAL"),
        (0, 64, 32767, "EINVAL"),
    ],
)
def test_clear_of_what_there_is_not(linux: Client, first: int, count: int, slot: int, name: str) -> None:
    vm = linux.vm()
    region(linux, vm, 0, BASE, 130 * PAGE, uapi.KVM_MEM_LOG_DIRTY_PAGES)
    region(linux, vm, 1, 2 * BASE, PAGE)
    linux.refused(name, _clear, linux, vm, first, count, 0, slot)


def test_clear_reads_no_bitmap_beyond_what_it_needs(linux: Client) -> None:
    vm = linux.vm()
    region(linux, vm, 0, BASE, 130 * PAGE, uapi.KVM_MEM_LOG_DIRTY_PAGES)
    wild = uapi.pack("struct kvm_clear_dirty_log", num_pages=64)
    linux.refused("EFAULT", linux.ioctl, vm, uapi.KVM_CLEAR_DIRTY_LOG, wild)
    linux.ioctl(vm, uapi.KVM_CLEAR_DIRTY_LOG, uapi.pack("struct kvm_clear_dirty_log", num_pages=0))


def test_regions_of_the_second_kind_are_known_to_6_12(boot: Callable[..., Client]) -> None:
    request = uapi.KVM_SET_USER_MEMORY_REGION2
    for profile in ARM:
        client = boot(profile)
        vm = client.vm()
        fields = {"guest_phys_addr": BASE, "memory_size": PAGE, "userspace_addr": 0x100000}
        if profile == OLD:
            client.refused("EINVAL", client.ioctl, vm, request, 0)
            continue
        client.call(vm, request, "kvm_userspace_memory_region2", **fields)
        client.refused("EEXIST", region, client, vm, 1, BASE, PAGE)
        client.refused("EFAULT", client.ioctl, vm, request, 0)
        client.refused("EINVAL", client.call, vm, request, "kvm_userspace_memory_region2", flags=4, **fields)


# -- routing -------------------------------------------------------------------------------------------------------


def routes(client: Client, vm: int, *entries: tuple[int, int, int], flags: int = 0) -> None:
    """KVM_SET_GSI_ROUTING: (gsi, type, pin or address)."""
    raw = bytearray(uapi.pack("struct kvm_irq_routing", nr=len(entries), flags=flags))
    for gsi, kind, value in entries:
        entry = uapi.pack("struct kvm_irq_routing_entry", gsi=gsi, type=kind)
        struct = uapi.view("struct kvm_irq_routing_entry", entry)
        if kind == uapi.KVM_IRQ_ROUTING_MSI:
            struct.u.msi.address_lo = value
        else:
            struct.u.irqchip.irqchip, struct.u.irqchip.pin = divmod(value, 1000)
        raw += entry
    client.ioctl(vm, uapi.KVM_SET_GSI_ROUTING, raw)


PIN, MSI = uapi.KVM_IRQ_ROUTING_IRQCHIP, uapi.KVM_IRQ_ROUTING_MSI


@pytest.mark.parametrize(
    "entries",
    [
        [(5, PIN, 988)],
        [(5, PIN, 1005)],  # chip 1
        [(4096, MSI, 0)],
        [(5, PIN, 5), (5, PIN, 6)],
        [(5, PIN, 5), (5, MSI, 0)],
        [(5, MSI, 0), (5, MSI, 0)],
        [(5, 0, 0)],
        [(5, 9, 0)],
    ],
)
def test_routes_that_cannot_be_are_einval(linux: Client, entries: list[tuple[int, int, int]]) -> None:
    linux.refused("EINVAL", routes, linux, linux.vm(), *entries)


def test_routes_that_can_be_even_without_a_vgic(linux: Client) -> None:
    vm = linux.vm()
    routes(linux, vm, (5, PIN, 987), (6, PIN, 987), (4095, MSI, 0xFEE00000))
    routes(linux, vm)
    linux.refused("EINVAL", routes, linux, vm, flags=1)


def test_message_needs_an_its(linux: Client) -> None:
    vm = linux.vm()
    signal, name = uapi.KVM_SIGNAL_MSI, "kvm_msi"
    linux.refused("EFAULT", linux.ioctl, vm, signal, 0)
    linux.refused("EINVAL", linux.call, vm, signal, name)
    linux.vgic(vm)
    linux.refused("EINVAL", linux.call, vm, signal, name, flags=2)
    for flags in (0, 1):
        linux.refused("ENODEV", linux.call, vm, signal, name, flags=flags)


# -- coalesced writes ----------------------------------------------------------------------------------------------


def test_coalesced_writes_are_found_in_the_ring(linux: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(0x1000, 0x11223344)
        yield write(0x10FE, 5, size=2)
        yield write(0x10FF, 6, size=2)  # the second byte is outside

    linux.kernel.attach_guest(0, Script(main))
    vm = linux.vm()
    vcpu = linux.vcpu(vm, init=True)
    linux.call(vm, uapi.KVM_REGISTER_COALESCED_MMIO, "kvm_coalesced_mmio_zone", addr=0x1000, size=0x100)
    with linux.run_page(vcpu) as run:
        linux.ioctl(vcpu, uapi.KVM_RUN)
        assert run.mmio.phys_addr == 0x10FF
        ring = uapi.ffi.cast("struct kvm_coalesced_mmio_ring *", uapi.ffi.cast("char *", run) + PAGE)
        assert (ring.first, ring.last) == (0, 2)
        entries = [ring.coalesced_mmio[index] for index in range(2)]
        assert [(entry.phys_addr, entry.len, bytes(entry.data)[:2]) for entry in entries] == [
            (0x1000, 4, b"\x44\x33"),
            (0x10FE, 2, b"\x05\x00"),
        ]


def test_full_ring_makes_writes_exit(linux: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        while True:
            yield write(0x1000, 1)

    linux.kernel.attach_guest(0, Script(main))
    vm = linux.vm()
    vcpu = linux.vcpu(vm, init=True)
    linux.call(vm, uapi.KVM_REGISTER_COALESCED_MMIO, "kvm_coalesced_mmio_zone", addr=0x1000, size=0x100)
    with linux.run_page(vcpu) as run:
        linux.ioctl(vcpu, uapi.KVM_RUN)
        ring = uapi.ffi.cast("struct kvm_coalesced_mmio_ring *", uapi.ffi.cast("char *", run) + PAGE)
        assert ring.last == (PAGE - 8) // 24 - 1
        assert run.exit_reason == uapi.KVM_EXIT_MMIO


def test_zones_end_when_they_lie_within_what_is_unregistered(linux: Client) -> None:
    vm = linux.vm()
    zones = linux.host.modules["kvm"].vms[0].coalesced
    for request, size, left in (
        (uapi.KVM_REGISTER_COALESCED_MMIO, 0x100, 1),
        (uapi.KVM_UNREGISTER_COALESCED_MMIO, 0x1000, 1),
        (uapi.KVM_UNREGISTER_COALESCED_MMIO, 0x80, 0),
        (uapi.KVM_UNREGISTER_COALESCED_MMIO, 0x80, 0),
    ):
        linux.call(vm, request, "kvm_coalesced_mmio_zone", addr=0x1000, size=size)
        assert len(zones.zones) == left
    for request in (uapi.KVM_REGISTER_COALESCED_MMIO, uapi.KVM_UNREGISTER_COALESCED_MMIO):
        linux.refused("EINVAL", linux.call, vm, request, "kvm_coalesced_mmio_zone", addr=0x1000, size=4, pio=2)
