"""Values for the fields of structs: what a field's name says of its value, and what would be wrong there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from hypothesis import strategies as st

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.kvm.module import DEVICE_TYPES
from kvmvfio_emu.testing.player import ARENA, NOWHERE

How = Literal["valid", "nearly", "wild", "any"]
HOWS: tuple[How, ...] = ("valid", "nearly", "wild")
#: Where in the arena the payload of an attribute lies, and what else a pointer points at.
PAYLOAD = 0x1000
MEMORY = 0x2000

small = st.integers(0, 40)
odd = st.sampled_from([0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x10000, 1 << 40, (1 << 64) - 1, (1 << 64) - 0x1000])
page = st.integers(0, 7).map(lambda number: number << 12)
good_pointer = st.just(ARENA + PAYLOAD)
bad_pointer = st.sampled_from([ARENA + MEMORY + 4, ARENA + 0xFFFC, 0, 0x10, (1 << 64) - 8])
pointer = st.sampled_from(
    [ARENA + PAYLOAD] * 4 + [ARENA + MEMORY, ARENA + MEMORY + 4, ARENA + 0xFFFC, 0, 0x10, (1 << 64) - 8]
)
place = st.integers(0, 3)
fd_kind = st.sampled_from(["eventfd"] * 4 + ["group", "vfio-device", "container", "vm", "kvm", "device", *NOWHERE])
_TYPES = sorted({int(getattr(uapi, device.type_name)) for device in DEVICE_TYPES})
#: Groups of all devices together; the one too many has none.
_GROUPS = sorted({row.number for device in DEVICE_TYPES for row in device.attributes} | {9})


def _irq_level(kinds: list[int]) -> st.SearchStrategy[int]:
    return st.builds(lambda kind, n: kind << 24 | n, st.sampled_from(kinds), small)


def _irq_set(data: list[int]) -> st.SearchStrategy[int]:
    return st.builds(lambda data, action: data | action << 3, st.sampled_from(data), st.sampled_from([1, 2, 4]))


#: Numbers of capabilities, and some that are none.
capability = st.sampled_from(
    [*sorted({v for k, v in vars(uapi).items() if k.startswith("KVM_CAP_") and isinstance(v, int) and v < 256}), 255]
)
_SWITCHES = (
    "HALT_POLL",
    "MANUAL_DIRTY_LOG_PROTECT2",
    "SPLIT_IRQCHIP",
    "MAX_VCPU_ID",
    "X2APIC_API",
    "X86_DISABLE_EXITS",
    "EXCEPTION_PAYLOAD",
    "DISABLE_QUIRKS2",
    "EXIT_HYPERCALL",
)
#: Where guest physical addresses end, on some machines.
_far = st.sampled_from([(1 << 40) - 0x1000, 1 << 40, (1 << 52) - 0x1000, 1 << 52])
_IDS = ("id", "ioas_id", "dst_ioas_id", "src_ioas_id", "pt_id", "out_ioas_id")
_RESERVED = ("__reserved", "reserved", "pad")
#: What a field's name says of its value, by struct and field or by field alone: sometimes wrong.
LIKELY: dict[str, st.SearchStrategy[int]] = {
    "addr": pointer | page,
    "vaddr": pointer,
    "userspace_addr": pointer,
    "dirty_bitmap": pointer,
    "guest_phys_addr": page | page | _far,
    "memory_size": st.sampled_from([0x1000, 0x2000, 0x4000, 0x40000, 0x48000, 0]),
    "iova": page,
    "size": st.sampled_from([0x1000, 0x1000, 0x2000, 0x4000, 0x800, 0]),
    "group": st.sampled_from(_GROUPS),
    "attr": st.integers(0, 4) | st.sampled_from([0x100, 0x200, 0x400, 0xC00, 0x1_0000_0100, 1 << 32]),
    "type": st.sampled_from(_TYPES) | small,
    "flags": st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 8]) | odd,
    "slot": st.integers(0, 3) | st.sampled_from([508, 509, 32763, 32764, 0x10000]),
    "first_page": st.sampled_from([0, 0, 64, 1, 128]) | odd,
    "num_pages": st.sampled_from([1, 2, 8, 64, 72, 0]) | odd,
    "gsi": st.integers(0, 3) | small | odd,
    "kvm_create_device.flags": st.integers(0, 1),
    "kvm_enable_cap.cap": capability,
    "kvm_msi.address_lo": st.sampled_from([0xFEE00000, 0xFEE01000, 0xFEEFF000, 0xFEE0000C]) | small,
    "kvm_msi.data": st.sampled_from([0x20, 0x8020, 0xC020, 0x400, 0x500, 0x620, 0x720, 0x120]) | small,
    "kvm_irq_level.irq": _irq_level([1, 1, 0, 2]) | odd,
    "kvm_irq_level.level": st.integers(0, 1),
    "kvm_vcpu_init.target": st.sampled_from([0, 5]),
    "vfio_irq_set.flags": _irq_set([1, 2, 4]),
    "vfio_irq_set.count": st.sampled_from([1, 1, 1, 0, 2]),
    "vfio_irq_set.start": st.sampled_from([0, 0, 0, 1]),
    "vfio_iommu_type1_dma_map.flags": st.integers(0, 3),
    "user_va": pointer,
    **dict.fromkeys(_RESERVED, st.sampled_from([0] * 7 + [1])),
    "length": st.sampled_from([0x1000, 0x2000, 0x4000, 0x800, 0]),
    **dict.fromkeys(_IDS, st.integers(0, 5)),
    "index": st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 6, 9]),
    "len": st.sampled_from([0, 1, 2, 4, 8, 3]),
}
_memory = st.sampled_from([ARENA + MEMORY, ARENA + MEMORY + 0x1000])
#: The same where the value is one that some kernel accepts in some state.
RIGHT: dict[str, st.SearchStrategy[int]] = LIKELY | {
    "addr": good_pointer,
    "kvm_ioeventfd.addr": page,
    "kvm_coalesced_mmio_zone.addr": page,
    "vaddr": _memory,
    "user_va": _memory,
    "userspace_addr": _memory,
    "dirty_bitmap": good_pointer,
    "memory_size": st.sampled_from([0x1000, 0x2000, 0x40000]),
    "size": st.sampled_from([0x1000, 0x2000]),
    "length": st.sampled_from([0x1000, 0x2000]),
    "type": st.sampled_from(_TYPES),
    "group": st.sampled_from(_GROUPS[:-1]),
    "flags": st.just(0),
    "gsi": st.integers(0, 20),
    "guest_phys_addr": page,
    "slot": st.integers(0, 3),
    "first_page": st.just(0),
    "num_pages": st.sampled_from([1, 2, 64]),
    "kvm_enable_cap.cap": st.sampled_from([int(getattr(uapi, f"KVM_CAP_{name}")) for name in _SWITCHES]),
    "kvm_irq_level.irq": _irq_level([1]),
    "vfio_irq_set.flags": _irq_set([1, 2]) | st.just(4 | 4 << 3),
    "vfio_irq_set.count": st.just(1),
    "vfio_irq_set.start": st.just(0),
    "vfio_iommu_type1_dma_map.flags": st.integers(1, 3),
    **dict.fromkeys(_RESERVED, st.just(0)),
    "index": st.just(0),
    "len": st.sampled_from([1, 2, 4, 8]),
}
#: Architecture -> what is otherwise there.
_OTHER: dict[str, dict[str, st.SearchStrategy[int]]] = {"x86_64": {"kvm_irq_level.irq": st.integers(0, 24)}}
_DEFAULT = {"right": st.integers(0, 3), "likely": small | odd}


class Field(NamedTuple):
    """One scalar of a struct; arrays and unions are bytes without a name."""

    name: str
    offset: int
    size: int


def layout(struct: str) -> Iterator[Field]:
    """The fields of a C type."""
    ctype = uapi.ffi.typeof(struct)
    if ctype.kind != "struct":
        yield Field("", 0, uapi.sizeof(struct))
        return
    for name, field in ctype.fields or ():
        size = uapi.ffi.sizeof(field.type) if field.type.kind != "array" or field.type.length else 0
        yield Field(name if field.type.kind in ("primitive", "pointer", "enum") else "", field.offset, size)


def is_descriptor(name: str) -> bool:
    """Whether a field holds a descriptor."""
    return name in ("fd", "resamplefd", "iommufd")


def is_own_size(struct: str, name: str) -> bool:
    """Whether a field says how big the caller thinks the struct is."""
    return name == "argsz" or (name == "size" and struct.startswith("struct iommu_"))


def value(struct: str, name: str, *, right: bool, arch: str = "arm64") -> st.SearchStrategy[int]:
    """Values for a field: accepted ones, or what it may well hold."""
    table = (RIGHT if right else LIKELY) | _OTHER.get(arch, {})
    found = table.get(f"{struct.removeprefix('struct ')}.{name}", table.get(name))
    return found if found is not None else _DEFAULT["right" if right else "likely"]


def descriptor(struct: str, name: str, *, right: bool) -> st.SearchStrategy[str]:
    """Kinds of file for a field that holds a descriptor."""
    if right and struct in ("struct kvm_arch_forwarded_irq", "struct kvm_vfio_dev_irq"):
        return st.just("vfio-device")
    if name == "iommufd":
        return st.just("iommufd") if right else st.sampled_from(["iommufd"] * 4 + ["closed", "group"])
    return st.just("eventfd") if right else fd_kind


def own_size(size: int, minsz: int, *, right: bool) -> st.SearchStrategy[int]:
    """Sizes that a caller may state."""
    if right:
        return st.sampled_from([size, size + 8])
    return st.sampled_from([size] * 4 + [size + 4, size + 8] * 2 + [size + 64, minsz, minsz, minsz - 1, 0])
