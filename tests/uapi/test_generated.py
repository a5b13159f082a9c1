"""The generated modules say what the headers say, and the headers what the contract spec says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvmvfio_emu import uapi

# Spec 1.1, column "value".
KVM_IOCTLS = {
    "KVM_GET_API_VERSION": 0x0000AE00,
    "KVM_CREATE_VM": 0x0000AE01,
    "KVM_CHECK_EXTENSION": 0x0000AE03,
    "KVM_GET_VCPU_MMAP_SIZE": 0x0000AE04,
    "KVM_CREATE_VCPU": 0x0000AE41,
    "KVM_GET_DIRTY_LOG": 0x4010AE42,
    "KVM_SET_USER_MEMORY_REGION": 0x4020AE46,
    "KVM_CREATE_IRQCHIP": 0x0000AE60,
    "KVM_IRQ_LINE": 0x4008AE61,
    "KVM_IRQ_LINE_STATUS": 0xC008AE67,
    "KVM_REGISTER_COALESCED_MMIO": 0x4010AE67,
    "KVM_UNREGISTER_COALESCED_MMIO": 0x4010AE68,
    "KVM_SET_GSI_ROUTING": 0x4008AE6A,
    "KVM_IRQFD": 0x4020AE76,
    "KVM_IOEVENTFD": 0x4040AE79,
    "KVM_ENABLE_CAP": 0x4068AEA3,
    "KVM_SIGNAL_MSI": 0x4020AEA5,
    "KVM_ARM_SET_DEVICE_ADDR": 0x4010AEAB,
    "KVM_ARM_PREFERRED_TARGET": 0x8020AEAF,
    "KVM_CREATE_DEVICE": 0xC00CAEE0,
    "KVM_SET_DEVICE_ATTR": 0x4018AEE1,
    "KVM_GET_DEVICE_ATTR": 0x4018AEE2,
    "KVM_HAS_DEVICE_ATTR": 0x4018AEE3,
    "KVM_RUN": 0x0000AE80,
    "KVM_SET_SIGNAL_MASK": 0x4004AE8B,
    "KVM_GET_MP_STATE": 0x8004AE98,
    "KVM_SET_MP_STATE": 0x4004AE99,
    "KVM_GET_ONE_REG": 0x4010AEAB,
    "KVM_SET_ONE_REG": 0x4010AEAC,
    "KVM_ARM_VCPU_INIT": 0x4020AEAE,
    "KVM_GET_REG_LIST": 0xC008AEB0,
}

# Spec 1.6.
VFIO_IOCTLS = {
    "VFIO_GET_API_VERSION": 0x3B64,
    "VFIO_CHECK_EXTENSION": 0x3B65,
    "VFIO_SET_IOMMU": 0x3B66,
    "VFIO_GROUP_GET_STATUS": 0x3B67,
    "VFIO_GROUP_SET_CONTAINER": 0x3B68,
    "VFIO_GROUP_UNSET_CONTAINER": 0x3B69,
    "VFIO_GROUP_GET_DEVICE_FD": 0x3B6A,
    "VFIO_DEVICE_GET_INFO": 0x3B6B,
    "VFIO_DEVICE_GET_REGION_INFO": 0x3B6C,
    "VFIO_DEVICE_GET_IRQ_INFO": 0x3B6D,
    "VFIO_DEVICE_SET_IRQS": 0x3B6E,
    "VFIO_DEVICE_RESET": 0x3B6F,
    "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO": 0x3B70,
    "VFIO_DEVICE_PCI_HOT_RESET": 0x3B71,
    "VFIO_IOMMU_GET_INFO": 0x3B70,
    "VFIO_IOMMU_MAP_DMA": 0x3B71,
    "VFIO_IOMMU_UNMAP_DMA": 0x3B72,
    "VFIO_IOMMU_ENABLE": 0x3B73,
    "VFIO_IOMMU_DISABLE": 0x3B74,
    "VFIO_DEVICE_FEATURE": 0x3B75,
}

# Spec 1.3 to 1.5: numbers that a reader of the spec relies on.
NUMBERS = {
    "KVM_DEV_TYPE_VFIO": 4,
    "KVM_DEV_TYPE_ARM_VGIC_V2": 5,
    "KVM_DEV_TYPE_ARM_VGIC_V3": 7,
    "KVM_DEV_TYPE_ARM_VGIC_ITS": 8,
    "KVM_CAP_IRQ_ROUTING": 25,
    "KVM_CAP_IRQFD": 32,
    "KVM_CAP_MAX_VCPUS": 66,
    "KVM_CAP_IRQFD_RESAMPLE": 82,
    "KVM_CAP_DEVICE_CTRL": 89,
    "KVM_CAP_CHECK_EXTENSION_VM": 105,
    "KVM_DEV_VFIO_GROUP": 1,
    "KVM_DEV_VFIO_GROUP_ADD": 1,
    "KVM_DEV_VFIO_GROUP_DEL": 2,
    "KVM_DEV_VFIO_FILE": 1,
    "KVM_DEV_VFIO_DEVICE": 2,
    "KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ": 1,
    "KVM_DEV_VFIO_DEVICE_DEASSIGN_IRQ": 2,
    "KVM_DEV_VFIO_DEVICE_FORWARD_IRQ": 1,
    "KVM_DEV_VFIO_DEVICE_UNFORWARD_IRQ": 2,
    "KVM_DEV_ARM_VGIC_GRP_NR_IRQS": 3,
    "KVM_DEV_ARM_VGIC_GRP_CTRL": 4,
    "KVM_ARM_IRQ_TYPE_SHIFT": 24,
    "VFIO_TYPE1_IOMMU": 1,
    "VFIO_TYPE1v2_IOMMU": 3,
    "VFIO_UPDATE_VADDR": 10,
    "VFIO_IRQ_SET_DATA_TYPE_MASK": 7,
    "VFIO_IRQ_SET_ACTION_TRIGGER": 32,
    "VFIO_DEVICE_FLAGS_PLATFORM": 4,
    "VFIO_IRQ_INFO_AUTOMASKED": 4,
}

# Spec 1.2, 1.4, 1.6: size, then where each field starts.
STRUCTS: dict[str, tuple[int, dict[str, int]]] = {
    "kvm_create_device": (12, {"type": 0, "fd": 4, "flags": 8}),
    "kvm_device_attr": (24, {"flags": 0, "group": 4, "attr": 8, "addr": 16}),
    "kvm_irqfd": (32, {"fd": 0, "gsi": 4, "flags": 8, "resamplefd": 12, "pad": 16}),
    "kvm_irq_level": (8, {"irq": 0, "status": 0, "level": 4}),
    "kvm_msi": (32, {"address_lo": 0, "address_hi": 4, "data": 8, "flags": 12, "devid": 16}),
    "kvm_ioeventfd": (64, {"datamatch": 0, "addr": 8, "len": 16, "fd": 20, "flags": 24, "pad": 28}),
    "kvm_irq_routing": (8, {"nr": 0, "flags": 4, "entries": 8}),
    "kvm_irq_routing_entry": (48, {"gsi": 0, "type": 4, "flags": 8, "pad": 12, "u": 16}),
    "kvm_arm_device_addr": (16, {"id": 0, "addr": 8}),
    "kvm_userspace_memory_region": (
        32,
        {"slot": 0, "flags": 4, "guest_phys_addr": 8, "memory_size": 16, "userspace_addr": 24},
    ),
    "kvm_vcpu_init": (32, {"target": 0, "features": 4}),
    "kvm_one_reg": (16, {"id": 0, "addr": 8}),
    "kvm_arch_forwarded_irq": (12, {"fd": 0, "index": 4, "gsi": 8}),
    "kvm_vfio_dev_irq": (20, {"argsz": 0, "fd": 4, "index": 8, "start": 12, "count": 16, "gsi": 20}),
    "kvm_run": (2352, {"immediate_exit": 1, "exit_reason": 8, "mmio": 32, "kvm_valid_regs": 288, "s": 304}),
    "vfio_group_status": (8, {"argsz": 0, "flags": 4}),
    "vfio_device_info": (24, {"argsz": 0, "flags": 4, "num_regions": 8, "num_irqs": 12, "cap_offset": 16}),
    "vfio_region_info": (
        32,
        {"argsz": 0, "flags": 4, "index": 8, "cap_offset": 12, "size": 16, "offset": 24},
    ),
    "vfio_irq_info": (16, {"argsz": 0, "flags": 4, "index": 8, "count": 12}),
    "vfio_irq_set": (20, {"argsz": 0, "flags": 4, "index": 8, "start": 12, "count": 16, "data": 20}),
    "vfio_iommu_type1_info": (24, {"argsz": 0, "flags": 4, "iova_pgsizes": 8, "cap_offset": 16}),
    "vfio_iommu_type1_dma_map": (32, {"argsz": 0, "flags": 4, "vaddr": 8, "iova": 16, "size": 24}),
    "vfio_iommu_type1_dma_unmap": (24, {"argsz": 0, "flags": 4, "iova": 8, "size": 16, "data": 24}),
    "vfio_info_cap_header": (8, {"id": 0, "version": 2, "next": 4}),
    "vfio_iommu_type1_info_cap_iova_range": (16, {"header": 0, "nr_iovas": 8, "iova_ranges": 16}),
    "vfio_iommu_type1_info_cap_migration": (
        32,
        {"header": 0, "flags": 8, "pgsize_bitmap": 16, "max_dirty_bitmap_size": 24},
    ),
    "vfio_iommu_type1_info_dma_avail": (12, {"header": 0, "avail": 8}),
}


@pytest.mark.parametrize(("name", "value"), (KVM_IOCTLS | VFIO_IOCTLS | NUMBERS).items())
def test_number_is_the_spec_s(name: str, value: int) -> None:
    assert getattr(uapi, name) == value


@pytest.mark.parametrize(("struct", "size", "offsets"), [(name, *rest) for name, rest in STRUCTS.items()])
def test_layout_is_the_spec_s(struct: str, size: int, offsets: dict[str, int]) -> None:
    assert uapi.sizeof(f"struct {struct}") == size
    assert {field: uapi.ffi.offsetof(f"struct {struct}", field) for field in offsets} == offsets


def test_committed_files_are_what_the_headers_say() -> None:
    pytest.importorskip("pcpp", reason="only who changes include/ needs pcpp")
    from kvmvfio_emu.uapi import generate

    assert generate.main(["--check"]) == 0, f"run {generate.COMMAND}"


def test_check_notices_a_stale_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pcpp", reason="only who changes include/ needs pcpp")
    from kvmvfio_emu.uapi import generate

    monkeypatch.setattr(generate, "HERE", tmp_path)
    assert generate.main(["--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize(
    "text", ["", '"vfio-pci"', "(1 << )", "__import__('os')", "f(1)", "1 / 0", "uregs[0]", "1.5", "-struct"]
)
def test_only_integers_are_evaluated(text: str) -> None:
    pytest.importorskip("pcpp", reason="only who changes include/ needs pcpp")
    from kvmvfio_emu.uapi import generate

    with pytest.raises(generate.NotAnInteger):
        generate.evaluate(text, uapi.ffi)


@pytest.mark.parametrize(
    ("text", "value"),
    [("(1U << 31)", 1 << 31), ("010", 8), ("';' << 8", 0x3B00), ("~0ULL & 0xf", 15), ("7 / 2", 3)],
)
def test_c_spelling_of_integers(text: str, value: int) -> None:
    pytest.importorskip("pcpp", reason="only who changes include/ needs pcpp")
    from kvmvfio_emu.uapi import generate

    assert generate.evaluate(text, uapi.ffi) == value


def test_import_needs_neither_parser_nor_construct() -> None:
    """It is imported by every door, one of which starts inside somebody else's program."""
    program = "import sys, kvmvfio_emu.uapi; print(*sys.modules)"
    root = Path(uapi.__file__).parents[2]
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"construct", "pcpp", "pycparser"} & set(loaded)
