"""Several kernels in one process, kernels that are switched off, forgotten or forked."""

from __future__ import annotations

import gc
import os
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import BOARD, CLOSED, NIC, Client

from kvmvfio_emu import Kernel, KvmVfioEmuError, uapi
from kvmvfio_emu.guest import Cpu, Script, read, work, write
from kvmvfio_emu.guest.script import Routine
from kvmvfio_emu.kernel.kvm.vcpufile import VcpuFile
from kvmvfio_emu.kernel.vfio.device import VfioDeviceFile

OUTSIDE = 0x0D000000


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# -- several ----------------------------------------------------------------------------------------------------------


def test_the_same_paths_are_different_files(boot: Callable[..., Client]) -> None:
    one, two = boot(), boot()
    groups = [client.kernel.open("/dev/vfio/1") for client in (one, two)]  # in one kernel the second were EBUSY
    assert [client.kernel.open_files() for client in (one, two)] == [["group"], ["group"]]
    assert (one.kernel.emulates(groups[0]), one.kernel.emulates(groups[1])) == (True, False)
    one.close(groups[1])  # closing is the process's business
    assert [client.kernel.open_files() for client in (one, two)] == [["group"], []]


def test_descriptors_of_another_kernel_are_foreign(boot: Callable[..., Client]) -> None:
    one, two = boot(), boot()
    group, container = one.kernel.open("/dev/vfio/1"), two.container()
    one.refused("EINVAL", one.ioctl, group, uapi.VFIO_GROUP_SET_CONTAINER, container.to_bytes(4, "little"))
    control = one.kvm_vfio(one.vm())
    data = one.pointer(two.group().to_bytes(4, "little"))
    one.refused("EINVAL", one.set_at, control, uapi.KVM_DEV_VFIO_GROUP, uapi.KVM_DEV_VFIO_GROUP_ADD, data)


def test_guests_of_two_kernels_interleaved(boot: Callable[..., Client]) -> None:
    def main(number: int) -> Callable[[Cpu], Routine]:
        def routine(cpu: Cpu) -> Routine:
            for value in range(3):
                yield write(OUTSIDE + number, value)

        return routine

    pages = []
    for number in range(3):
        client = boot()
        client.kernel.attach_guest(0, Script(main(number)))
        vcpu = client.vcpu(client.vm(), init=True)
        pages.append((client, vcpu, client.run_page(vcpu)))
    runs = [page.__enter__() for _, _, page in pages]
    for value in range(3):
        for number, (client, vcpu, _) in enumerate(pages):
            client.ioctl(vcpu, uapi.KVM_RUN)
            assert (runs[number].mmio.phys_addr, runs[number].mmio.data[0]) == (OUTSIDE + number, value)
    for _, _, page in pages:
        page.__exit__(None, None, None)


def test_profiles_and_clocks_are_each_kernels_own(boot: Callable[..., Client]) -> None:
    one, two = boot(irq_routing=True), boot(irq_routing=False)
    table = uapi.pack("struct kvm_irq_routing", nr=0)
    assert one.ioctl(one.vm(), uapi.KVM_SET_GSI_ROUTING, table) == 0
    two.refused("EINVAL", two.ioctl, two.vm(), uapi.KVM_SET_GSI_ROUTING, table)
    fired: list[str] = []
    one.kernel.after(5, lambda: fired.append("one"))
    two.kernel.after(5, lambda: fired.append("two"))
    two.kernel.run()
    assert fired == ["two"]
    assert (one.host.clock.now, two.host.clock.now) == (0, 5)


# -- switched off -----------------------------------------------------------------------------------------------------


def busy_kernel() -> tuple[Client, set[str]]:
    """A kernel with everything open that holds a real descriptor; those that are the program's."""
    client = Client()
    vm, _ = client.machine()
    device = client.device()
    client.kvm_vfio(vm)
    users = {fd for fd in descriptors() if client.kernel.emulates(int(fd))}
    users -= {str(file.window.fd) for file in client.host.files.values() if isinstance(file, VfioDeviceFile)}
    users -= {str(file.backing) for file in client.host.files.values() if isinstance(file, VcpuFile)}
    trigger, resample = client.eventfd(), client.eventfd()
    client.irqfd(vm, trigger, 48, uapi.KVM_IRQFD_FLAG_RESAMPLE, resample)
    client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_UNMASK, resample)
    client.kernel.mmap(device, 4096).close()
    return client, users | {str(fd) for fd in client._eventfds}


def test_a_kernel_closed_with_files_open_gives_all_its_own_descriptors_back() -> None:
    before = descriptors()
    client, users = busy_kernel()
    client.kernel.close_kernel()
    assert descriptors() - before == users  # the program's descriptors are the program's
    for fd in users:
        os.close(int(fd))
    assert descriptors() == before


def test_files_of_a_closed_kernel_stay_open_and_answer_nothing() -> None:
    with Kernel() as kernel:
        kvm = kernel.open("/dev/kvm")
    os.fstat(kvm)
    assert not kernel.emulates(kvm)
    with Kernel() as other, pytest.raises(OSError, match="Inappropriate ioctl"):
        other.ioctl(kvm, uapi.KVM_GET_API_VERSION)
    os.close(kvm)


CALLS: dict[str, Callable[[Kernel, int], Any]] = {
    "open": lambda kernel, fd: kernel.open("/dev/kvm"),
    "ioctl": lambda kernel, fd: kernel.ioctl(fd, uapi.KVM_GET_API_VERSION),
    "ioctl of a closed one": lambda kernel, fd: kernel.ioctl(CLOSED, uapi.KVM_GET_API_VERSION),
    "close": lambda kernel, fd: kernel.close(fd),
    "read": lambda kernel, fd: kernel.read(fd, 1),
    "write": lambda kernel, fd: kernel.write(fd, b"x"),
    "pread": lambda kernel, fd: kernel.pread(fd, 1, 0),
    "pwrite": lambda kernel, fd: kernel.pwrite(fd, b"x", 0),
    "mmap": lambda kernel, fd: kernel.mmap(fd, 4096),
    "run": lambda kernel, fd: kernel.run(),
    "start": lambda kernel, fd: kernel.start(fd, uapi.KVM_RUN),
    "check": lambda kernel, fd: kernel.check(),
    "open_files": lambda kernel, fd: kernel.open_files(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_kernel_says_so(call: str) -> None:
    with Kernel() as kernel:
        kvm = kernel.open("/dev/kvm")
    with pytest.raises(KvmVfioEmuError, match="powered off"):
        CALLS[call](kernel, kvm)
    os.fstat(kvm)  # and nothing was done
    os.close(kvm)


def test_closing_a_kernel_twice_is_harmless() -> None:
    kernel = Kernel()
    kernel.close_kernel()
    before = descriptors()
    kernel.close_kernel()
    assert descriptors() == before


def test_the_context_ends_the_kernel_after_an_exception() -> None:
    before = descriptors()
    with pytest.raises(ZeroDivisionError), Kernel() as kernel:
        1 / 0  # noqa: B018
    with pytest.raises(KvmVfioEmuError):
        kernel.run()
    assert descriptors() == before


def test_a_forgotten_kernel_gives_its_descriptors_back() -> None:
    gc.collect()
    before = descriptors()
    client, users = busy_kernel()
    gone = weakref.ref(client.kernel)
    del client
    gc.collect()
    assert gone() is None
    assert descriptors() - before == users
    for fd in users:
        os.close(int(fd))


def test_kernels_come_and_go_without_a_trace() -> None:
    before = descriptors()
    for _ in range(50):
        with Kernel(machine=BOARD) as kernel:
            kernel.close(kernel.open("/dev/kvm"))
    assert descriptors() == before


# -- forked -----------------------------------------------------------------------------------------------------------


def in_child(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in a child of ours: a number, or the errno that it failed with, negative."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            value = function()
        except OSError as error:
            value = -(error.errno or 0)
        except BaseException:
            value = -1000
        os.write(writer, struct.pack("q", value))
        os._exit(0)
    os.waitpid(child, 0)
    value = struct.unpack("q", os.read(reader, 8))[0]
    os.close(reader)
    os.close(writer)
    return value


EIO = -5


def test_a_child_gets_eio_from_what_belongs_to_its_parents_memory(client: Client) -> None:
    vm, _ = client.machine()
    vcpu = client.vcpus[0]
    for fd, request in (
        (vm, uapi.KVM_CHECK_EXTENSION),
        (vm, 0xAEFF),
        (vcpu, uapi.KVM_RUN),
    ):
        assert in_child(lambda fd=fd, request=request: client.ioctl(fd, request)) == EIO
    assert in_child(lambda: client.ioctl(client.kvm, uapi.KVM_GET_API_VERSION)) == 12
    assert client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD) == 1


def test_a_childs_copy_of_the_kernel_disturbs_the_parents_in_nothing(client: Client) -> None:
    """Closes and signals that the parent has not noticed yet are the parent's, whatever the child does."""
    vm, _ = client.machine()
    eventfd = client.eventfd()
    client.irqfd(vm, eventfd, 48)
    client.container()
    container = client.container()
    os.close(container)
    os.eventfd_write(eventfd, 1)

    def use() -> int:
        client.kernel.run()
        client.close(client.kernel.open("/dev/kvm"))
        files = len(client.kernel.open_files())
        client.kernel.close_kernel()
        return files

    assert in_child(use) > 0
    assert os.eventfd_read(eventfd) == 1  # the child did not take it
    os.eventfd_write(eventfd, 1)
    assert client.kernel.open_files().count("container") == 1
    assert client.kernel.counters["work"] == 1


def test_files_of_a_childs_copy_are_released_there(client: Client) -> None:
    client.group()

    def use() -> int:
        before = client.kernel.open_files()
        vm = client.ioctl(client.kernel.open("/dev/kvm"), uapi.KVM_CREATE_VM)
        assert client.ioctl(vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD) == 1
        client.close(vm)
        return int(client.kernel.open_files() == sorted([*before, "kvm"]))

    assert in_child(use) == 1


def test_a_child_may_boot_a_kernel_of_its_own(client: Client) -> None:
    def use() -> int:
        with Kernel() as kernel:
            vm = kernel.ioctl(kernel.open("/dev/kvm"), uapi.KVM_CREATE_VM)
            return int(kernel.ioctl(vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD))

    assert in_child(use) == 1


def test_a_kernel_that_was_closed_does_not_mind_a_fork() -> None:
    with Kernel() as kernel:
        pass
    assert in_child(lambda: 7) == 7
    assert kernel is not None


# -- what drives a kernel ----------------------------------------------------------------------------------------------


def test_only_kvm_run_can_be_started(client: Client) -> None:
    with pytest.raises(KvmVfioEmuError, match="only KVM_RUN"):
        client.kernel.start(client.kvm, uapi.KVM_CREATE_VM)
    assert client.kernel.open_files() == ["kvm"]  # and it was not done
    client.refused("EBADF", client.kernel.start, CLOSED, uapi.KVM_RUN)
    client.refused("ENOTTY", client.kernel.start, client.eventfd(), uapi.KVM_RUN)
    client.refused("EINVAL", client.kernel.start, client.kvm, uapi.KVM_RUN)


def test_an_unknown_device_is_named_with_those_there_are(client: Client) -> None:
    assert client.kernel.device(NIC).spec.name == NIC
    with pytest.raises(KvmVfioEmuError, match=NIC):
        client.kernel.device("nonesuch")


def test_run_returns_after_so_many_slices_of_a_guest_that_never_waits(client: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        while True:
            yield work(10)

    client.kernel.attach_guest(0, Script(main))
    call = client.kernel.start(client.vcpu(client.vm(), init=True), uapi.KVM_RUN)
    client.kernel.run(slices=3)
    assert not call.done
    now = client.host.clock.now
    client.kernel.run(slices=1)
    assert client.host.clock.now > now > 0
    call.interrupt()
    assert call.done


def test_a_started_call_goes_on_in_run_until_it_needs_us(client: Client) -> None:
    def main(cpu: Cpu) -> Routine:
        yield work(100)
        yield read(OUTSIDE)

    client.kernel.attach_guest(0, Script(main))
    vcpu = client.vcpu(client.vm(), init=True)
    call = client.kernel.start(vcpu, uapi.KVM_RUN)
    assert not call.done
    client.kernel.run()
    assert (call.result, call.error) == (0, None)
