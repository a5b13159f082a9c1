"""The x86 part of a virtual machine: what can be asked of it without running a guest (arch/x86/kvm/x86.c, irq.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Literal

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.arch.base import Arch
from kvmvfio_emu.kernel.kvm.arch.x86_irqchip import IOAPIC_PINS, Irqchip
from kvmvfio_emu.kernel.kvm.arch.x86_lapic import Lapic, Lapics
from kvmvfio_emu.kernel.kvm.routing import MAX_ROUTES, Message, Pin, Target

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.module import Kvm
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vm import Vm

_PHYS_BITS = 52
_PIC_PINS = 8
_IOAPIC = 2
_IDS_32, _NO_QUIRK = 1 << 0, 1 << 1  #: of KVM_CAP_X2APIC_API
#: Of KVM_CAP_X2APIC_API, too; younger than the project's headers.
_ENABLE_SUPPRESS_EOI_BROADCAST, _DISABLE_SUPPRESS_EOI_BROADCAST = 1 << 2, 1 << 3
_ANY = (1 << 64) - 1
#: What KVM_ENABLE_CAP takes besides what all architectures have -> the bits of its argument; None: those of the answer
#: to KVM_CHECK_EXTENSION.
_SWITCHES = {
    "KVM_CAP_DISABLE_QUIRKS": _ANY,
    "KVM_CAP_X86_DISABLE_EXITS": None,
    "KVM_CAP_MSR_PLATFORM_INFO": _ANY,
    "KVM_CAP_EXCEPTION_PAYLOAD": _ANY,
    "KVM_CAP_X86_USER_SPACE_MSR": 0b111,
    "KVM_CAP_X86_BUS_LOCK_EXIT": 0b11,
    "KVM_CAP_EXIT_HYPERCALL": None,
    "KVM_CAP_EXIT_ON_EMULATION_FAILURE": 1,
    "KVM_CAP_DISABLE_QUIRKS2": None,
    "KVM_CAP_X86_TRIPLE_FAULT_EVENT": _ANY,
    "KVM_CAP_VM_DISABLE_NX_HUGE_PAGES": 0,
}
_BEFORE_VCPUS = ("KVM_CAP_X86_DISABLE_EXITS", "KVM_CAP_VM_DISABLE_NX_HUGE_PAGES")
_OFF_AND_EXIT = 0b11  #: of KVM_CAP_X86_BUS_LOCK_EXIT, not both
#: A local APIC's timer counts so many bus cycles at most (its initial count, and its divider).
_MOST_CYCLES = ((1 << 32) - 1) * 128
_WITHOUT_APIC = (uapi.KVM_MP_STATE_RUNNABLE,)
_WITH_APIC = (
    *_WITHOUT_APIC,
    uapi.KVM_MP_STATE_UNINITIALIZED,
    uapi.KVM_MP_STATE_INIT_RECEIVED,
    uapi.KVM_MP_STATE_HALTED,
    uapi.KVM_MP_STATE_SIPI_RECEIVED,
    uapi.KVM_MP_STATE_AP_RESET_HOLD,
)


class X86Arch(Arch):
    """PIC, I/O APIC and local APICs in the kernel ("all"), only local APICs ("split"), or none."""

    unknown_errno = errno.ENOTTY
    chips = (_PIC_PINS, _PIC_PINS, IOAPIC_PINS)
    beyond_errno = errno.EINVAL
    vcpus_start_ready = True
    own_capabilities = frozenset({uapi.KVM_CAP_X2APIC_API})

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.mode: Literal["", "all", "split"] = ""
        self.irqchip = Irqchip()
        self.lapics = Lapics(smm=bool(self.capability(vm.kvm, uapi.KVM_CAP_X86_SMM, vm)))
        self._ids = 0  #: vCPU ids are below it, once that has been said or a vCPU was asked for (kvm_arch.max_vcpu_ids)

    @classmethod
    def phys_bits(cls, kvm: Kvm, machine_type: int) -> int:
        """EINVAL for a type that KVM_CAP_VM_TYPES has no bit for."""
        types = kvm.capabilities.get(uapi.KVM_CAP_VM_TYPES, 1)
        if machine_type >= 32 or not types >> machine_type & 1:
            raise KernelError(errno.EINVAL, f"no machine type {machine_type:#x}")
        return _PHYS_BITS

    @classmethod
    def capability(cls, kvm: Kvm, number: int, vm: Vm | None) -> int:
        """X2APIC_API has one bit less on a virtual machine whose I/O APIC is not userspace's."""
        answer = super().capability(kvm, number, vm)
        if number == uapi.KVM_CAP_X2APIC_API and vm is not None and not vm.arch.is_split:
            answer &= ~_ENABLE_SUPPRESS_EOI_BROADCAST
        return answer

    def check_new_vcpu(self, number: int) -> None:
        """EINVAL beyond the highest id, which KVM_CAP_MAX_VCPU_ID can lower, or no more vCPUs."""
        most, highest = self.vm.kvm.max_vcpus, self._highest
        if number >= highest or len(self.vm.vcpus) >= most:
            raise KernelError(errno.EINVAL, f"vCPU id {number}: below {highest}, and there can be {most}")
        self._ids = self._ids or highest
        if number >= self._ids:
            raise KernelError(errno.EINVAL, f"vCPU id {number} is not below {self._ids}, as was said")
        if self.mode:
            self.lapics.recalculate()

    @property
    def _highest(self) -> int:
        return self.capability(self.vm.kvm, uapi.KVM_CAP_MAX_VCPU_ID, None)

    def set_mp_state(self, vcpu: Vcpu, state: int) -> None:
        """Only RUNNABLE without an in-kernel local APIC."""
        if state not in (_WITH_APIC if self.mode else _WITHOUT_APIC):
            raise KernelError(errno.EINVAL, f"MP state {state}, with interrupt controllers {self.mode or 'none'!r}")
        if self.mode:
            self.lapics.of[vcpu].set_mp_state(state)

    def mp_state(self, vcpu: Vcpu) -> int:
        """After the local APIC's INIT and SIPI were taken."""
        return self.lapics.mp_state(vcpu) if self.mode else vcpu.mp_state

    def vcpu_created(self, vcpu: Vcpu) -> None:
        """It gets a local APIC; with one, all but the first wait to be started."""
        if self.mode:
            self.lapics.of[vcpu] = Lapic(vcpu)

    # -- interrupts -------------------------------------------------------------------------------------------

    @property
    def has_irqchip(self) -> bool:
        """Also with local APICs only."""
        return bool(self.mode)

    @property
    def is_split(self) -> bool:
        """Whether only local APICs are in the kernel; models irqchip_split."""
        return self.mode == "split"

    @property
    def can_route(self) -> bool:
        """Only with an in-kernel interrupt controller."""
        return bool(self.mode)

    def create_irqchip(self) -> None:
        """PIC, I/O APIC, and the table that leads gsi 0 to 15 to both. EEXIST, EINVAL there are vCPUs."""
        self._check_fresh(errno.EINVAL)
        self.mode = "all"
        routes: list[tuple[int, Target]] = [(pin, Pin(_IOAPIC, pin)) for pin in range(IOAPIC_PINS)]
        routes += [(pin, Pin(pin // _PIC_PINS, pin % _PIC_PINS)) for pin in range(2 * _PIC_PINS)]
        self.vm.routing.install(routes)

    def _check_fresh(self, with_vcpus: int) -> None:
        if self.mode:
            raise KernelError(errno.EEXIST, "the virtual machine has interrupt controllers")
        if self.vm.vcpus:
            raise KernelError(with_vcpus, "the virtual machine has vCPUs, without local APICs")

    def check_irqfd(self, resample: bool) -> None:
        """EINVAL without an interrupt controller; a resampling one needs that with the EOIs, the I/O APIC."""
        if not self.mode or (resample and self.mode != "all"):
            raise KernelError(errno.EINVAL, f"no irqfd with interrupt controllers {self.mode or 'none'!r}")

    def irq_line(self, level: Any) -> None:
        """ENXIO without an interrupt controller; else the status says what became of it."""
        if not self.mode:
            raise KernelError(errno.ENXIO, "the virtual machine has no in-kernel interrupt controller")
        level.status = self.vm.set_irq(level.irq, bool(level.level))

    def drive(self, target: Target, level: bool) -> int:
        """PIC, I/O APIC; a message only when its line rises."""
        if isinstance(target, Message):
            return self.lapics.deliver(target) if level else -1
        if target.chip == _IOAPIC:
            return self.irqchip.ioapic.set(target.pin, level)
        return self.irqchip.pics.set(target.chip, target.pin, level)

    def send_message(self, message: Message) -> int:
        """EPERM when there is nobody to take it."""
        result = self.lapics.deliver(message)
        if result < 0:
            raise KernelError(errno.EPERM, "no local APIC takes the message")
        return result

    # -- capabilities -----------------------------------------------------------------------------------------

    def enable_capability(self, cap: Any) -> None:
        """EINVAL flags, unknown, bits that the capability has not, too late; split: EEXIST where `create_irqchip`
        fails, ENXIO no local APICs in the kernel."""
        argument = int(cap.args[0])
        if cap.flags:
            raise KernelError(errno.EINVAL, f"flags {cap.flags:#x} of KVM_ENABLE_CAP")
        special = _SPECIAL.get(cap.cap)
        if special is not None:
            special(self, argument)
            return
        name = next((name for name in _SWITCHES if getattr(uapi, name) == cap.cap), None)
        if name is None:
            raise KernelError(errno.EINVAL, f"capability {cap.cap} cannot be enabled")
        bits = _SWITCHES[name]
        bits = self.capability(self.vm.kvm, cap.cap, None) if bits is None else bits
        wrong = cap.cap == uapi.KVM_CAP_X86_BUS_LOCK_EXIT and argument == _OFF_AND_EXIT
        if argument & ~bits or wrong:
            raise KernelError(errno.EINVAL, f"{name} cannot be enabled with {argument:#x}")
        if name in _BEFORE_VCPUS and self.vm.vcpus:
            raise KernelError(errno.EINVAL, f"{name}: there are vCPUs")

    def _split(self, argument: int) -> None:
        if argument > MAX_ROUTES:
            raise KernelError(errno.EINVAL, f"{argument} pins of a userspace I/O APIC")
        self._check_fresh(errno.EEXIST)
        self.mode = "split"
        self.vm.routing.chips = ()  # gsis lead to messages only
        self.vm.routing.install(())

    def _limit_ids(self, ids: int) -> None:
        if ids > self._highest or self._ids not in (0, ids):
            raise KernelError(errno.EINVAL, f"the highest vCPU id cannot be set to {ids}")
        self._ids = ids

    def _x2apic(self, argument: int) -> None:
        both = _ENABLE_SUPPRESS_EOI_BROADCAST | _DISABLE_SUPPRESS_EOI_BROADCAST
        bits = self.capability(self.vm.kvm, uapi.KVM_CAP_X2APIC_API, self.vm)
        if argument & ~bits or argument & both == both:
            raise KernelError(errno.EINVAL, f"x2APIC options {argument:#x} of {bits:#x}, not both of {both:#x}")
        self.lapics.ids_32 |= bool(argument & _IDS_32)
        self.lapics.no_quirk |= bool(argument & _NO_QUIRK)

    def _bus_cycle(self, nanoseconds: int) -> None:
        if not nanoseconds or _MOST_CYCLES * nanoseconds > _ANY:
            raise KernelError(errno.EINVAL, f"a local APIC's bus cycle of {nanoseconds} ns")
        if not self.mode:
            raise KernelError(errno.ENXIO, "the virtual machine has no local APICs in the kernel")
        if self.vm.vcpus:
            raise KernelError(errno.EINVAL, "there are vCPUs, whose local APICs have a bus cycle")


_SPECIAL = {
    uapi.KVM_CAP_SPLIT_IRQCHIP: X86Arch._split,
    uapi.KVM_CAP_MAX_VCPU_ID: X86Arch._limit_ids,
    uapi.KVM_CAP_X2APIC_API: X86Arch._x2apic,
    uapi.KVM_CAP_X86_APIC_BUS_CYCLES_NS: X86Arch._bus_cycle,
}
