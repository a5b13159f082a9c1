"""Records of calls: decoded both ways, with what the struct points at, and descriptors by what they are."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from support import ADDR, ASSIGN, BAD_POINTERS, CLOSED, DEVICE, DIST, DIST_REGS, GROUP, GROUP_ADD, NIC, Client, Edge

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli.story import tell
from kvmvfio_emu.doors.eventfds import eventfd_key
from kvmvfio_emu.uapi import payloads
from kvmvfio_emu.view.actors import ACTORS, EVENTS, actor, sentence
from kvmvfio_emu.view.decode import Decoder
from kvmvfio_emu.view.record import Recorder
from kvmvfio_emu.view.sink import Record

Boot = Callable[..., Client]


class Watch:
    """A client whose calls are recorded."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.records: list[Record] = []
        self.end = client.kernel.trace(self.take)

    def take(self, record: Record) -> None:
        if "name" in record:
            self.records.append(record)

    def last(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of the last call of that name, and of its return."""
        calls = [r for r in self.records if r.get("f", {}).get("request", r.get("f", {}).get("call")) == name]
        returned = calls[-1]
        assert returned["name"] in ("ioctl_return", "call_return")
        called = next(r for r in calls if r["n"] == returned["cause"])
        return called["f"], returned["f"]


@pytest.fixture
def watch(client: Client) -> Watch:
    return Watch(client)


# -- what a struct says -----------------------------------------------------------------------------------------------


def test_an_irqfd_with_its_eventfds(watch: Watch) -> None:
    client = watch.client
    vm, _ = client.machine()
    trigger, resample = client.eventfd(), client.eventfd()
    client.irqfd(vm, trigger, 80, uapi.KVM_IRQFD_FLAG_RESAMPLE, resample)
    called, returned = watch.last("KVM_IRQFD")
    keys = {fd: str(eventfd_key(fd)) for fd in (trigger, resample)}
    assert called["in"] == {
        "fd": {"fd": trigger, "is": f"eventfd {keys[trigger]}"},
        "gsi": 80,
        "flags": "RESAMPLE",
        "resamplefd": {"fd": resample, "is": f"eventfd {keys[resample]}"},
    }
    assert (called["task"], called["fd"], called["file"]) == (os.getpid(), vm, "vm")
    assert called["number"] == hex(uapi.KVM_IRQFD)
    assert returned == {"fd": vm, "file": "vm", "request": "KVM_IRQFD", "result": 0}
    assert {eventfd.key for eventfd in client.host.eventfds.held()} == {int(key) for key in keys.values()}


def test_a_resamplefd_that_means_nothing_is_left_out_and_a_closed_fd_is_a_number(watch: Watch) -> None:
    vm, _ = watch.client.machine()
    with pytest.raises(OSError, match="Bad file"):
        watch.client.irqfd(vm, CLOSED, 80)
    called, returned = watch.last("KVM_IRQFD")
    assert called["in"] == {"fd": CLOSED, "gsi": 80, "flags": 0}
    assert (returned["result"], returned["errno"]) == (-1, "EBADF")
    assert "not open" in returned["reason"]


def test_a_descriptor_that_is_none_of_ours_is_a_number(watch: Watch) -> None:
    vm, _ = watch.client.machine()
    with pytest.raises(OSError, match="Invalid"):
        watch.client.irqfd(vm, 0, 80)
    assert watch.last("KVM_IRQFD")[0]["in"]["fd"] == 0


def test_unknown_flags_are_shown_as_what_they_are(watch: Watch) -> None:
    vm, _ = watch.client.machine()
    with pytest.raises(OSError, match="Invalid"):
        watch.client.irqfd(vm, 0, 80, uapi.KVM_IRQFD_FLAG_DEASSIGN | 0x40)
    assert watch.last("KVM_IRQFD")[0]["in"]["flags"] == "DEASSIGN|0x40"


def test_values_are_named(watch: Watch) -> None:
    kvm = watch.client.kvm
    watch.client.ioctl(kvm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_IRQFD)
    assert watch.last("KVM_CHECK_EXTENSION")[0]["arg"] == "KVM_CAP_IRQFD"
    watch.client.ioctl(kvm, uapi.KVM_CHECK_EXTENSION, 0xFFFF)
    assert watch.last("KVM_CHECK_EXTENSION")[0]["arg"] == 0xFFFF


def test_results_that_are_descriptors_say_what_they_are(watch: Watch) -> None:
    vm = watch.client.vm()
    assert watch.last("KVM_CREATE_VM")[1]["is"] == "vm"
    watch.client.vcpu(vm)
    assert watch.last("KVM_CREATE_VCPU")[1]["is"] == "vcpu 0"
    watch.client.device()
    assert watch.last("VFIO_GROUP_GET_DEVICE_FD")[0]["in"] == {"name": NIC}
    assert watch.last("VFIO_GROUP_GET_DEVICE_FD")[1]["is"] == f"vfio-device {NIC}"
    assert watch.last("VFIO_GROUP_SET_CONTAINER")[0]["in"]["fd"]["is"] == "container"


def test_a_struct_that_goes_both_ways_shows_each_half_where_it_belongs(watch: Watch) -> None:
    vm = watch.client.vm()
    watch.client.vcpu(vm)
    vgic = watch.client.vgic(vm)
    called, returned = watch.last("KVM_CREATE_DEVICE")
    assert called["in"] == {"type": "KVM_DEV_TYPE_ARM_VGIC_V2", "flags": 0}
    assert returned["out"] == {"fd": {"fd": vgic, "is": "device kvm-arm-vgic-v2"}}


def test_a_struct_that_only_comes_back(watch: Watch) -> None:
    target = uapi.pack("struct kvm_vcpu_init")
    watch.client.ioctl(watch.client.vm(), uapi.KVM_ARM_PREFERRED_TARGET, target)
    called, returned = watch.last("KVM_ARM_PREFERRED_TARGET")
    assert "in" not in called
    assert returned["out"] == {"target": "KVM_ARM_TARGET_GENERIC_V8", "features": []}


def test_an_unknown_request_is_shown_by_its_parts(watch: Watch) -> None:
    with pytest.raises(OSError, match="ioctl"):
        watch.client.ioctl(watch.client.vm(), 0x4008AEFE, 7)
    called = next(r["f"] for r in watch.records if r.get("f", {}).get("number") == "0x4008aefe")
    assert (called["request"], called["arg"]) == ("_IOW(0xAE, 0xFE, 8)", "0x7")


# -- what a struct points at ------------------------------------------------------------------------------------------


def test_an_attribute_that_is_set(watch: Watch) -> None:
    watch.client.machine()
    inside = watch.last("KVM_SET_DEVICE_ATTR")[0]["in"]
    assert inside["group"] == "KVM_DEV_ARM_VGIC_GRP_ADDR"
    assert (inside["attr"], inside["value"]) == ("KVM_VGIC_V2_ADDR_TYPE_CPU", "0x8010000")


def test_an_attribute_that_is_got_has_its_value_at_the_return(watch: Watch) -> None:
    _, vgic = watch.client.machine()
    watch.client.get(vgic, ADDR, DIST, 8)
    called, returned = watch.last("KVM_GET_DEVICE_ATTR")
    assert "value" not in called["in"]
    assert returned["out"] == {"value": "0x8000000"}


def test_a_register_by_its_offset_and_vcpu(watch: Watch) -> None:
    _, vgic = watch.client.machine()
    watch.client.has(vgic, DIST_REGS, 0x104)
    assert watch.last("KVM_HAS_DEVICE_ATTR")[0]["in"]["attr"] == {"register": "0x104", "cpu": 0}


def test_a_group_that_is_added_and_an_interrupt_that_is_forwarded(watch: Watch) -> None:
    client = watch.client
    vm, _ = client.machine()
    control, device = client.kvm_vfio(vm), client.device()
    client.forward(control, ASSIGN, device)
    inside = watch.last("KVM_SET_DEVICE_ATTR")[0]["in"]
    assert (inside["group"], inside["attr"]) == ("KVM_DEV_VFIO_DEVICE", "KVM_DEV_VFIO_DEVICE_ASSIGN_IRQ")
    assert inside["value"] == {"fd": {"fd": device, "is": f"vfio-device {NIC}"}, "index": 0, "gsi": 80}
    group = client.group(2)
    client.set_u32(control, GROUP, GROUP_ADD, group)
    assert watch.last("KVM_SET_DEVICE_ATTR")[0]["in"]["value"] == {"fd": group, "is": "group 2"}


def test_the_later_drafts_list_of_gsis(boot: Boot) -> None:
    watch = Watch(boot("draft-v4"))
    client = watch.client
    vm, _ = client.machine()
    control, device = client.kvm_vfio(vm), client.device()
    payload = payloads.kvm_vfio_dev_irq.build({"fd": device, "index": 0, "start": 0, "gsi": [80]})
    client.set_at(control, DEVICE, uapi.KVM_DEV_VFIO_DEVICE_FORWARD_IRQ, client.pointer(payload))
    inside = watch.last("KVM_SET_DEVICE_ATTR")[0]["in"]
    assert inside["attr"] == "KVM_DEV_VFIO_DEVICE_FORWARD_IRQ"
    assert inside["value"]["gsi"] == [80]
    assert inside["value"]["fd"]["is"] == f"vfio-device {NIC}"


def test_an_attribute_of_an_older_kernel_keeps_its_name_and_none_is_invented(watch: Watch) -> None:
    control = watch.client.kvm_vfio(watch.client.machine()[0])
    with pytest.raises(OSError, match="No such device"):
        watch.client.has(control, DEVICE, 9)
    assert watch.last("KVM_HAS_DEVICE_ATTR")[0]["in"] == {"group": "KVM_DEV_VFIO_DEVICE", "attr": 9}


# -- what follows a struct --------------------------------------------------------------------------------------------


def test_the_data_of_set_irqs(watch: Watch) -> None:
    device, trigger = watch.client.device(), watch.client.eventfd()
    watch.client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_TRIGGER, trigger)
    inside = watch.last("VFIO_DEVICE_SET_IRQS")[0]["in"]
    assert inside["flags"] == "DATA_EVENTFD|ACTION_TRIGGER"
    assert [data["fd"] for data in inside["data"]] == [trigger]
    watch.client.set_irqs(device, uapi.VFIO_IRQ_SET_ACTION_TRIGGER, -1)
    assert watch.last("VFIO_DEVICE_SET_IRQS")[0]["in"]["data"] == [-1]


def test_the_data_of_set_irqs_in_bytes(watch: Watch) -> None:
    device = watch.client.device()
    flags = uapi.VFIO_IRQ_SET_DATA_BOOL | uapi.VFIO_IRQ_SET_ACTION_MASK
    request = payloads.vfio_irq_set.build({"flags": flags, "index": 0, "data": [1]})
    watch.client.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, bytearray(request))
    inside = watch.last("VFIO_DEVICE_SET_IRQS")[0]["in"]
    assert (inside["flags"], inside["data"]) == ("DATA_BOOL|ACTION_MASK", [1])


def test_a_routing_table(boot: Boot) -> None:
    watch = Watch(boot("draft-v4", irq_routing=True))
    vm, _ = watch.client.machine()
    entries = [
        {"gsi": 5, "type": uapi.KVM_IRQ_ROUTING_IRQCHIP, "u": {"irqchip": 0, "pin": 8}},
        {"gsi": 6, "type": 77, "u": bytes(32)},
    ]
    table = payloads.kvm_irq_routing.build({"entries": entries})
    with pytest.raises(OSError, match="Invalid"):
        watch.client.ioctl(vm, uapi.KVM_SET_GSI_ROUTING, bytearray(table))
    inside = watch.last("KVM_SET_GSI_ROUTING")[0]["in"]
    assert inside["nr"] == 2
    assert inside["entries"][0] == {
        "gsi": 5,
        "type": "KVM_IRQ_ROUTING_IRQCHIP",
        "flags": 0,
        "irqchip": 0,
        "pin": 8,
    }
    assert inside["entries"][1]["type"] == 77


def test_capabilities_that_follow_an_info_struct(boot: Boot) -> None:
    watch = Watch(boot("linux-6.1"))
    container = watch.client.container()
    group = watch.client.kernel.open("/dev/vfio/1")
    watch.client.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, bytearray(container.to_bytes(4, "little")))
    watch.client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
    info = uapi.pack("struct vfio_iommu_type1_info", argsz=512) + bytes(512)
    watch.client.ioctl(container, uapi.VFIO_IOMMU_GET_INFO, info)
    called, returned = watch.last("VFIO_IOMMU_GET_INFO")
    assert called["in"] == {"argsz": 512}
    assert "PGSIZES" in returned["out"]["flags"]
    caps = {cap["id"]: cap for cap in returned["out"]["caps"]}
    assert caps["VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE"]["iova_ranges"][0]["start"] == 0
    assert "avail" in caps["VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL"]


def test_a_region_that_comes_back(watch: Watch) -> None:
    info = uapi.pack("struct vfio_region_info", argsz=32)
    watch.client.ioctl(watch.client.device(), uapi.VFIO_DEVICE_GET_REGION_INFO, info)
    called, returned = watch.last("VFIO_DEVICE_GET_REGION_INFO")
    assert called["in"] == {"argsz": 32, "index": 0}
    assert returned["out"]["size"] == "0x1000"
    assert returned["out"]["flags"].startswith("READ|WRITE")


def test_why_a_vcpu_came_back() -> None:
    records: list[Record] = []
    with Kernel() as kernel:
        kernel.listen(Recorder(kernel.host, records.append))
        tell(kernel, forward=False, interrupts=1)
    returned = [r["f"] for r in records if r["name"] == "ioctl_return" and r["f"]["request"] == "KVM_RUN"]
    assert returned[-1]["out"]["exit_reason"] == "KVM_EXIT_MMIO"
    assert returned[-1]["out"]["is_write"] == 1
    assert returned[-1]["detail"] == "0"


# -- other calls ------------------------------------------------------------------------------------------------------


def test_open_mmap_and_access_to_registers(watch: Watch) -> None:
    kernel, device = watch.client.kernel, watch.client.device()
    assert watch.last("open")[0]["in"]["path"].startswith("/dev/vfio/")
    assert watch.last("open")[1]["is"] in ("container", "group 1")
    kernel.pread(device, 4, 0x10)
    called, returned = watch.last("pread")
    assert (called["in"], called["file"], called["detail"]) == ({"size": 4, "offset": "0x10"}, "vfio-device", NIC)
    assert (returned["result"], returned["out"]) == (4, {"data": "00000000"})
    kernel.pwrite(device, b"\x01\0\0\0", 0x10)
    called, returned = watch.last("pwrite")
    assert called["in"] == {"data": "01000000", "offset": "0x10"}
    assert returned["result"] == 4
    with pytest.raises(OSError, match="Invalid"):
        kernel.pread(device, 4, 1 << 60)
    assert watch.last("pread")[1]["errno"] == "EINVAL"
    with kernel.mmap(device, 4096):
        pass
    assert watch.last("mmap")[0]["in"] == {"offset": 0, "length": 4096, "shared": True, "write": True}


def test_a_failed_open(watch: Watch) -> None:
    with pytest.raises(FileNotFoundError):
        watch.client.kernel.open("/dev/vfio/77")
    called, returned = watch.last("open")
    assert "fd" not in called
    assert (returned["errno"], returned["reason"]) == ("ENOENT", "no device node /dev/vfio/77")


def test_the_last_close_says_whose(watch: Watch) -> None:
    vm = watch.client.vm()
    watch.client.close(watch.client.vcpu(vm, 0))
    assert watch.records[-1]["f"] == {"file": "vcpu", "detail": "0"}


# -- what is wrong with a call is the kernel's business ----------------------------------------------------------------


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_a_pointer_to_nothing(watch: Watch, pointer: int) -> None:
    vm = watch.client.vm()
    with pytest.raises(OSError, match="Bad address"):
        watch.client.ioctl(vm, uapi.KVM_IRQFD, pointer)
    called, returned = watch.last("KVM_IRQFD")
    assert called["arg"] == hex(pointer)
    assert "in" not in called
    assert returned["errno"] == "EFAULT"


def test_an_attribute_whose_value_is_not_there(watch: Watch) -> None:
    _, vgic = watch.client.machine()
    with pytest.raises(OSError, match="Bad address"):
        watch.client.set_at(vgic, ADDR, DIST, 0x10)
    inside = watch.last("KVM_SET_DEVICE_ATTR")[0]["in"]
    assert (inside["addr"], "value" in inside) == ("0x10", False)


def test_a_name_that_ends_where_memory_ends(watch: Watch) -> None:
    group = watch.client.group()
    address = Edge().put(NIC.encode() + b"\0")
    watch.client.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, address)
    assert watch.last("VFIO_GROUP_GET_DEVICE_FD")[0]["in"] == {"name": NIC}


def test_a_trace_changes_no_answer(boot: Boot) -> None:
    """The same calls with nonsense in every struct, traced and not: the same results."""

    def answers(client: Client) -> list[object]:
        random.seed(4)
        vm, vgic = client.machine()
        device = client.device()
        files = {"vm": vm, "device": vgic, "vfio-device": device, "kvm": client.kvm}
        found: list[object] = []
        for (kind, number), row in uapi.IOCTLS.items():
            if kind in files and row.struct is not None:
                for fill in (bytes(256), b"\xff" * 256, random.randbytes(256)):
                    try:
                        found.append(client.ioctl(files[kind], number, bytearray(fill)))
                    except OSError as error:
                        found.append((row.name, error.errno, error.__notes__))
        return found

    traced = boot()
    records: list[Record] = []
    traced.kernel.trace(records.append)
    assert [str(a) for a in answers(boot())] == [str(a) for a in answers(traced)]
    assert len(records) > 200


def test_nonsense_is_decoded_to_something_plain() -> None:
    """Every request, every kind of rubbish: no exception, and JSON values only."""
    import json

    generator = random.Random(3)
    for row in uapi.IOCTLS.values():
        for size in (0, 4, 8, 20, 64, 1 << 17):
            for fill in (bytes, lambda n: b"\xff" * n, generator.randbytes):
                memory = fill(size)
                decoder = Decoder(lambda p, n, m=memory: None if p + n > len(m) else m[p : p + n], lambda fd: f"x {fd}")
                for after in (False, True):
                    json.dumps(decoder.argument(row, 0, after=after))


# -- actors and sentences ---------------------------------------------------------------------------------------------


def test_every_event_has_a_known_actor() -> None:
    assert {who for who, _ in EVENTS.values()} == set(ACTORS)
    assert actor("something new") == "KVM"


def test_sentences_survive_fields_that_are_missing() -> None:
    assert all(sentence(name, {}) for name in EVENTS)
    assert sentence("something_new", {"a": 1, "b": "x"}) == "something_new a=1 b=x"
    assert sentence("ioctl_return", {"request": "KVM_RUN", "result": 3}) == "KVM_RUN returns 3"
    assert (
        sentence("call_return", {"call": "open", "errno": "ENOENT", "reason": "why"}) == "open fails with ENOENT: why"
    )


# -- state ------------------------------------------------------------------------------------------------------------


def replay(records: list[Record]) -> list[tuple[str, dict[str, Any]]]:
    """(event, the whole state after it)."""
    state: dict[str, Any] = {}
    found = []
    for record in records:
        for path, value in record.get("s", {}).items():
            if value is None:
                del state[path]  # only what was there can go
            else:
                assert state.get(path) != value, f"{path} is {value} already"
                state[path] = value
        found.append((str(record.get("name")), dict(state)))
    return found


@pytest.mark.parametrize("forward", [False, True])
def test_the_state_after_each_step_of_an_interrupt(forward: bool) -> None:
    records: list[Record] = []
    with Kernel() as kernel:
        end = kernel.trace(records.append, state=True)
        tell(kernel, forward=forward, interrupts=1)
        end()
    states = replay(records)
    steps = {name: state for name, state in states if state.get("gic.112.line") or name in ("line_down", "guest_eoi")}
    assert steps["line_up"]["gic.112.state"] == "P"
    assert steps["host_irq"]["irq.112.forwarded"] == forward
    assert steps["eventfd_trigger"]["vfio.fff51000.ethernet.0.masked"] is not forward
    assert steps["set_irq"]["vgic.0.112.pending"] is True
    assert "lr.0.0.0" not in steps["set_irq"]
    assert steps["lr_queued"]["lr.0.0.0"] == ("112 pending HW->112" if forward else "112 pending EOI")
    assert steps["guest_iar"]["lr.0.0.0"].startswith("112 active")
    assert steps["line_down"]["gic.112.line"] is False
    last = states[-1][1]
    assert (last["gic.112.state"], last["gic.112.enabled"], last["irq.112.depth"]) == ("I", True, 0)
    assert last["vcpu.0.0.in_guest"] is False
    if forward:
        assert (last["rbtree.0"]["virtual"], last["rbtree.0"]["physical"]) == (112, 112)
    else:
        assert "rbtree.0" not in last


def test_a_filter_keeps_the_state_complete() -> None:
    records: list[Record] = []
    with Kernel() as kernel:
        end = kernel.trace(records.append, ["actor=device"], state=True)
        tell(kernel, forward=False, interrupts=1)
        end()
    assert {record.get("name") for record in records} == {None, "line_up", "line_down"}
    assert replay(records)[-1][1]["vcpu.0.0.in_guest"] is False
