"""The ARM part of a virtual machine (arch/arm64/kvm/arm.c): its physical space, its VGIC as irqchip, its firmware."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.kvm.arch.base import Arch
from kvmvfio_emu.kernel.kvm.firmware import Firmware
from kvmvfio_emu.kernel.kvm.irqline import drive_line
from kvmvfio_emu.kernel.kvm.memory import PHYS_BITS
from kvmvfio_emu.kernel.kvm.routing import Message, Target
from kvmvfio_emu.kernel.kvm.vgic.modern.msi import send, send_cached

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.module import Kvm
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vm import Vm

_IPA_SIZE_MASK = 0xFF
_MIN_IPA_BITS = 32
#: Shared peripheral interrupts end at 1020; pins count from the first of them.
_PINS = 1020 - 32
#: Interrupts of a vCPU's timers at reset: virtual, physical, and those of a nested hypervisor.
TIMER_IRQS = (27, 30, 28, 26)


class ArmArch(Arch):
    """32-bit and 64-bit ARM."""

    chips = (_PINS,)
    own_capabilities = frozenset({uapi.KVM_CAP_MSI_DEVID})

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.firmware = Firmware(vm.host.profile.psci)
        #: KVM_ARM_VCPU_INIT's features, once a vCPU has them; where the profile keeps them by virtual machine.
        self.vcpu_features: int | None = None
        self.is_32bit: bool | None = None
        self.timer_irqs = list(TIMER_IRQS)
        self.counter_offset: int | None = None  #: KVM_ARM_SET_COUNTER_OFFSET: of both counters; None: each its own
        self.created_at: int = vm.host.clock.now  #: nanoseconds; the virtual counter starts here
        self.enabled: set[int] = set()  #: capabilities

    @classmethod
    def phys_bits(cls, kvm: Kvm, machine_type: int) -> int:
        """The type is the size of guest physical addresses, 0 for 40 bits. EINVAL below 32, above the host's, more."""
        most = kvm.capabilities.get(uapi.KVM_CAP_ARM_VM_IPA_SIZE, 0)
        if machine_type and (machine_type & ~_IPA_SIZE_MASK or not _MIN_IPA_BITS <= machine_type <= most):
            raise KernelError(errno.EINVAL, f"machine type {machine_type:#x}: address sizes are 32 to {most}")
        return machine_type or PHYS_BITS

    @classmethod
    def capability(cls, kvm: Kvm, number: int, vm: Vm | None) -> int:
        """Whether messages need a device id, only a virtual machine can say (EINVAL)."""
        answer = super().capability(kvm, number, vm)
        if number == uapi.KVM_CAP_MSI_DEVID and answer:
            if vm is None:
                raise KernelError(errno.EINVAL, "only a virtual machine has messages")
            return int(vm.lpis.possible)
        return answer

    def check_new_vcpu(self, number: int) -> None:
        """EINVAL too high for any machine, or no more vCPUs; EBUSY the VGIC is initialised; EINVAL too high for it."""
        kvm, vgic = self.vm.kvm, self.vm.vgic
        if number >= kvm.vcpu_ids:
            raise KernelError(errno.EINVAL, f"vCPU id {number}: they end at {kvm.vcpu_ids}")
        if self.vm.host.profile.vcpus_counted and len(self.vm.vcpus) >= kvm.max_vcpus:
            raise KernelError(errno.EINVAL, f"there are {kvm.max_vcpus} vCPUs, as many as there can be")
        if vgic is not None and vgic.ready:
            raise KernelError(errno.EBUSY, "the VGIC is initialised for the vCPUs there are")
        if number >= kvm.max_vcpus:
            raise KernelError(errno.EINVAL, f"vCPU id {number}: there can be {kvm.max_vcpus}")

    def set_mp_state(self, vcpu: Vcpu, state: int) -> None:
        """RUNNABLE, STOPPED (until it is made runnable) or SUSPENDED (until an interrupt)."""
        if state not in (uapi.KVM_MP_STATE_RUNNABLE, uapi.KVM_MP_STATE_STOPPED, uapi.KVM_MP_STATE_SUSPENDED):
            raise KernelError(errno.EINVAL, f"a vCPU has no MP state {state}")
        vcpu.mp_state = state
        vcpu.kick()

    # -- interrupts -------------------------------------------------------------------------------------------

    @property
    def has_irqchip(self) -> bool:
        """A VGIC of any version."""
        return self.vm.vgic is not None

    @property
    def can_route(self) -> bool:
        """Also before there is a VGIC, whose initialisation will put the default table in place."""
        return True

    def create_irqchip(self) -> None:
        """A VGICv2 by the older API. ENXIO or ENODEV no hardware for it, EEXIST, EBUSY a vCPU ran."""
        self.vm.kvm.vgics.create_irqchip(self.vm)

    def check_irqfd(self, resample: bool) -> None:
        """EAGAIN before the VGIC is initialised, where the profile says so."""
        vgic = self.vm.vgic
        if self.vm.host.profile.irqfd_needs_init and (vgic is None or not vgic.ready):
            raise KernelError(errno.EAGAIN, "the VGIC is not initialised")

    irq_line = drive_line  # itself, not called by a method: a frame is a good part of this ioctl's cost

    def drive(self, target: Target, level: bool) -> int:
        """An SPI, or a message for the ITS when the line rises. Raises what VGIC and ITS do."""
        if isinstance(target, Message):
            return self.send_message(target) if level else -1
        if self.vm.vgic is None:
            return -1
        if self.vm.host.trace.listening:
            self.vm.host.trace.remember(self.vm.history(target.pin + 32))
        self.vm.vgic.inject(0, target.pin + 32, level)
        return 0

    def raise_now(self, target: Target, gsi: int) -> bool:
        """Once the VGIC is initialised; a message only if where it leads was found before."""
        if isinstance(target, Message):
            return send_cached(self.vm, target)
        if self.vm.vgic is None or not self.vm.vgic.ready:
            return False
        self.vm.set_irq(gsi, True)
        return True

    def send_message(self, message: Message) -> int:
        """1 delivered, 0 the guest's tables lead nowhere. ENODEV without an ITS; else as `msi.send`."""
        return int(send(self.vm, message))

    # -- capabilities -----------------------------------------------------------------------------------------

    def enable_capability(self, cap: Any) -> None:
        """EINVAL flags, or none of those that can be enabled."""
        known = (uapi.KVM_CAP_ARM_NISV_TO_USER, uapi.KVM_CAP_ARM_SYSTEM_SUSPEND)
        if cap.flags or cap.cap not in known or not self.capability(self.vm.kvm, cap.cap, self.vm):
            raise KernelError(errno.EINVAL, f"capability {cap.cap} with flags {cap.flags:#x} cannot be enabled")
        self.enabled.add(cap.cap)
