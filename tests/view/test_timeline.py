"""The picture of a trace: lanes, arrows, marks, a description; and that nothing in a trace is markup."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli.story import DEVICE, Vmm
from kvmvfio_emu.view.timeline import timeline_svg

SVG = "{http://www.w3.org/2000/svg}"
Records = list[dict[str, Any]]


def interrupt(*, forward: bool) -> Records:
    """One interrupt of the demo, without its calls."""
    records: Records = []
    with Kernel() as kernel:
        vmm = Vmm(kernel, forward=forward)
        kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
        stop = kernel.trace(records.append, ["!%ioctl"], state=True)
        kernel.after(5000, kernel.device(DEVICE).raise_interrupt)  # type: ignore[attr-defined]
        kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
        stop()
    return records


def step(number: int, name: str, **more: Any) -> dict[str, Any]:
    """A record."""
    return {"n": number, "t": number, "name": name, "f": {}, **more}


def drawn(records: Records, **options: Any) -> ElementTree.Element:
    """The picture, parsed as strictly as XML is."""
    return ElementTree.fromstring(timeline_svg(records, **options))


def arrows(picture: ElementTree.Element) -> list[ElementTree.Element]:
    return [path for path in picture.iter(f"{SVG}path") if "marker-end" in path.attrib]


def events(picture: ElementTree.Element) -> list[ElementTree.Element]:
    return [group for group in picture.iter(f"{SVG}g") if group.get("class") == "event"]


def heads(picture: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text") if "rotate" in text.get("transform", "")]


@pytest.mark.parametrize("forward", [False, True])
def test_a_row_for_each_event_and_an_arrow_for_each_cause(forward: bool) -> None:
    records = interrupt(forward=forward)
    shown = [record for record in records if "name" in record]
    numbers = {record["n"] for record in shown}
    picture = drawn(records)
    assert len(events(picture)) == len(shown) > 15
    assert len(arrows(picture)) == sum(record.get("cause") in numbers for record in shown) >= 10


def test_lanes_are_those_that_act_in_the_order_of_all_views() -> None:
    assert heads(drawn(interrupt(forward=False))) == [
        "device",
        "GIC",
        "host irq",
        "VFIO",
        "irqfd",
        "KVM",
        "VGIC",
        "CPU",
        "guest",
    ]
    assert heads(drawn([step(1, "guest_eoi"), step(2, "line_up"), step(3, "x", actor="ghost")])) == [
        "device",
        "guest",
        "ghost",
    ]


def test_arrows_lead_from_the_causes_lane_to_the_effects() -> None:
    picture = drawn([step(1, "line_up"), step(2, "host_irq", cause=1), step(3, "host_irq_lazy", cause=2)])
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in picture.iter(f"{SVG}circle")]
    assert dots[0][0] < dots[1][0] == dots[2][0]
    for arrow, (start, end) in zip(arrows(picture), [(dots[0], dots[1]), (dots[1], dots[2])], strict=True):
        coordinates = [float(word.lstrip("MC")) for word in arrow.get("d", "").split()]
        assert abs(coordinates[0] - start[0]) < 6
        assert start[1] <= coordinates[1] < coordinates[-1] <= end[1]
        assert abs(coordinates[-2] - end[0]) < 6


def test_a_cause_that_is_not_in_the_picture_has_no_arrow() -> None:
    assert not arrows(drawn([step(7, "host_irq", cause=3)]))


def test_a_mark_leaves_its_causes_and_effects_and_fades_the_rest() -> None:
    records = [
        step(1, "line_up"),
        step(2, "host_irq", cause=1),
        step(3, "vmentry"),
        step(4, "eventfd_trigger", cause=2),
        step(5, "vmexit_irq", cause=1),
    ]
    groups = events(drawn(records, at=2))
    assert [float(group.get("opacity", "1")) < 1 for group in groups] == [False, False, True, False, True]
    assert [group.get("font-weight") for group in groups] == [None, "bold", None, None, None]


def test_watched_state_is_shown_where_it_changes() -> None:
    records = [
        step(1, "line_up", s={"gic.1.state": "P"}),
        step(2, "vmentry"),
        step(3, "guest_eoi", s={"gic.1.state": None}),
    ]
    picture = drawn(records, watch={"GIC": "gic.1.state"})
    assert [[text.text for text in group.iter(f"{SVG}text")][1:] for group in events(picture)] == [["P"], [], ["none"]]


def test_the_description_tells_all_of_it() -> None:
    picture = drawn(interrupt(forward=True), title="Forwarded", ident="one", watch={"GIC": "gic.112.state"})
    assert picture.get("role") == "img"
    assert picture.get("aria-labelledby") == "one-title one-desc"
    named = {element.get("id"): element.text or "" for element in picture.iter() if element.get("id")}
    assert named["one-title"] == "Forwarded"
    assert "GIC deactivates physical 112 by itself" in named["one-desc"]
    assert "because of" in named["one-desc"]
    assert "GIC: AP" in named["one-desc"]


def test_it_has_no_colour_of_its_own() -> None:
    for element in drawn(interrupt(forward=False)).iter():
        assert {element.get("fill"), element.get("stroke")} <= {None, "none", "currentColor"}


def test_hostile_strings_are_text() -> None:
    evil = '</text><script>alert("1")</script>&'
    records = [
        {"kvmvfio_emu_trace": 1},
        step(1, evil, actor=evil, s={"a": evil}),
        step(2, "line_up", f={"line": evil}),
    ]
    picture = drawn(records, title=evil, watch={evil: "a"})
    assert not list(picture.iter(f"{SVG}script"))
    assert evil in heads(picture)


def test_what_cannot_be_drawn_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no event to draw"):
        timeline_svg([{"kvmvfio_emu_trace": 1}])
    with pytest.raises(ValueError, match="no event 9"):
        timeline_svg([step(1, "line_up")], at=9)
