"""KVM as the host kernel loads it: its device node, its virtual machines, its device types (virt/kvm/kvm_main.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.file import File
from kvmvfio_emu.kernel.host import Host
from kvmvfio_emu.kernel.kvm.arch import Arch, arch_of
from kvmvfio_emu.kernel.kvm.device import KvmDevice
from kvmvfio_emu.kernel.kvm.system import KvmFile
from kvmvfio_emu.kernel.kvm.vfio import KvmVfio
from kvmvfio_emu.kernel.kvm.vgic.family import vgic_family
from kvmvfio_emu.kernel.kvm.vgic.modern.device_v2 import VgicV2Device
from kvmvfio_emu.kernel.kvm.vgic.modern.device_v3 import VgicV3Device
from kvmvfio_emu.kernel.kvm.vgic.modern.its_device import ItsDevice
from kvmvfio_emu.kernel.kvm.vgic.v2 import VgicV2Device as BitmapVgicV2Device

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.kvm.vm import Vm

#: Every type of device that some kernel has on some machine.
DEVICE_TYPES: tuple[type[KvmDevice], ...] = (KvmVfio, BitmapVgicV2Device, VgicV2Device, VgicV3Device, ItsDevice)


class Kvm:
    """The module. `capabilities` maps capability numbers to answers, resolved once from the profile."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.vms: list[Vm] = []
        self.vgics = vgic_family(host)
        answers = dict(host.profile.capabilities)
        #: The end of vCPU numbers, and how many a virtual machine can have.
        self.vcpu_ids: int = answers.get("KVM_CAP_MAX_VCPUS", 1)
        self.max_vcpus = min(self.vcpu_ids, self.vgics.max_vcpus or self.vcpu_ids)
        for name in ("KVM_CAP_MAX_VCPUS", "KVM_CAP_MAX_VCPU_ID"):
            if name in answers and self.vgics.max_vcpus:
                answers[name] = self.max_vcpus
        answers["KVM_CAP_NR_VCPUS"] = host.machine.board.cpus
        self.capabilities = {getattr(uapi, name): value for name, value in answers.items() if value}
        #: The architecture's part, of which each virtual machine gets one.
        self.arch: type[Arch] = arch_of(host.profile.arch)
        gic = host.machine.board.gic_version
        self.device_types: dict[int, type[KvmDevice]] = {
            getattr(uapi, kind.type_name): kind
            for kind in DEVICE_TYPES
            if kind.host_gic in (0, gic) and host.profile.offers(kind.when)
        }
        host.nodes["/dev/kvm"] = self.open
        host.modules["kvm"] = self

    def open(self) -> File:
        """A new open file of /dev/kvm."""
        return KvmFile(self)

    def check(self) -> None:
        """Every virtual machine's invariants."""
        for vm in self.vms:
            vm.check()
