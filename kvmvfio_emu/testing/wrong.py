"""Calls that must be refused, each with the errno of its clause, and that must change nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable

from kvmvfio_emu import uapi
from kvmvfio_emu.testing.route import Route
from kvmvfio_emu.testing.vmm import TRIGGER, UNMASK, VfioDevice, Vm

_BAD_FD = 0x7FFF
_EVENTFD = uapi.VFIO_IRQ_SET_DATA_EVENTFD
_Call = Callable[[Route, VfioDevice, Vm], object]


def _always(route: Route) -> bool:
    return True


def _can_forward(route: Route) -> bool:
    return route.world.forwards


def _cannot_forward(route: Route) -> bool:
    return not route.world.forwards


def _nobody_runs(route: Route) -> bool:
    return route.vm is not None and not any(guest.running for guest in route.vm.guests)


def _forwarded(route: Route) -> bool:
    return route.forwarded


def _unforwarded(route: Route) -> bool:
    return route.world.forwards and not route.forwarded


def _tied(route: Route) -> bool:
    return route.irqfd


def _second_interrupt(route: Route, device: VfioDevice, vm: Vm) -> None:
    """It has no second one, and is told so before its trigger is touched."""
    header = uapi.pack("struct vfio_irq_set", argsz=24, flags=_EVENTFD | TRIGGER, index=route.index, start=1, count=1)
    device.kernel.ioctl(device.fd, uapi.VFIO_DEVICE_SET_IRQS, header[:20] + device.trigger[0].to_bytes(4, "little"))


#: Name -> (errno, what must be so, the call).
CALLS: dict[str, tuple[int, Callable[[Route], bool], _Call]] = {
    "assign a closed descriptor": (errno.EBADF, _can_forward, lambda r, d, v: v.assign(_BAD_FD, 0, r.gsi)),
    "assign a group": (errno.EINVAL, _can_forward, lambda r, d, v: v.assign(d.group, 0, r.gsi)),
    "assign an interrupt too far": (errno.EINVAL, _can_forward, lambda r, d, v: v.assign(d.fd, len(d.lines), r.gsi)),
    "assign to a gsi too far": (errno.EINVAL, _unforwarded, lambda r, d, v: v.assign(d.fd, r.index, 5000)),
    "assign without forwarding": (errno.ENXIO, _cannot_forward, lambda r, d, v: v.assign(d.fd, r.index, r.gsi)),
    "assign again": (errno.EINVAL, _forwarded, lambda r, d, v: v.assign(d.fd, r.index, r.gsi)),
    "deassign what is not": (errno.EINVAL, _unforwarded, lambda r, d, v: v.deassign(d.fd, r.index, r.gsi)),
    "irqfd again": (errno.EBUSY, _tied, lambda r, d, v: v.irqfd(d.trigger[r.index], r.gsi + 1)),
    "irqfd of no eventfd": (errno.EINVAL, _always, lambda r, d, v: v.irqfd(d.fd, r.gsi)),
    "irqfd of a closed descriptor": (errno.EBADF, _always, lambda r, d, v: v.irqfd(_BAD_FD, r.gsi)),
    "a second KVM-VFIO device": (errno.EBUSY, _always, lambda r, d, v: v.create_device(uapi.KVM_DEV_TYPE_VFIO)),
    "a second VGIC": (errno.EEXIST, _nobody_runs, lambda r, d, v: v.create_device(uapi.KVM_DEV_TYPE_ARM_VGIC_V2)),
    "a second unmask eventfd": (
        errno.EBUSY,
        _always,
        lambda r, d, v: d.set_eventfd(UNMASK, d.resample[r.index], r.index),
    ),
    "a trigger for a second interrupt": (errno.EINVAL, _always, _second_interrupt),
    "leave the container": (
        errno.EBUSY,
        _always,
        lambda r, d, v: d.kernel.ioctl(d.group, uapi.VFIO_GROUP_UNSET_CONTAINER),
    ),
    "another container": (
        errno.EINVAL,
        _always,
        lambda r, d, v: d.kernel.ioctl(d.group, uapi.VFIO_GROUP_SET_CONTAINER, d.container.to_bytes(4, "little")),
    ),
    "the group again": (errno.EBUSY, _always, lambda r, d, v: d.kernel.open(f"/dev/vfio/{d.hw.spec.group}")),
    "an unknown device": (
        errno.ENODEV,
        _always,
        lambda r, d, v: d.kernel.ioctl(d.group, uapi.VFIO_GROUP_GET_DEVICE_FD, bytearray(b"nothing\0")),
    ),
    "an unknown attribute": (errno.ENXIO, _always, lambda r, d, v: v.set_attr(v.control, 7, 0, bytes(8))),
}


def refused(route: Route, which: str) -> OSError | None:
    """Make that call; its error, None when it cannot be made now. AssertionError unless it is refused as it must."""
    wanted, needs, call = CALLS[which]
    device, vm = route.device, route.vm
    if device is None or vm is None or not needs(route):
        return None
    before = route.world.footprint()
    error = _error(lambda: call(route, device, vm))
    assert error is not None, f"{which} was accepted"
    reason = "; ".join(getattr(error, "__notes__", []))
    assert error.errno == wanted, f"{which}: {error}, not {errno.errorcode[wanted]}; {reason}"
    assert route.world.footprint() == before, f"{which} was refused, but changed something"
    return error


def _error(act: Callable[[], object]) -> OSError | None:
    try:
        act()
    except OSError as error:
        return error
    return None
