"""What an architecture decides about a virtual machine: the interface of `ArmArch` and `X86Arch`."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from kvmvfio_emu.kernel.errors import KernelError

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.module import Kvm
    from kvmvfio_emu.kernel.kvm.routing import Message, Target
    from kvmvfio_emu.kernel.kvm.vcpu import Vcpu
    from kvmvfio_emu.kernel.kvm.vm import Vm


class Arch(ABC):
    """The architecture's part of one virtual machine; the class methods are its part of the module."""

    #: errno for an ioctl of a virtual machine's descriptor that is unknown.
    unknown_errno: ClassVar[int] = errno.EINVAL
    #: Pins of each in-kernel interrupt controller that a gsi can lead to.
    chips: ClassVar[tuple[int, ...]]
    #: errno for memory beyond the guest physical space.
    beyond_errno: ClassVar[int] = errno.EFAULT
    #: Whether vCPUs can run as they are created, without KVM_ARM_VCPU_INIT.
    vcpus_start_ready: ClassVar[bool] = False

    def __init__(self, vm: Vm) -> None:
        self.vm = vm

    # -- the module -------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def phys_bits(cls, kvm: Kvm, machine_type: int) -> int:
        """How many bits guest physical addresses have, for the argument of KVM_CREATE_VM. EINVAL."""

    #: Capabilities that `capability` looks at; all others are the profile's to answer.
    own_capabilities: ClassVar[frozenset[int]] = frozenset()

    @classmethod
    def capability(cls, kvm: Kvm, number: int, vm: Vm | None) -> int:
        """KVM_CHECK_EXTENSION on /dev/kvm (``vm`` None) or on a virtual machine."""
        return kvm.capabilities.get(number, 0)

    # -- vCPUs ------------------------------------------------------------------------------------------------

    @abstractmethod
    def check_new_vcpu(self, number: int) -> None:
        """Judge the number of a new vCPU; models kvm_arch_vcpu_precreate."""

    @abstractmethod
    def set_mp_state(self, vcpu: Vcpu, state: int) -> None:
        """KVM_SET_MP_STATE. EINVAL a state that this architecture has not."""

    def mp_state(self, vcpu: Vcpu) -> int:
        """KVM_GET_MP_STATE."""
        return vcpu.mp_state

    def vcpu_created(self, vcpu: Vcpu) -> None:  # noqa: B027 - most have nothing to do
        """A vCPU has its descriptor; models kvm_arch_vcpu_postcreate."""

    # -- interrupts -------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def has_irqchip(self) -> bool:
        """Whether an interrupt controller of the virtual machine is in the kernel; models irqchip_in_kernel."""

    @property
    def is_split(self) -> bool:
        """Whether its CPUs' half of it is in the kernel, and no more; models irqchip_split."""
        return False

    @property
    @abstractmethod
    def can_route(self) -> bool:
        """Whether there can be a routing table; models kvm_arch_can_set_irq_routing."""

    @abstractmethod
    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP."""

    @abstractmethod
    def check_irqfd(self, resample: bool) -> None:
        """Judge whether there can be an irqfd now, before its descriptors are looked at."""

    @abstractmethod
    def irq_line(self, level: Any) -> None:
        """KVM_IRQ_LINE and KVM_IRQ_LINE_STATUS, which may set ``level.status``."""

    @abstractmethod
    def drive(self, target: Target, level: bool) -> int:
        """Drive what a gsi leads to. Below zero, or an error: lost; 0: merged with one that waits; else delivered."""

    def raise_now(self, target: Target, gsi: int) -> bool:
        """Raise what ``gsi`` leads to if that can be done without waiting; models kvm_arch_set_irq_inatomic."""
        return False

    @abstractmethod
    def send_message(self, message: Message) -> int:
        """KVM_SIGNAL_MSI, which has seen that there is an interrupt controller."""

    # -- the rest ---------------------------------------------------------------------------------------------

    def enable_capability(self, cap: Any) -> None:
        """KVM_ENABLE_CAP with what is not common to all architectures. EINVAL."""
        raise KernelError(errno.EINVAL, f"capability {cap.cap} cannot be enabled")
