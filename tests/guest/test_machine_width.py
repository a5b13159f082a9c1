"""Profiles in which a further KVM_ARM_VCPU_INIT may change a vCPU's features: its width, too."""

from __future__ import annotations

import mmap

import pytest
from support import Client

from kvmvfio_emu import uapi

#: To address 0x0A000000: what the execution state makes of a register with all bits set, shifted right.
STORES = {
    64: (0xD2A14009, 0x92800000, 0xD370FC00, 0xF9000120),  # mov x9, #0x0a000000; mov x0, #-1; lsr x0, 48; str x0, [x9]
    32: (0xE3A0940A, 0xE3E00000, 0xE1A00820, 0xE5890000),  # mov r9, #0x0a000000; mvn r0, #0; lsr r0, 16; str r0, [r9]
}


@pytest.mark.parametrize("first", [32, 64])
def test_width_changes_with_the_features(first: int) -> None:
    pytest.importorskip("unicorn", reason="the extra `vcpu` is not installed")
    client = Client("rfc-2014")
    vm, ram = client.vm(), mmap.mmap(-1, mmap.PAGESIZE)
    vcpu = client.vcpu(vm)
    fields = {"memory_size": len(ram), "userspace_addr": uapi.address(memoryview(ram))}
    client.call(vm, uapi.KVM_SET_USER_MEMORY_REGION, "kvm_userspace_memory_region", **fields)
    assert client.ioctl(client.kvm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_ARM_EL1_32BIT) == 1
    with client.run_page(vcpu) as run:
        for width in (first, 96 - first, first):
            init = client.call(vm, uapi.KVM_ARM_PREFERRED_TARGET, "kvm_vcpu_init")
            init.features[0] = (width == 32) << uapi.KVM_ARM_VCPU_EL1_32BIT
            client.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, uapi.address(uapi.ffi.buffer(init)))
            raw = b"".join(word.to_bytes(4, "little") for word in STORES[width])
            ram[: len(raw)] = raw
            client.ioctl(vcpu, uapi.KVM_RUN)
            assert (run.exit_reason, run.mmio.phys_addr, run.mmio.len) == (uapi.KVM_EXIT_MMIO, 0x0A00_0000, width // 8)
            assert bytes(run.mmio.data) == b"\xff\xff" + bytes(6)
    client.finish()
