"""The map of forwarded interrupts, by itself. Contract 4."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.vgic.physmap import PhysicalMap


@pytest.fixture
def one() -> PhysicalMap:
    """A map with 112 -> 109."""
    physmap = PhysicalMap()
    physmap.map(112, 109)
    return physmap


@pytest.mark.parametrize("phys", [109, 110])
def test_map_of_a_mapped_virtual_id_is_eexist_even_for_the_same_phys(one: PhysicalMap, phys: int) -> None:
    with pytest.raises(KernelError) as refused:
        one.map(112, phys)
    assert refused.value.errno == errno.EEXIST
    assert one.lookup(112) == 109


@pytest.mark.parametrize(("virt", "phys"), [(112, 110), (113, 109), (0, 0)])
def test_unmap_needs_both_to_match_else_enoent(one: PhysicalMap, virt: int, phys: int) -> None:
    with pytest.raises(KernelError) as refused:
        one.unmap(virt, phys)
    assert refused.value.errno == errno.ENOENT
    assert one.lookup(112) == 109


def test_lookup_of_an_absent_id_is_none(one: PhysicalMap) -> None:
    assert one.lookup(111) is None


def test_unmap_makes_room(one: PhysicalMap) -> None:
    one.unmap(112, 109)
    assert one.lookup(112) is None
    one.map(112, 7)


def test_there_is_no_range_check(one: PhysicalMap) -> None:
    one.map(0xFFFFFFFF, 0xFFFFFFFF)
    assert one.lookup(0xFFFFFFFF) == 0xFFFFFFFF


def test_same_phys_under_two_ids_is_accepted_but_check_tells(one: PhysicalMap) -> None:
    one.map(113, 109)
    with pytest.raises(AssertionError, match="forwarded twice"):
        one.check()


def test_clear_frees_the_whole_tree(one: PhysicalMap) -> None:
    one.map(5, 6)
    one.clear()
    assert list(one) == []


@given(st.lists(st.tuples(st.sampled_from(["map", "unmap"]), st.integers(32, 48), st.integers(32, 40)), max_size=60))
def test_map_behaves_as_a_dict(steps: list[tuple[str, int, int]]) -> None:
    physmap, model = PhysicalMap(), dict[int, int]()
    for verb, virt, phys in steps:
        fails = virt in model if verb == "map" else model.get(virt) != phys
        try:
            (physmap.map if verb == "map" else physmap.unmap)(virt, phys)
        except KernelError:
            assert fails
        else:
            assert not fails
            if verb == "map":
                model[virt] = phys
            else:
                del model[virt]
        assert {node.virt: node.phys for node in physmap} == dict(sorted(model.items()))
        assert [node.virt for node in physmap] == sorted(model)
        assert physmap.lookup(virt) == model.get(virt)
