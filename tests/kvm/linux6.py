"""What the tests of KVM in Linux 6.1 and 6.12 share: the profiles' names, vCPUs, registers by number."""

from __future__ import annotations

from support import Client, pinned

from kvmvfio_emu import uapi

OLD, NEW, X86 = "linux-6.1", "linux-6.12", "linux-6.18-x86"
ARM = [OLD, NEW]
GENERIC_V8 = 5


def init(client: Client, vcpu: int, *words: int, target: int = GENERIC_V8) -> None:
    """KVM_ARM_VCPU_INIT with these words of features."""
    buffer = bytearray(uapi.sizeof("struct kvm_vcpu_init"))
    struct = uapi.view("struct kvm_vcpu_init", buffer)
    struct.target = target
    for index, word in enumerate(words):
        struct.features[index] = word
    client.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, buffer)


def feature(name: str) -> int:
    """The bit of KVM_ARM_VCPU_``name``."""
    return 1 << int(getattr(uapi, f"KVM_ARM_VCPU_{name}"))


def new_vcpu(client: Client, *features: str) -> int:
    """A vCPU of a virtual machine of its own, with these features."""
    vcpu = client.vcpu(client.vm())
    init(client, vcpu, sum(map(feature, features)))
    return vcpu


def registers(client: Client, vcpu: int) -> list[int]:
    """KVM_GET_REG_LIST."""
    room = 1000
    buffer = bytearray(room.to_bytes(8, "little") + bytes(8 * room))
    client.ioctl(vcpu, uapi.KVM_GET_REG_LIST, buffer)
    count = int.from_bytes(buffer[:8], "little")
    return [int.from_bytes(buffer[at : at + 8], "little") for at in range(8, 8 + 8 * count, 8)]


def size(number: int) -> int:
    """Bytes of register ``number``."""
    return 1 << ((number & uapi.KVM_REG_SIZE_MASK) >> uapi.KVM_REG_SIZE_SHIFT)


def get(client: Client, vcpu: int, number: int) -> int:
    """KVM_GET_ONE_REG."""
    buffer = bytearray(size(number))
    with pinned(buffer) as address:
        client.call(vcpu, uapi.KVM_GET_ONE_REG, "kvm_one_reg", id=number, addr=address)
    return int.from_bytes(buffer, "little")


def put(client: Client, vcpu: int, number: int, value: int) -> None:
    """KVM_SET_ONE_REG."""
    address = client.pointer(value.to_bytes(16, "little"))
    client.call(vcpu, uapi.KVM_SET_ONE_REG, "kvm_one_reg", id=number, addr=address)


def system(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The number of a system register."""
    index = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
    return int(uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | index)


def core(*field: str | int, bits: int = 64) -> int:
    """The number of a core register, by its place in ``struct kvm_regs``."""
    word = uapi.ffi.offsetof("struct kvm_regs", *field) // 4
    sizes = {32: uapi.KVM_REG_SIZE_U32, 64: uapi.KVM_REG_SIZE_U64, 128: uapi.KVM_REG_SIZE_U128}
    return int(uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM_CORE | sizes[bits] | word)
