"""Device attributes of a vCPU's own descriptor: performance monitors, timers, stolen time; on x86 the TSC.

Models kvm_arm_vcpu_set_attr and its kin (arch/arm64/kvm/guest.c, pmu-emul.c, arch_timer.c, pvtime.c).
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.arch.arm import TIMER_IRQS, ArmArch
from kvmvfio_emu.kernel.kvm.attributes import AttrGroup, find

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu

_TIMERS = ("KVM_ARM_VCPU_TIMER_IRQ_VTIMER", "KVM_ARM_VCPU_TIMER_IRQ_PTIMER")
_NESTED_TIMERS = ("KVM_ARM_VCPU_TIMER_IRQ_HVTIMER", "KVM_ARM_VCPU_TIMER_IRQ_HPTIMER")
#: KVM_VCPU_TSC_CTRL and KVM_VCPU_TSC_OFFSET, both 0; the project's headers are those of ARM.
_TSC_GROUP = _TSC_OFFSET = 0
_FIRST_PPI, _FIRST_SPI, _LAST_SPI = 16, 32, 1019
#: Event numbers of the PMU version that a Cortex-A72 has.
_EVENTS = 1024
_NOWHERE = (1 << 64) - 1
_STOLEN_TIME_ALIGN = 64
_PAGE = 4096


_NO_MONITORS = "ENODEV the vCPU has no performance monitors"
_MONITORS_USED = "EBUSY the performance monitors are set up"
_PMU = AttrGroup("KVM_ARM_VCPU_PMU_V3_CTRL", when="arch=arm64")
_TIMER = AttrGroup(
    "KVM_ARM_VCPU_TIMER_CTRL",
    _TIMERS,
    when="arch=arm64",
    payload="int32_t",
    gettable=True,
    what="The private interrupt (PPI) by which a timer interrupts, on all vCPUs.",
    errors=("EINVAL there is no VGIC, or that is no PPI", "EBUSY a vCPU has run"),
)


class VcpuAttributes:
    """What the attributes of one vCPU are set to."""

    #: ARM's. "KVM_ARM_VCPU_PMU_V3_CTRL" is only there on a vCPU with that feature.
    groups = (
        replace(
            _PMU,
            names=("KVM_ARM_VCPU_PMU_V3_IRQ",),
            payload="int32_t",
            gettable=True,
            what="The interrupt of the performance monitors: one PPI for all vCPUs, or a shared interrupt for each.",
            errors=(
                _NO_MONITORS,
                "EINVAL there is no VGIC, or not such an interrupt",
                "EBUSY set already",
                "ENXIO getting it before it is set",
            ),
        ),
        replace(
            _PMU,
            names=("KVM_ARM_VCPU_PMU_V3_INIT",),
            what="Make them ready for use. With a VGIC, after that is initialised and the interrupt is set.",
            errors=(
                "ENODEV no performance monitors, or the VGIC is not initialised",
                "ENXIO no interrupt",
                _MONITORS_USED,
            ),
        ),
        replace(
            _PMU,
            names=("KVM_ARM_VCPU_PMU_V3_FILTER",),
            payload="struct kvm_pmu_event_filter",
            what="Which events the guest may count.",
            errors=(
                _NO_MONITORS,
                "EINVAL no such events, or another action",
                "EBUSY a vCPU has run, or they are set up",
            ),
        ),
        replace(
            _PMU,
            names=("KVM_ARM_VCPU_PMU_V3_SET_PMU",),
            payload="int32_t",
            what="The perf device that counts; the emulated host has none.",
            errors=(_NO_MONITORS, "ENXIO no such device", _MONITORS_USED),
        ),
        _TIMER,
        replace(_TIMER, names=_NESTED_TIMERS, when="arch=arm64 timer_interrupts=4"),
        AttrGroup(
            "KVM_ARM_VCPU_PVTIME_CTRL",
            ("KVM_ARM_VCPU_PVTIME_IPA",),
            when="arch=arm64 KVM_CAP_STEAL_TIME",
            payload="uint64_t",
            gettable=True,
            what="The guest physical address of the record of stolen time. Unset it reads as all ones.",
            errors=("EINVAL not 64-byte aligned, or not in guest memory", "EEXIST set already"),
        ),
    )

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self._vm = vcpu.vm
        self._profile = vcpu.host.profile
        self.pmu_irq: int | None = None
        self.pmu_created = False
        self.pmu_filters: list[tuple[int, int, int]] = []  #: first event, how many, KVM_PMU_EVENT_*
        self.stolen_time = _NOWHERE  #: guest address of the record
        self.tsc_offset = 0
        arch = vcpu.vm.arch
        per_vm = isinstance(arch, ArmArch) and self._profile.timer_interrupts_per_vm
        self.timer_irqs = arch.timer_irqs if isinstance(arch, ArmArch) and per_vm else list(TIMER_IRQS)

    @property
    def has_pmu(self) -> bool:
        """Whether KVM_ARM_VCPU_INIT asked for performance monitors."""
        return bool(self._vcpu.features >> uapi.KVM_ARM_VCPU_PMU_V3 & 1)

    def has(self, attr: Any) -> int:
        """KVM_HAS_DEVICE_ATTR. ENXIO."""
        if self._profile.arch == "x86_64":
            if attr.group == _TSC_GROUP and attr.attr == _TSC_OFFSET:
                return 0
            raise self._unknown(attr)
        row = find(self.groups, attr, self._profile, "a vCPU")
        if row.number == uapi.KVM_ARM_VCPU_PMU_V3_CTRL and not self.has_pmu:
            raise KernelError(errno.ENXIO, "the vCPU has no performance monitors")
        return 0

    def get(self, attr: Any) -> int:
        """KVM_GET_DEVICE_ATTR. ENXIO unknown or not set yet, EFAULT; EINVAL, ENODEV the PMU's interrupt."""
        if self._profile.arch == "x86_64":
            self.has(attr)
            return self._answer(attr, self.tsc_offset, 8)
        if attr.group == uapi.KVM_ARM_VCPU_PMU_V3_CTRL:
            return self._get_pmu(attr)
        self.has(attr)
        if attr.group == uapi.KVM_ARM_VCPU_PVTIME_CTRL:
            return self._answer(attr, self.stolen_time, 8)
        return self._answer(attr, self.timer_irqs[attr.attr], 4)

    def set(self, attr: Any) -> int:
        """KVM_SET_DEVICE_ATTR. As each says."""
        if self._profile.arch == "x86_64":
            self.has(attr)
            self.tsc_offset = self._value(attr, 8)
        elif attr.group == uapi.KVM_ARM_VCPU_PMU_V3_CTRL:
            self._set_pmu(attr)
        elif attr.group == uapi.KVM_ARM_VCPU_TIMER_CTRL:
            self._set_timer(attr)
        else:
            self.has(attr)
            self._set_stolen_time(self._value(attr, 8))
        return 0

    def _value(self, attr: Any, size: int) -> int:
        return int.from_bytes(self._vcpu.host.current.copy_from_user(attr.addr, size), "little")

    def _answer(self, attr: Any, value: int, size: int) -> int:
        self._vcpu.host.current.copy_to_user(attr.addr, value.to_bytes(size, "little"))
        return 0

    @staticmethod
    def _unknown(attr: Any) -> KernelError:
        return KernelError(errno.ENXIO, f"a vCPU has no attribute {attr.attr:#x} in group {attr.group}")

    # -- stolen time, timers ----------------------------------------------------------------------------------

    def _set_stolen_time(self, address: int) -> None:
        """EINVAL not 64-byte aligned, or not in guest memory; EEXIST set already."""
        if address % _STOLEN_TIME_ALIGN:
            raise KernelError(errno.EINVAL, f"{address:#x} is not aligned to {_STOLEN_TIME_ALIGN} bytes")
        if self.stolen_time != _NOWHERE:
            raise KernelError(errno.EEXIST, f"stolen time is recorded at {self.stolen_time:#x}")
        if self._vm.memory.find(address - address % _PAGE) is None:
            raise KernelError(errno.EINVAL, f"no guest memory at {address:#x}")
        self.stolen_time = address

    def _set_timer(self, attr: Any) -> None:
        """EINVAL no VGIC, or no private peripheral interrupt; EFAULT; EBUSY a vCPU has run; ENXIO."""
        if not self._vm.arch.has_irqchip:
            raise KernelError(errno.EINVAL, "no VGIC to interrupt through")
        irq = self._value(attr, 4)
        if not _FIRST_PPI <= irq < _FIRST_SPI:
            raise KernelError(errno.EINVAL, f"{irq} is no private peripheral interrupt")
        per_vm = self._profile.timer_interrupts_per_vm
        if any(vcpu.has_run for vcpu in (self._vm.vcpus if per_vm else (self._vcpu,))):
            raise KernelError(errno.EBUSY, "the timers are in use")
        self.has(attr)
        for vcpu in self._vm.vcpus:
            vcpu.attributes.timer_irqs[attr.attr] = irq

    # -- performance monitors ---------------------------------------------------------------------------------

    def _get_pmu(self, attr: Any) -> int:
        if attr.attr != uapi.KVM_ARM_VCPU_PMU_V3_IRQ:
            raise self._unknown(attr)
        self._require_vgic()
        self._require_pmu()
        if self.pmu_irq is None:
            raise KernelError(errno.ENXIO, "the performance monitors have no interrupt yet")
        return self._answer(attr, self.pmu_irq, 4)

    def _require_vgic(self) -> None:
        if not self._vm.arch.has_irqchip:
            raise KernelError(errno.EINVAL, "no VGIC to interrupt through")

    def _require_pmu(self) -> None:
        if not self.has_pmu:
            raise KernelError(errno.ENODEV, "the vCPU has no performance monitors")

    def _set_pmu(self, attr: Any) -> None:
        """ENODEV no monitors, or the VGIC is not ready; EBUSY ready to use; ENXIO; and as each attribute says."""
        self._require_pmu()
        if self.pmu_created:
            raise KernelError(errno.EBUSY, "the performance monitors are set up")
        if attr.attr == uapi.KVM_ARM_VCPU_PMU_V3_IRQ:
            self._require_vgic()
            self._set_pmu_irq(self._value(attr, 4))
        elif attr.attr == uapi.KVM_ARM_VCPU_PMU_V3_FILTER:
            self._filter_events(attr)
        elif attr.attr == uapi.KVM_ARM_VCPU_PMU_V3_INIT:
            self._init_pmu()
        elif attr.attr == uapi.KVM_ARM_VCPU_PMU_V3_SET_PMU:
            raise KernelError(errno.ENXIO, f"the host has no perf device {self._value(attr, 4)}")
        else:
            raise self._unknown(attr)

    def _set_pmu_irq(self, irq: int) -> None:
        """EINVAL no PPI or SPI, or not the others' PPI, or another's SPI; EBUSY set already."""
        is_ppi = _FIRST_PPI <= irq < _FIRST_SPI
        if not is_ppi and not _FIRST_SPI <= irq <= _LAST_SPI:
            raise KernelError(errno.EINVAL, f"{irq} is no interrupt for performance monitors")
        for vcpu in self._vm.vcpus:
            other = vcpu.attributes.pmu_irq
            if other is not None and (other == irq) is not is_ppi:
                raise KernelError(errno.EINVAL, f"vCPU {vcpu.number} has {other}: one PPI for all, or an SPI each")
        if self.pmu_irq is not None:
            raise KernelError(errno.EBUSY, f"the performance monitors interrupt as {self.pmu_irq}")
        self.pmu_irq = irq

    def _filter_events(self, attr: Any) -> None:
        """EFAULT; EINVAL events that there are not, or another action; EBUSY a vCPU has run."""
        size = uapi.sizeof("struct kvm_pmu_event_filter")
        raw = self._vcpu.host.current.copy_from_user(attr.addr, size)
        wanted = uapi.view("struct kvm_pmu_event_filter", raw)
        if wanted.base_event + wanted.nevents > _EVENTS or wanted.action > uapi.KVM_PMU_EVENT_DENY:
            raise KernelError(errno.EINVAL, f"{wanted.nevents} events from {wanted.base_event}, action {wanted.action}")
        if any(vcpu.has_run for vcpu in self._vm.vcpus):
            raise KernelError(errno.EBUSY, "a vCPU has run")
        self.pmu_filters.append((wanted.base_event, wanted.nevents, wanted.action))

    def _init_pmu(self) -> None:
        vgic = self._vm.vgic
        if vgic is not None:
            if not vgic.ready:
                raise KernelError(errno.ENODEV, "the VGIC is not initialised")
            if self.pmu_irq is None:
                raise KernelError(errno.ENXIO, "the performance monitors have no interrupt yet")
        self.pmu_created = True
