"""vCPUs of Linux 6.1 and 6.12: KVM_ARM_VCPU_INIT, MP states, events, debugging, device attributes, statistics."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from linux6 import ARM, NEW, OLD, feature, init, new_vcpu
from support import BAD_POINTERS, Client

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, wait_for_interrupt, write
from kvmvfio_emu.guest.script import Routine

PMU, TIMER, STOLEN = (
    uapi.KVM_ARM_VCPU_PMU_V3_CTRL,
    uapi.KVM_ARM_VCPU_TIMER_CTRL,
    uapi.KVM_ARM_VCPU_PVTIME_CTRL,
)
RUNNABLE, STOPPED, SUSPENDED = (
    uapi.KVM_MP_STATE_RUNNABLE,
    uapi.KVM_MP_STATE_STOPPED,
    uapi.KVM_MP_STATE_SUSPENDED,
)


@pytest.fixture(params=ARM)
def linux(request: pytest.FixtureRequest, boot: Callable[..., Client]) -> Client:
    return boot(request.param)


def mp_state(client: Client, vcpu: int) -> int:
    return int(client.call(vcpu, uapi.KVM_GET_MP_STATE, "kvm_mp_state", mp_state=99).mp_state)


def set_mp_state(client: Client, vcpu: int, state: int) -> None:
    client.call(vcpu, uapi.KVM_SET_MP_STATE, "kvm_mp_state", mp_state=state)


# -- KVM_ARM_VCPU_INIT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["POWER_OFF", "EL1_32BIT", "PSCI_0_2", "PMU_V3"])
def test_features_of_the_cpu(linux: Client, name: str) -> None:
    assert new_vcpu(linux, name)


@pytest.mark.parametrize("bit", [4, 5, 6])
def test_features_that_the_cpu_has_not_are_einval(linux: Client, bit: int) -> None:
    linux.refused("EINVAL", init, linux, linux.vcpu(linux.vm()), 1 << bit)


@pytest.mark.parametrize("words", [(1 << 7,), (1 << 31,), (0, 1), (0, 0, 0, 0, 0, 0, 1 << 31)])
def test_features_that_there_are_not_are_enoent(linux: Client, words: tuple[int, ...]) -> None:
    linux.refused("ENOENT", init, linux, linux.vcpu(linux.vm()), *words)


@pytest.mark.parametrize("target", [0, 9999, 0xFFFFFFFF])
def test_target_is_judged_before_the_features(linux: Client, target: int) -> None:
    linux.refused("EINVAL", init, linux, linux.vcpu(linux.vm()), 1 << 31, target=target)


def test_second_init_needs_the_features_of_the_first(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    init(linux, vcpu, 0)
    linux.refused("EINVAL", init, linux, vcpu, feature("PSCI_0_2"))
    linux.refused("EINVAL", init, linux, vcpu, 0, target=0)


def test_power_off_is_a_feature_like_others_on_6_1(boot: Callable[..., Client]) -> None:
    client = boot(OLD)
    vcpu = new_vcpu(client)
    client.refused("EINVAL", init, client, vcpu, feature("POWER_OFF"))
    assert mp_state(client, vcpu) == RUNNABLE


def test_power_off_may_change_on_6_12(boot: Callable[..., Client]) -> None:
    client = boot(NEW)
    vcpu = new_vcpu(client)
    init(client, vcpu, feature("POWER_OFF"))
    assert mp_state(client, vcpu) == STOPPED
    init(client, vcpu, 0)
    assert mp_state(client, vcpu) == RUNNABLE


def test_a_refused_feature_leaves_the_earlier_bits_behind_on_6_1(boot: Callable[..., Client]) -> None:
    client = boot(OLD)
    vcpu = client.vcpu(client.vm())
    client.refused("ENOENT", init, client, vcpu, feature("PSCI_0_2") | 1 << 9)
    init(client, vcpu, 0)
    client.refused("EINVAL", init, client, vcpu, 0)
    init(client, vcpu, feature("PSCI_0_2"))


def test_vcpus_of_one_vm_share_their_features_on_6_12(boot: Callable[..., Client]) -> None:
    for profile in ARM:
        client = boot(profile)
        vm = client.vm()
        first, second = client.vcpu(vm, 0), client.vcpu(vm, 1)
        init(client, first, feature("PSCI_0_2"))
        if profile == NEW:
            client.refused("EINVAL", init, client, second, 0)
        else:
            init(client, second, 0)
            third = client.vcpu(vm, 2)
            client.refused("EINVAL", init, client, third, feature("EL1_32BIT"))


@pytest.mark.parametrize(("profile", "cut"), [(OLD, True), (NEW, False)])
def test_upper_half_of_a_vcpu_id(boot: Callable[..., Client], profile: str, cut: bool) -> None:
    client = boot(profile)
    vm = client.vm()
    if cut:
        client.vcpu(vm, 1 << 32 | 2)
        client.refused("EEXIST", client.vcpu, vm, 2)
    else:
        client.refused("EINVAL", client.vcpu, vm, 1 << 32 | 2)


# -- MP state ------------------------------------------------------------------------------------------------------


def test_mp_state_is_there_before_init(linux: Client) -> None:
    assert mp_state(linux, linux.vcpu(linux.vm())) == RUNNABLE


@pytest.mark.parametrize("state", [1, 3, 9, 11, 77])
def test_mp_states_that_arm_has_not_are_einval(linux: Client, state: int) -> None:
    linux.refused("EINVAL", set_mp_state, linux, new_vcpu(linux), state)


def _exits(client: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(0x1000, 1)

    client.kernel.attach_guest(0, Script(main))


def test_stopped_vcpu_runs_when_it_is_made_runnable(linux: Client) -> None:
    _exits(linux)
    vcpu = new_vcpu(linux)
    set_mp_state(linux, vcpu, STOPPED)
    call = linux.kernel.start(vcpu, uapi.KVM_RUN)
    linux.kernel.run()
    assert not call.done
    set_mp_state(linux, vcpu, RUNNABLE)
    linux.kernel.run()
    assert call.done


def test_suspended_vcpu_exits_when_an_interrupt_comes(linux: Client) -> None:
    _exits(linux)
    vm = linux.vm()
    vcpu = linux.vcpu(vm, init=True)
    with linux.run_page(vcpu) as run:
        set_mp_state(linux, vcpu, SUSPENDED)
        call = linux.kernel.start(vcpu, uapi.KVM_RUN)
        linux.kernel.run()
        assert not call.done
        linux.irq_line(vm, uapi.KVM_ARM_IRQ_TYPE_CPU, uapi.KVM_ARM_IRQ_CPU_IRQ, 1)
        linux.kernel.run()
        assert call.done
        assert (run.exit_reason, run.system_event.type) == (
            uapi.KVM_EXIT_SYSTEM_EVENT,
            uapi.KVM_SYSTEM_EVENT_WAKEUP,
        )
        assert mp_state(linux, vcpu) == SUSPENDED


# -- events, debugging ---------------------------------------------------------------------------------------------


def _events(client: Client, vcpu: int) -> Any:
    buffer = bytearray(uapi.sizeof("struct kvm_vcpu_events"))
    client.ioctl(vcpu, uapi.KVM_GET_VCPU_EVENTS, buffer)
    return uapi.view("struct kvm_vcpu_events", buffer)


def test_serror_waits_until_the_guest_takes_it(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    buffer = bytearray(uapi.sizeof("struct kvm_vcpu_events"))
    events = uapi.view("struct kvm_vcpu_events", buffer)
    assert not _events(linux, vcpu).exception.serror_pending
    events.exception.serror_pending = 1
    linux.ioctl(vcpu, uapi.KVM_SET_VCPU_EVENTS, buffer)
    assert _events(linux, vcpu).exception.serror_pending == 1
    events.exception.serror_has_esr = 1
    linux.refused("EINVAL", linux.ioctl, vcpu, uapi.KVM_SET_VCPU_EVENTS, buffer)


def test_events_before_init_are_enoexec(linux: Client) -> None:
    raw = linux.vcpu(linux.vm())
    for request in (uapi.KVM_GET_VCPU_EVENTS, uapi.KVM_SET_VCPU_EVENTS):
        linux.refused("ENOEXEC", linux.ioctl, raw, request, 0)


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_wild_pointers_are_efault(linux: Client, pointer: int) -> None:
    vcpu = new_vcpu(linux)
    for name in ("GET_VCPU_EVENTS", "SET_VCPU_EVENTS", "GET_MP_STATE", "SET_MP_STATE", "SET_GUEST_DEBUG"):
        linux.refused("EFAULT", linux.ioctl, vcpu, getattr(uapi, f"KVM_{name}"), pointer)
    linux.refused("EFAULT", linux.ioctl, vcpu, uapi.KVM_ARM_VCPU_FINALIZE, pointer)


def test_guest_debug_flags(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    for control in (0, 1, 0x30003):
        linux.call(vcpu, uapi.KVM_SET_GUEST_DEBUG, "kvm_guest_debug", control=control)
    linux.refused("EINVAL", linux.call, vcpu, uapi.KVM_SET_GUEST_DEBUG, "kvm_guest_debug", control=4)


def test_nothing_needs_finalizing(linux: Client) -> None:
    raw = linux.vcpu(linux.vm())
    linux.refused("ENOEXEC", linux.ioctl, raw, uapi.KVM_ARM_VCPU_FINALIZE, bytearray(4))
    init(linux, raw, 0)
    linux.refused("EINVAL", linux.ioctl, raw, uapi.KVM_ARM_VCPU_FINALIZE, bytearray(b"\x04\0\0\0"))


# -- attributes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "timers"), [(OLD, [27, 30]), (NEW, [27, 30, 28, 26])])
def test_timers_have_the_interrupts_of_the_architecture(
    boot: Callable[..., Client], profile: str, timers: list[int]
) -> None:
    client = boot(profile)
    vcpu = new_vcpu(client)
    assert [client.get(vcpu, TIMER, timer) for timer in range(len(timers))] == timers
    for beyond in range(len(timers), 5):
        client.refused("ENXIO", client.has, vcpu, TIMER, beyond)
        client.refused("ENXIO", client.get, vcpu, TIMER, beyond)


def test_timer_interrupt_needs_a_vgic_and_a_ppi(linux: Client) -> None:
    vm = linux.vm()
    vcpus = [linux.vcpu(vm, number, init=True) for number in (0, 1)]
    linux.refused("EINVAL", linux.set_u32, vcpus[0], TIMER, 0, 20)
    linux.vgic(vm)
    for irq in (15, 32, 0xFFFFFFFF):
        linux.refused("EINVAL", linux.set_u32, vcpus[0], TIMER, 0, irq)
    linux.refused("EFAULT", linux.set_at, vcpus[0], TIMER, 0, 0)
    linux.refused("ENXIO", linux.set_u32, vcpus[0], TIMER, 7, 20)
    linux.set_u32(vcpus[0], TIMER, 0, 20)
    assert [linux.get(vcpu, TIMER, 0) for vcpu in vcpus] == [20, 20]


@pytest.mark.parametrize(("profile", "later"), [(OLD, 27), (NEW, 20)])
def test_a_later_vcpu_has_the_timer_interrupt_of_its_vm_on_6_12(
    boot: Callable[..., Client], profile: str, later: int
) -> None:
    client = boot(profile)
    vm = client.vm()
    vcpu = client.vcpu(vm, init=True)
    client.vgic(vm)
    client.set_u32(vcpu, TIMER, 0, 20)
    assert client.get(client.vcpu(vm, 1, init=True), TIMER, 0) == later


def test_stolen_time_is_set_once_in_guest_memory(linux: Client) -> None:
    vm = linux.vm()
    vcpu = linux.vcpu(vm, init=True)
    assert linux.get(vcpu, STOLEN, 0, size=8) == (1 << 64) - 1
    linux.refused("EINVAL", linux.set_u64, vcpu, STOLEN, 0, 0x40000000)
    region = {"guest_phys_addr": 0x40000000, "memory_size": 0x1000, "userspace_addr": 0x100000}
    linux.call(vm, uapi.KVM_SET_USER_MEMORY_REGION, "kvm_userspace_memory_region", **region)
    linux.refused("EINVAL", linux.set_u64, vcpu, STOLEN, 0, 0x40000020)
    linux.set_u64(vcpu, STOLEN, 0, 0x40000040)
    linux.refused("EEXIST", linux.set_u64, vcpu, STOLEN, 0, 0x40000040)
    assert linux.get(vcpu, STOLEN, 0, size=8) == 0x40000040


def test_pmu_attributes_without_the_feature(linux: Client) -> None:
    vm = linux.vm()
    vcpu = linux.vcpu(vm, init=True)
    for attr in range(5):
        linux.refused("ENXIO", linux.has, vcpu, PMU, attr)
        linux.refused("ENODEV", linux.set_u32, vcpu, PMU, attr, 23)
    linux.refused("EINVAL", linux.get, vcpu, PMU, 0)  # no VGIC, which is looked at first
    linux.vgic(vm)
    linux.refused("ENODEV", linux.get, vcpu, PMU, 0)
    linux.refused("ENXIO", linux.get, vcpu, PMU, 1)


def test_pmu_is_given_its_interrupt_then_set_up(linux: Client) -> None:
    vm = linux.vm()
    vcpus = [linux.vcpu(vm, number) for number in (0, 1)]
    for vcpu in vcpus:
        init(linux, vcpu, feature("PMU_V3"))
    irq, ready = uapi.KVM_ARM_VCPU_PMU_V3_IRQ, uapi.KVM_ARM_VCPU_PMU_V3_INIT
    linux.refused("EINVAL", linux.set_u32, vcpus[0], PMU, irq, 23)
    vgic = linux.vgic(vm)
    linux.refused("ENXIO", linux.get, vcpus[0], PMU, irq)
    linux.refused("EINVAL", linux.set_u32, vcpus[0], PMU, irq, 15)
    linux.set_u32(vcpus[0], PMU, irq, 23)
    linux.refused("EINVAL", linux.set_u32, vcpus[1], PMU, irq, 22)  # one PPI for all
    linux.refused("EBUSY", linux.set_u32, vcpus[0], PMU, irq, 23)
    linux.refused("ENODEV", linux.set_at, vcpus[0], PMU, ready, 0)
    linux.set_at(vgic, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT, 0)
    linux.refused("ENXIO", linux.set_at, vcpus[1], PMU, ready, 0)
    linux.set_at(vcpus[0], PMU, ready, 0)
    linux.refused("EBUSY", linux.set_u32, vcpus[0], PMU, irq, 23)
    assert linux.get(vcpus[0], PMU, irq) == 23


def test_pmu_filter(linux: Client) -> None:
    vcpu = new_vcpu(linux, "PMU_V3")
    attr = uapi.KVM_ARM_VCPU_PMU_V3_FILTER

    def put(base: int, count: int, action: int) -> None:
        payload = uapi.pack("struct kvm_pmu_event_filter", base_event=base, nevents=count, action=action)
        linux.set_at(vcpu, PMU, attr, linux.pointer(payload))

    put(0, 1024, 1)
    put(1023, 1, 0)
    linux.refused("EINVAL", put, 1000, 25, 0)
    linux.refused("EINVAL", put, 0, 1, 2)
    linux.refused("EFAULT", linux.set_at, vcpu, PMU, attr, 0)


def test_unknown_groups_are_enxio(linux: Client) -> None:
    vcpu = new_vcpu(linux)
    for group in (3, 99):
        for call in (linux.has, linux.get_at, linux.set_at):
            linux.refused("ENXIO", call, vcpu, group, 0, 0)


# -- statistics ----------------------------------------------------------------------------------------------------


def _statistics(client: Client, fd: int) -> tuple[str, dict[str, int]]:
    head = uapi.view("struct kvm_stats_header", client.kernel.pread(fd, 24, 0))
    name = client.kernel.pread(fd, head.name_size, head.id_offset).rstrip(b"\0").decode()
    values, step = {}, uapi.sizeof("struct kvm_stats_desc") + head.name_size
    for number in range(head.num_desc):
        raw = client.kernel.pread(fd, step, head.desc_offset + number * step)
        where = head.data_offset + uapi.view("struct kvm_stats_desc", raw).offset
        values[raw[16:].rstrip(b"\0").decode()] = int.from_bytes(client.kernel.pread(fd, 8, where), "little")
    return name, values


def test_statistics_count_exits(linux: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        yield wait_for_interrupt()
        yield write(0x1000, 1)

    linux.kernel.attach_guest(0, Script(main))
    vm = linux.vm()
    vcpu = linux.vcpu(vm, init=True)
    stats = linux.ioctl(vcpu, uapi.KVM_GET_STATS_FD)
    call = linux.kernel.start(vcpu, uapi.KVM_RUN)
    linux.kernel.run()
    assert _statistics(linux, stats)[1]["blocking"] == 1
    linux.irq_line(vm, uapi.KVM_ARM_IRQ_TYPE_CPU, uapi.KVM_ARM_IRQ_CPU_IRQ, 1)
    linux.kernel.run()
    assert call.done
    name, values = _statistics(linux, stats)
    assert name == f"kvm-{os.getpid()}/vcpu-0"
    assert (values["exits"], values["wfi_exit_stat"], values["mmio_exit_user"]) == (2, 1, 1)
    assert _statistics(linux, linux.ioctl(vm, uapi.KVM_GET_STATS_FD))[0] == f"kvm-{os.getpid()}"


def test_statistics_hold_the_vm_and_are_read_on(linux: Client) -> None:
    vm = linux.vm()
    stats = linux.ioctl(vm, uapi.KVM_GET_STATS_FD)
    linux.close(vm)
    assert linux.kernel.counters["vm_destroy"] == 0
    first, rest = linux.kernel.read(stats, 24), linux.kernel.read(stats, 1 << 20)
    assert first + rest == linux.kernel.pread(stats, 1 << 20, 0)
    assert linux.kernel.read(stats, 1) == b""
    linux.refused("ENOTTY", linux.ioctl, stats, uapi.KVM_GET_API_VERSION)
    linux.close(stats)
    assert linux.kernel.counters["vm_destroy"] == 1
