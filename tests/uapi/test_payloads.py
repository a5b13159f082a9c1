"""Payloads of varying length: what is built is parsed back, what is malformed is refused, and C sees the same."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmvfio_emu import uapi
from kvmvfio_emu.uapi import payloads

u8, u16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
u32, u64 = st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFFFFFFFFFF)
s32 = st.integers(-(1 << 31), (1 << 31) - 1)
actions = st.sampled_from(
    [uapi.VFIO_IRQ_SET_ACTION_MASK, uapi.VFIO_IRQ_SET_ACTION_UNMASK, uapi.VFIO_IRQ_SET_ACTION_TRIGGER]
)


def listed(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries(fields), max_size=5)


def irq_sets() -> st.SearchStrategy[dict[str, Any]]:
    common = {"index": u32, "start": u32}
    none, bools, fds = (
        actions.map(kind.__or__)
        for kind in (
            uapi.VFIO_IRQ_SET_DATA_NONE,
            uapi.VFIO_IRQ_SET_DATA_BOOL,
            uapi.VFIO_IRQ_SET_DATA_EVENTFD,
        )
    )
    return st.one_of(
        st.fixed_dictionaries({"flags": none, "count": u32, "data": st.none(), **common}),
        st.fixed_dictionaries({"flags": bools, "data": st.lists(u8, max_size=9), **common}),
        st.fixed_dictionaries({"flags": fds, "data": st.lists(s32, max_size=9), **common}),
    )


def routes() -> st.SearchStrategy[dict[str, Any]]:
    bodies = {
        uapi.KVM_IRQ_ROUTING_IRQCHIP: {"irqchip": u32, "pin": u32},
        uapi.KVM_IRQ_ROUTING_MSI: {"address_lo": u32, "address_hi": u32, "data": u32, "devid": u32},
        uapi.KVM_IRQ_ROUTING_S390_ADAPTER: {
            "ind_addr": u64,
            "summary_addr": u64,
            "ind_offset": u64,
            "summary_offset": u32,
            "adapter_id": u32,
        },
        uapi.KVM_IRQ_ROUTING_HV_SINT: {"vcpu": u32, "sint": u32},
        uapi.KVM_IRQ_ROUTING_XEN_EVTCHN: {"port": u32, "vcpu": u32, "priority": u32},
    }
    kinds: dict[st.SearchStrategy[int], st.SearchStrategy[Any]] = {
        st.just(kind): st.fixed_dictionaries(body) for kind, body in bodies.items()
    }
    kinds[st.integers(6, 0xFFFFFFFF)] = st.binary(min_size=32, max_size=32)
    return st.one_of(
        st.fixed_dictionaries({"gsi": u32, "type": kind, "flags": u32, "pad": u32, "u": body})
        for kind, body in kinds.items()
    )


def caps(**bodies: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lists of capabilities: those given by id ("cap3"), and one that nobody knows."""
    unknown = st.binary(max_size=24).map(lambda body: body + bytes(-len(body) % 8))
    known = [
        st.fixed_dictionaries({"id": st.just(int(name[3:])), "version": u16, "body": body})
        for name, body in bodies.items()
    ]
    other = st.fixed_dictionaries({"id": st.integers(100, 0xFFFF), "version": u16, "body": unknown})
    return st.lists(st.one_of(*known, other), max_size=4)


TYPE1_CAPS = caps(
    cap1=st.fixed_dictionaries({"iova_ranges": listed(start=u64, end=u64)}),
    cap2=st.fixed_dictionaries({"flags": u32, "pgsize_bitmap": u64, "max_dirty_bitmap_size": u64}),
    cap3=st.fixed_dictionaries({"avail": u32}),
)
REGION_CAPS = caps(
    cap1=st.fixed_dictionaries({"areas": listed(offset=u64, size=u64)}),
    cap2=st.fixed_dictionaries({"type": u32, "subtype": u32}),
    cap3=st.just({}),
    cap4=st.fixed_dictionaries({"tgt": u64}),
    cap5=st.fixed_dictionaries({"link_speed": u32}),
)
DEVICE_CAPS = caps(cap5=st.fixed_dictionaries({"flags": u32}))

EXAMPLES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "vfio_irq_set": irq_sets(),
    "kvm_irq_routing": st.fixed_dictionaries({"flags": u32, "entries": st.lists(routes(), max_size=5)}),
    "kvm_reg_list": st.fixed_dictionaries({"reg": st.lists(u64, max_size=9)}),
    "kvm_signal_mask": st.fixed_dictionaries({"sigset": st.binary(max_size=16)}),
    "kvm_vfio_dev_irq": st.fixed_dictionaries(
        {"fd": u32, "index": u32, "start": u32, "gsi": st.lists(u32, max_size=9)}
    ),
    "vfio_pci_hot_reset_info": st.fixed_dictionaries(
        {"flags": u32, "devices": listed(group_id=u32, segment=u16, bus=u8, devfn=u8)}
    ),
    "vfio_pci_hot_reset": st.fixed_dictionaries({"flags": u32, "group_fds": st.lists(s32, max_size=9)}),
    "vfio_iommu_type1_info": st.fixed_dictionaries({"flags": u32, "iova_pgsizes": u64, "caps": TYPE1_CAPS}),
    "vfio_region_info": st.fixed_dictionaries(
        {"flags": u32, "index": u32, "size": u64, "offset": u64, "caps": REGION_CAPS}
    ),
    "vfio_device_info": st.fixed_dictionaries({"flags": u32, "num_regions": u32, "num_irqs": u32, "caps": DEVICE_CAPS}),
}
CAPS_FLAGS = {
    "vfio_iommu_type1_info": uapi.VFIO_IOMMU_INFO_CAPS,
    "vfio_region_info": uapi.VFIO_REGION_INFO_FLAG_CAPS,
    "vfio_device_info": uapi.VFIO_DEVICE_FLAGS_CAPS,
}

names = pytest.mark.parametrize("name", EXAMPLES)


def subset(expected: Any, parsed: Any) -> bool:
    """Whether parsing gave all that was built from; it adds computed counts, sizes and offsets."""
    if isinstance(expected, dict):
        return all(subset(value, parsed[key]) for key, value in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(parsed) and all(map(subset, expected, parsed))
    return bool(expected == parsed)


@names
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    codec, value = getattr(payloads, name), data.draw(EXAMPLES[name])
    raw = codec.build(value)
    parsed = codec.parse(raw)
    if flag := CAPS_FLAGS.get(name):  # the one flag that says what was built, not what was asked
        assert bool(parsed.flags & flag) == bool(value["caps"])
        value["flags"] = parsed.flags
    assert subset(value, parsed)
    assert codec.build(parsed) == raw


@names
@given(data=st.data())
def test_a_byte_missing_is_refused(name: str, data: st.DataObject) -> None:
    codec = getattr(payloads, name)
    raw = codec.build(data.draw(EXAMPLES[name]))
    end = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(payloads.ConstructError):
        codec.parse(raw[:end])


@names
@given(raw=st.binary(max_size=128))
def test_any_bytes_give_a_value_or_a_construct_error(name: str, raw: bytes) -> None:
    with suppress(payloads.ConstructError):
        getattr(payloads, name).parse(raw)


@pytest.mark.parametrize("kinds", [0, 3, 5, 6, 7])
def test_irq_set_has_exactly_one_kind_of_data(kinds: int) -> None:
    raw = struct.pack("=5I", 20, kinds | uapi.VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, 0)
    with pytest.raises(payloads.ConstructError):
        payloads.vfio_irq_set.parse(raw)


def test_irq_set_with_argsz_too_small_for_its_data() -> None:
    flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER
    with pytest.raises(payloads.ConstructError):
        payloads.vfio_irq_set.parse(struct.pack("=5I2i", 24, flags, 0, 0, 2, 3, 4))


def test_irq_set_is_what_c_sees() -> None:
    flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER
    raw = payloads.vfio_irq_set.build({"flags": flags, "index": 2, "start": 1, "data": [7, -1]})
    seen = uapi.ffi.from_buffer("struct vfio_irq_set *", raw)
    assert (seen.argsz, seen.flags, seen.index, seen.start, seen.count) == (28, flags, 2, 1, 2)
    assert list(uapi.ffi.cast("int32_t *", seen.data)[0:2]) == [7, -1]


def test_routing_table_is_what_c_sees() -> None:
    msi = {"address_lo": 0x8020000, "address_hi": 1, "data": 45, "devid": 9}
    raw = payloads.kvm_irq_routing.build(
        {
            "entries": [
                {"gsi": 4, "type": uapi.KVM_IRQ_ROUTING_IRQCHIP, "u": {"irqchip": 0, "pin": 8}},
                {"gsi": 5, "type": uapi.KVM_IRQ_ROUTING_MSI, "flags": uapi.KVM_MSI_VALID_DEVID, "u": msi},
            ]
        }
    )
    table = uapi.ffi.from_buffer("struct kvm_irq_routing *", raw)
    assert len(raw) == uapi.sizeof("struct kvm_irq_routing") + 2 * uapi.sizeof("struct kvm_irq_routing_entry")
    assert (table.nr, table.entries[0].u.irqchip.pin) == (2, 8)
    assert (table.entries[1].u.msi.address_lo, table.entries[1].u.msi.devid) == (0x8020000, 9)


def test_capability_chain_is_what_c_sees() -> None:
    ranges = [{"start": 0, "end": 0x7FFFFFF}, {"start": 0x8100000, "end": (1 << 48) - 1}]
    raw = payloads.vfio_iommu_type1_info.build(
        {
            "flags": uapi.VFIO_IOMMU_INFO_PGSIZES,
            "iova_pgsizes": 0x1000,
            "caps": [
                {"id": uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, "body": {"iova_ranges": ranges}},
                {"id": uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, "body": {"avail": 65535}},
            ],
        }
    )
    info = uapi.ffi.from_buffer("struct vfio_iommu_type1_info *", raw)
    assert (info.argsz, info.flags) == (len(raw), uapi.VFIO_IOMMU_INFO_PGSIZES | uapi.VFIO_IOMMU_INFO_CAPS)
    start = uapi.ffi.cast("char *", info)
    first = uapi.ffi.cast("struct vfio_iommu_type1_info_cap_iova_range *", start + info.cap_offset)
    assert (first.header.id, first.header.version, first.nr_iovas) == (1, 1, 2)
    assert first.iova_ranges[1].end == (1 << 48) - 1
    last = uapi.ffi.cast("struct vfio_iommu_type1_info_dma_avail *", start + first.header.next)
    assert (last.header.id, last.header.next, last.avail) == (3, 0, 65535)


def test_info_of_an_older_kernel_has_no_capabilities() -> None:
    parsed = payloads.vfio_device_info.parse(struct.pack("=4I", 16, uapi.VFIO_DEVICE_FLAGS_PLATFORM, 2, 1))
    assert (parsed.num_regions, parsed.cap_offset, list(parsed.caps)) == (2, None, [])


def test_info_with_too_little_room_tells_how_much_is_needed() -> None:
    """The kernel's answer to a small argsz: the CAPS flag, the size it wants, and no offset."""
    raw = struct.pack("=IIQII", 120, uapi.VFIO_IOMMU_INFO_CAPS, 0x1000, 0, 0)
    parsed = payloads.vfio_iommu_type1_info.parse(raw)
    assert (parsed.argsz, list(parsed.caps)) == (120, [])


@pytest.mark.parametrize("turn", [8, 24, 31])
def test_chain_that_turns_back_is_refused(turn: int) -> None:
    """It would never end."""
    raw = struct.pack("=IIQIIHHI", 64, uapi.VFIO_IOMMU_INFO_CAPS, 0, 24, 0, 99, 1, turn) + bytes(32)
    with pytest.raises(payloads.ConstructError):
        payloads.vfio_iommu_type1_info.parse(raw)


@pytest.mark.parametrize("following", [60, 64, 1000, 0xFFFFFFFF])
def test_chain_that_leaves_argsz_is_refused(following: int) -> None:
    raw = struct.pack("=IIQIIHHI", 64, uapi.VFIO_IOMMU_INFO_CAPS, 0, 24, 0, 99, 1, following) + bytes(100)
    with pytest.raises(payloads.ConstructError):
        payloads.vfio_iommu_type1_info.parse(raw)
