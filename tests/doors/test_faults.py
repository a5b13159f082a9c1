"""Faults in strace's grammar: calls that fail or take time, lost wake-ups, short reads; and what is refused as one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support import NIC, Client

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli.story import Vmm
from kvmvfio_emu.hw.devices.xgmac import Xgmac
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.kernel.faults import SHORT, When


def which(client: Client, count: int = 8) -> list[int]:
    """Which of so many KVM_GET_API_VERSION fail, from 1."""
    failed = []
    for number in range(1, count + 1):
        with suppress(OSError):
            assert client.ioctl(client.kvm, uapi.KVM_GET_API_VERSION) == 12
            continue
        failed.append(number)
    return failed


@pytest.mark.parametrize(
    ("when", "hit"),
    [
        (None, [1, 2, 3, 4, 5, 6, 7, 8]),
        (2, [2]),
        ("2+", [2, 3, 4, 5, 6, 7, 8]),
        ("2+3", [2, 5, 8]),
        ("2..4", [2, 3, 4]),
        ("2..7+2", [2, 4, 6]),
        ("9", []),
    ],
)
def test_when(client: Client, when: int | str | None, hit: list[int]) -> None:
    client.kernel.inject("KVM_GET_API_VERSION", error=errno.EBUSY, when=when)
    assert which(client) == hit


def test_a_call_that_fails_is_not_executed_and_says_so(client: Client) -> None:
    client.kernel.inject("KVM_CREATE_VM:error=ENOMEM:when=1")
    before = client.kernel.open_files() if client.kvm else []
    with pytest.raises(OSError, match="Cannot allocate") as caught:
        client.vm()
    assert client.kernel.open_files() == before
    note = "emulated kernel: inject=KVM_CREATE_VM:error=ENOMEM:when=1, call 1 of KVM_CREATE_VM (INJECTED)"
    assert caught.value.__notes__ == [note]
    client.vm()


def test_a_result_without_an_execution(client: Client) -> None:
    client.kernel.inject("KVM_CREATE_VM", retval=77, when=1)
    assert client.vm() == 77
    assert client.kernel.open_files() == ["kvm"]


def test_each_command_of_a_set_counts_for_itself(client: Client) -> None:
    client.kernel.inject("KVM_GET_API_VERSION,KVM_CHECK_EXTENSION", error="EBUSY", when=2)
    assert which(client, 1) == []
    client.ioctl(client.kvm, uapi.KVM_CHECK_EXTENSION, 1)
    with pytest.raises(OSError, match="busy"):
        client.ioctl(client.kvm, uapi.KVM_CHECK_EXTENSION, 1)
    assert which(client, 2) == [1]


@pytest.mark.parametrize("what", ["%kvm", "all", "!%vfio", "%ioctl"])
def test_classes(client: Client, what: str) -> None:
    kvm = client.kvm
    client.kernel.inject(what, error="EBUSY")
    with pytest.raises(OSError, match="busy"):
        client.ioctl(kvm, uapi.KVM_GET_API_VERSION)


def test_of_several_faults_the_first_that_hits_decides_and_all_count(client: Client) -> None:
    client.kernel.inject("KVM_GET_API_VERSION", error="EBUSY", when=1)
    client.kernel.inject("%kvm", error="EBUSY", when=2)
    assert which(client, 3) == [1, 2]


def test_a_fault_that_is_taken_back(client: Client) -> None:
    end = client.kernel.inject("KVM_GET_API_VERSION", error="EBUSY")
    assert which(client, 1) == [1]
    end()
    end()
    assert which(client, 1) == []
    assert client.host.faults is None
    assert not client.host.trace.calls, "the calls go the long way for nothing"


def test_a_fault_stays_when_a_listener_goes(client: Client) -> None:
    client.kernel.inject("KVM_GET_API_VERSION", error="EBUSY")
    client.kernel.listen(lambda event: None)()
    assert which(client, 1) == [1]


def test_an_unknown_request_can_fail_too(client: Client) -> None:
    client.kernel.inject("unknown_ioctl", error="EPERM")
    with pytest.raises(OSError, match="not permitted"):
        client.ioctl(client.kvm, 0xAEFE)


# -- other calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("open", lambda kernel, device: kernel.open("/dev/kvm")),
        ("pread", lambda kernel, device: kernel.pread(device, 4, 0)),
        ("pwrite", lambda kernel, device: kernel.pwrite(device, b"1234", 0)),
        ("read", lambda kernel, device: kernel.read(device, 4)),
        ("write", lambda kernel, device: kernel.write(device, b"1234")),
        ("mmap", lambda kernel, device: kernel.mmap(device, 4096)),
    ],
)
def test_calls_that_are_no_ioctl(client: Client, name: str, call: Callable[[Kernel, int], Any]) -> None:
    device = client.device(NIC)
    client.kernel.inject(name, error="EIO", when=1)
    with pytest.raises(OSError, match="Input/output"):
        call(client.kernel, device)
    result = call(client.kernel, device)
    if name == "mmap":
        result.close()


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_call_that_comes_late_and_returns_late(client: Client) -> None:
    seen: list[tuple[str, int]] = []
    client.kernel.listen(lambda event: seen.append((event.name, event.time)))
    client.kernel.inject("KVM_CREATE_VM", delay_enter=300, delay_exit=40)
    client.kernel.after(100, lambda: client.kernel.host.event("work", gsi=1))
    kvm = client.kvm
    seen.clear()
    client.ioctl(kvm, uapi.KVM_CREATE_VM)
    assert seen == [("ioctl", 0), ("work", 100), ("ioctl_return", 340)]


def test_a_failing_call_returns_late_as_well(client: Client) -> None:
    client.kernel.inject("KVM_CREATE_VM", delay_exit=40)
    with pytest.raises(OSError, match="Invalid"):
        client.ioctl(client.kvm, uapi.KVM_CREATE_VM, 99)
    assert client.host.clock.now == 40


def test_kvm_run_is_late_when_it_returns_not_when_it_is_called() -> None:
    times: dict[str, int] = {}
    with Kernel() as kernel:
        vmm = Vmm(kernel, forward=False)
        kernel.listen(lambda event: times.__setitem__(event.name, event.time))
        kernel.inject("KVM_RUN", delay_exit=1_000_000)
        kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
    assert times["vmexit_mmio"] < 1000
    assert times["ioctl_return"] > 1_000_000


# -- eventfds ---------------------------------------------------------------------------------------------------------


def interrupts(fault: str, count: int, *, forward: bool) -> list[int]:
    """How many interrupts the guest had completed after each one that the device raised, under ``fault``."""
    completed = []
    with Kernel() as kernel:
        vmm = Vmm(kernel, forward=forward)
        hardware = kernel.device("fff51000.ethernet")
        assert isinstance(hardware, Xgmac)
        kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
        call = kernel.start(vmm.vcpu, uapi.KVM_RUN)
        kernel.inject(fault)
        for _ in range(count):
            hardware.raise_interrupt()
            kernel.run(200)
            completed.append(kernel.counters["guest_eoi"])
            if call.done:
                call = kernel.start(vmm.vcpu, uapi.KVM_RUN)
        call.interrupt()
    return completed


def test_a_lost_wake_up_of_the_trigger_wedges_an_unforwarded_interrupt() -> None:
    """The handler has masked it, and waits for a resample signal that never comes."""
    assert interrupts("eventfd:lost:when=1", 3, forward=False) == [0, 0, 0]


def test_a_lost_wake_up_of_the_resampler_wedges_it_too() -> None:
    assert interrupts("eventfd:lost:when=2", 3, forward=False) == [1, 1, 1]


def test_without_a_fault_each_comes_through() -> None:
    assert interrupts("eventfd:lost:when=9", 3, forward=False) == [1, 2, 3]


def test_a_lost_wake_up_is_an_event(client: Client) -> None:
    vm, _ = client.machine()
    trigger = client.eventfd()
    client.irqfd(vm, trigger, 80)
    client.kernel.inject("eventfd:lost:when=1")
    names: list[str] = []
    client.kernel.listen(lambda event: names.append(event.name))
    client.kernel.write(trigger, (1).to_bytes(8, "little"))
    assert names == ["eventfd_write", "eventfd_lost"]
    names.clear()
    client.kernel.write(trigger, (1).to_bytes(8, "little"))
    assert "set_irq" in names


def test_a_short_read_of_an_eventfd(client: Client) -> None:
    client.kernel.inject("eventfd", short=True, when=2)
    fd = client.eventfd(3)
    names: list[str] = []
    client.kernel.listen(lambda event: names.append(event.name))
    assert client.kernel.read(fd, 8) == (3).to_bytes(8, "little")
    os.eventfd_write(fd, 5)
    assert client.kernel.read(fd, 8) == (5).to_bytes(8, "little")[:SHORT]
    assert names == ["eventfd_short"]
    with pytest.raises(BlockingIOError):
        client.kernel.read(fd, 8)  # the counter was taken all the same, and this one is not counted
    os.eventfd_write(fd, 6)
    assert client.kernel.read(fd, 8) == (6).to_bytes(8, "little")


# -- marks ------------------------------------------------------------------------------------------------------------


def test_injected_calls_are_marked_in_the_trace(client: Client) -> None:
    returns: dict[str, dict[str, Any]] = {}

    def take(record: dict[str, Any]) -> None:
        if record.get("name") == "ioctl_return":
            returns[record["f"]["request"]] = record["f"]

    faults = ["KVM_GET_API_VERSION:error=EBUSY", "KVM_GET_VCPU_MMAP_SIZE:retval=7", "KVM_CREATE_VM:delay_exit=5"]
    client.kernel.trace(take, [f"inject={fault}" for fault in faults])
    kvm = client.kvm
    which(client, 1)
    client.ioctl(kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
    client.vm()
    client.ioctl(kvm, uapi.KVM_CHECK_EXTENSION, 1)
    assert {name: fields.get("injected") for name, fields in returns.items()} == {
        "KVM_GET_API_VERSION": "error",
        "KVM_GET_VCPU_MMAP_SIZE": "retval",
        "KVM_CREATE_VM": "delay",
        "KVM_CHECK_EXTENSION": None,
    }
    assert returns["KVM_GET_API_VERSION"]["reason"].endswith("(INJECTED)")


def test_faults_of_a_trace_end_with_it(client: Client) -> None:
    end = client.kernel.trace(lambda record: None, ["inject=KVM_GET_API_VERSION:error=EBUSY"])
    assert which(client, 1) == [1]
    end()
    assert which(client, 1) == []


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("KVM_IRQF:error=EBUSY", "unknown ioctl or call 'KVM_IRQF'; did you mean KVM_IRQFD"),
        ("host_irq:error=EBUSY", "unknown ioctl or call 'host_irq'"),
        ("KVM_RUN", "say what is to happen"),
        ("KVM_RUN:when=2", "say what is to happen"),
        ("KVM_RUN:error=EGGS", "no error 'EGGS'"),
        ("KVM_RUN:error=errorcode", "no error 'errorcode'"),
        ("KVM_RUN:error=0", "no error '0'"),
        ("KVM_RUN:error=EIO:retval=1", "an error or a retval, not both"),
        ("KVM_RUN:retval=-1", "retval=-1 is not a number"),
        ("KVM_RUN:retval=9999999999", "retval=9999999999 is not a number"),
        ("pread:retval=1", "have no retval to inject"),
        ("KVM_RUN:delay_enter=1ms", "delay_enter=1ms is not nanoseconds of virtual time"),
        ("KVM_RUN:error=EIO:when=0", "when=0 is not FIRST"),
        ("KVM_RUN:error=EIO:when=x", "when=x is not FIRST"),
        ("KVM_RUN:error=EIO:when=3..2", "ends before it begins"),
        ("KVM_RUN:error=EIO:when=3+0", "has a step of 0"),
        ("KVM_RUN:lost", "'lost' is none of error="),
        ("KVM_RUN:signal=SIGUSR1", "'signal=SIGUSR1' is none of"),
        ("eventfd", "say eventfd:lost or eventfd:short"),
        ("eventfd:lost:short", "say eventfd:lost or eventfd:short"),
        ("eventfd:error=EIO", "'error=EIO' is none of lost, short, when="),
        ("", "unknown ioctl or call ''"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_set(client: Client, text: str, says: str) -> None:
    with pytest.raises(KvmVfioEmuError) as caught:
        client.kernel.inject(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert client.host.faults is None
    assert not client.host.trace.calls


def test_when_knows_its_numbers() -> None:
    assert [n for n in range(1, 10) if When(3, None, 0).meets(n)] == [3]
    assert [n for n in range(1, 10) if When().meets(n)] == list(range(1, 10))
