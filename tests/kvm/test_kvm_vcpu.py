"""The ioctls of a vCPU, and creating one. Contract 5.4."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest
from support import BAD_POINTERS, Client, Edge

from kvmvfio_emu import uapi
from kvmvfio_emu.guest import Cpu, Script, write
from kvmvfio_emu.guest.script import Routine

INIT, RUN, REG_LIST = uapi.KVM_ARM_VCPU_INIT, uapi.KVM_RUN, uapi.KVM_GET_REG_LIST
ONE_REG = [uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG]


@pytest.fixture
def raw(client: Client, vm: int) -> int:
    """A vCPU before KVM_ARM_VCPU_INIT."""
    return client.vcpu(vm)


@pytest.fixture
def vcpu(client: Client, vm: int) -> int:
    """A vCPU after KVM_ARM_VCPU_INIT."""
    return client.vcpu(vm, init=True)


def _init(client: Client, vm: int, vcpu: int, **fields: int) -> None:
    target = client.call(vm, uapi.KVM_ARM_PREFERRED_TARGET, "kvm_vcpu_init").target
    buffer = uapi.pack("struct kvm_vcpu_init", target=fields.get("target", target))
    struct = uapi.view("struct kvm_vcpu_init", buffer)
    for word in range(7):
        struct.features[word] = fields.get(f"word{word}", 0)
    client.ioctl(vcpu, INIT, buffer)


# -- creating ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [4, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_id_at_or_above_the_maximum_is_einval(client: Client, vm: int, number: int) -> None:
    client.refused("EINVAL", client.vcpu, vm, number)


def test_id_twice_is_eexist_even_after_close(client: Client, vm: int, raw: int) -> None:
    client.refused("EEXIST", client.vcpu, vm, 0)
    client.close(raw)
    client.refused("EEXIST", client.vcpu, vm, 0)


def test_ids_need_not_be_in_order(client: Client, vm: int) -> None:
    for number in (3, 0, 2, 1):
        client.vcpu(vm, number)
    client.refused("EEXIST", client.vcpu, vm, 3)


def test_after_the_vgic_is_ready_is_ebusy_even_for_a_known_id(client: Client) -> None:
    vm, _ = client.machine()
    client.irq_line(vm, 1, 32, 0)
    client.refused("EBUSY", client.vcpu, vm, 1)
    client.refused("EBUSY", client.vcpu, vm, 0)
    client.refused("EINVAL", client.vcpu, vm, 4)


def test_descriptor_is_cloexec_and_keeps_the_vm(client: Client, vm: int, raw: int) -> None:
    assert not os.get_inheritable(raw)
    client.close(vm)
    assert client.kernel.counters["vm_destroy"] == 0
    client.close(raw)
    assert client.kernel.counters["vm_destroy"] == 1


# -- target and features -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_preferred_target_and_init_with_a_wild_argument_are_efault(
    client: Client, vm: int, raw: int, pointer: int
) -> None:
    client.refused("EFAULT", client.ioctl, vm, uapi.KVM_ARM_PREFERRED_TARGET, pointer)
    client.refused("EFAULT", client.ioctl, raw, INIT, pointer)


def test_preferred_target_clears_the_features(client: Client, vm: int) -> None:
    buffer = bytearray(b"\xff" * 32)
    client.ioctl(vm, uapi.KVM_ARM_PREFERRED_TARGET, buffer)
    assert buffer[4:] == bytes(28)


@pytest.mark.parametrize("target", [0, 9999, 0xFFFFFFFF])
def test_init_for_another_target_is_einval(client: Client, vm: int, raw: int, target: int) -> None:
    client.refused("EINVAL", _init, client, vm, raw, target=target)


@pytest.mark.parametrize("features", [{"word0": 1 << 7}, {"word0": 1 << 31}, {"word1": 1}, {"word6": 1 << 31}], ids=str)
def test_init_with_an_unknown_feature_is_enoent(client: Client, vm: int, raw: int, features: dict[str, int]) -> None:
    client.refused("ENOENT", _init, client, vm, raw, **features)


def test_init_may_be_repeated(client: Client, vm: int, raw: int) -> None:
    for features in (0, 1 << uapi.KVM_ARM_VCPU_PSCI_0_2, 0):
        _init(client, vm, raw, word0=features)


def test_powered_off_vcpu_does_not_run(client: Client, vm: int, raw: int) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(0x1000, 1)

    client.kernel.attach_guest(0, Script(main))
    _init(client, vm, raw, word0=1 << uapi.KVM_ARM_VCPU_POWER_OFF)
    call = client.kernel.start(raw, RUN)
    client.kernel.run()
    assert not call.done
    call.interrupt()


# -- KVM_RUN -------------------------------------------------------------------------------------------------------


def test_run_before_init_is_enoexec(client: Client, raw: int) -> None:
    client.refused("ENOEXEC", client.ioctl, raw, RUN)


@pytest.mark.parametrize("argument", [1, 0xFFFFFFFF])
def test_run_with_an_argument_is_einval_even_before_init(client: Client, vm: int, raw: int, argument: int) -> None:
    client.refused("EINVAL", client.ioctl, raw, RUN, argument)
    _init(client, vm, raw)
    client.refused("EINVAL", client.ioctl, raw, RUN, argument)


def test_run_with_immediate_exit_is_eintr_and_says_so(client: Client, vcpu: int) -> None:
    def main(cpu: Cpu) -> Routine:
        yield write(0x1000, 1)

    client.kernel.attach_guest(0, Script(main))
    with client.run_page(vcpu) as run:
        run.immediate_exit = 1
        client.refused("EINTR", client.ioctl, vcpu, RUN)
        assert run.exit_reason == uapi.KVM_EXIT_INTR == 10
        run.immediate_exit = 0
        assert client.ioctl(vcpu, RUN) == 0
        assert (run.exit_reason, run.mmio.phys_addr, run.mmio.len) == (uapi.KVM_EXIT_MMIO, 0x1000, 4)


def test_run_without_a_program_exits_with_an_internal_error(client: Client, vcpu: int) -> None:
    with client.run_page(vcpu) as run:
        assert client.ioctl(vcpu, RUN) == 0
        assert run.exit_reason == uapi.KVM_EXIT_INTERNAL_ERROR


# -- registers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [*ONE_REG, REG_LIST])
@pytest.mark.parametrize("pointer", [*BAD_POINTERS, None])
def test_registers_before_init_are_enoexec_whatever_the_pointer(
    client: Client, raw: int, request_: int, pointer: int | None
) -> None:
    argument = client.pointer(bytes(16)) if pointer is None else pointer
    client.refused("ENOEXEC", client.ioctl, raw, request_, argument)


@pytest.mark.parametrize("request_", [*ONE_REG, REG_LIST])
@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_registers_with_a_wild_argument_are_efault(client: Client, vcpu: int, request_: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vcpu, request_, pointer)


@pytest.mark.parametrize("request_", ONE_REG)
@pytest.mark.parametrize("identifier", [0x6030000000100040, 0x60300000007F0000])
def test_register_that_the_model_has_not_is_enoent(client: Client, vcpu: int, request_: int, identifier: int) -> None:
    client.refused("ENOENT", client.call, vcpu, request_, "kvm_one_reg", id=identifier)


@pytest.mark.parametrize("room", [0, 2000, 0xFFFFFFFF, (1 << 64) - 1])
def test_reg_list_writes_no_more_than_it_has(client: Client, vcpu: int, room: int) -> None:
    edge = Edge()
    address = edge.put(room.to_bytes(8, "little"))
    assert client.ioctl(vcpu, REG_LIST, address) == 0
    assert client.host.current.copy_from_user(address, 8) == bytes(8)


@pytest.mark.parametrize(
    "request_",
    [uapi.KVM_GET_MP_STATE, uapi.KVM_SET_MP_STATE, uapi.KVM_GET_REGS, uapi.KVM_SET_REGS, uapi.KVM_INTERRUPT],
)
def test_what_arm_of_2014_has_not_is_einval(client: Client, vcpu: int, request_: int) -> None:
    client.refused("EINVAL", client.ioctl, vcpu, request_, client.pointer(bytes(1024)))


# -- the signal mask -----------------------------------------------------------------------------------------------


def _signal_mask(client: Client, vcpu: int, length: int, mask: bytes = bytes(8)) -> None:
    client.ioctl(vcpu, uapi.KVM_SET_SIGNAL_MASK, client.pointer(length.to_bytes(4, "little") + mask))


def test_signal_mask_is_set_and_taken_back_by_null(client: Client, vcpu: int) -> None:
    before = client.state()
    _signal_mask(client, vcpu, 8, b"\x01" * 8)
    assert client.state() != before
    client.ioctl(vcpu, uapi.KVM_SET_SIGNAL_MASK, 0)
    assert client.state() == before


@pytest.mark.parametrize("length", [0, 4, 7, 9, 16, 0xFFFFFFFF])
def test_signal_mask_of_another_length_is_einval(client: Client, vcpu: int, length: int) -> None:
    client.refused("EINVAL", _signal_mask, client, vcpu, length)


@pytest.mark.parametrize("pointer", BAD_POINTERS[1:])
def test_wild_signal_mask_is_efault(client: Client, vcpu: int, pointer: int) -> None:
    client.refused("EFAULT", client.ioctl, vcpu, uapi.KVM_SET_SIGNAL_MASK, pointer)


def test_signal_mask_over_the_end_of_a_mapping_is_efault(client: Client, vcpu: int) -> None:
    edge, mask = Edge(), (8).to_bytes(4, "little") + bytes(8)
    client.refused("EFAULT", client.ioctl, vcpu, uapi.KVM_SET_SIGNAL_MASK, edge.put(mask, beyond=1))
    assert client.ioctl(vcpu, uapi.KVM_SET_SIGNAL_MASK, edge.put(mask)) == 0


# -- the run page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kvm", "vm", "device"])
def test_only_vcpus_can_be_mapped_others_are_enodev(client: Client, vm: int, control: int, name: str) -> None:
    fd = {"kvm": client.kvm, "vm": vm, "device": control}[name]
    client.refused("ENODEV", client.kernel.mmap, fd, mmap.PAGESIZE)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_read_and_write_are_einval(client: Client, vm: int, vcpu: int, control: int, operation: str) -> None:
    call: Callable[..., object] = getattr(client.kernel, operation)
    for fd in (client.kvm, vm, vcpu, control):
        client.refused("EINVAL", call, fd, 8 if operation == "read" else b"x")


def test_a_second_kvm_run_waits_for_the_first(client: Client) -> None:
    """Models the vCPU's mutex: the second call starts when the first has returned."""
