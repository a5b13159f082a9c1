"""A program that knows nothing of emulated kernels: a small VMM, with the standard library's calls only."""

import ctypes
import fcntl
import mmap
import os
import struct

KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
KVM_CREATE_VCPU, KVM_RUN, KVM_CREATE_DEVICE = 0xAE41, 0xAE80, 0xC00CAEE0
KVM_ARM_VCPU_INIT, KVM_ARM_PREFERRED_TARGET, KVM_IRQFD = 0x4020AEAE, 0x8020AEAF, 0x4020AE76
VFIO_GET_API_VERSION, VFIO_SET_IOMMU, VFIO_GROUP_SET_CONTAINER = 0x3B64, 0x3B66, 0x3B68
VFIO_GROUP_GET_DEVICE_FD, VFIO_DEVICE_GET_REGION_INFO = 0x3B6A, 0x3B6C
KVM_DEV_TYPE_VFIO, VFIO_TYPE1V2_IOMMU = 4, 3
EXIT_REASON = 8


def run(group: str, device: str, scratch: str) -> dict[str, object]:
    """Open, create, map, run and close everything; what was seen on the way."""
    seen: dict[str, object] = {}
    with open("/dev/kvm", "r+b", buffering=0) as kvm:
        seen["version"] = fcntl.ioctl(kvm, KVM_GET_API_VERSION)
        vm = fcntl.ioctl(kvm.fileno(), KVM_CREATE_VM, 0)
        page_size = fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE)
    vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    target = fcntl.ioctl(vm, KVM_ARM_PREFERRED_TARGET, bytes(32))
    fcntl.ioctl(vcpu, KVM_ARM_VCPU_INIT, target)
    create = bytearray(struct.pack("III", KVM_DEV_TYPE_VFIO, 0, 0))
    fcntl.ioctl(vm, KVM_CREATE_DEVICE, create)
    control = struct.unpack("III", create)[1]

    page = mmap.mmap(vcpu, page_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    seen["mapping is one"] = isinstance(page, mmap.mmap)
    fcntl.ioctl(vcpu, KVM_RUN)
    seen["exit"] = struct.unpack_from("I", page, EXIT_REASON)[0]

    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    seen["vfio"] = fcntl.ioctl(container, VFIO_GET_API_VERSION)
    group_fd = os.open(group, os.O_RDWR)
    fcntl.ioctl(group_fd, VFIO_GROUP_SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1V2_IOMMU)
    device_fd = fcntl.ioctl(group_fd, VFIO_GROUP_GET_DEVICE_FD, bytearray(device.encode() + b"\0"))
    info = fcntl.ioctl(device_fd, VFIO_DEVICE_GET_REGION_INFO, struct.pack("IIIIQQ", 32, 0, 0, 0, 0, 0))
    offset = struct.unpack("IIIIQQ", info)[5]
    seen["by read"] = os.pread(device_fd, 4, offset)
    with mmap.mmap(device_fd, 4096, offset=offset) as registers:
        seen["by mapping"] = registers[:4]

    trigger = os.eventfd(0)
    fcntl.ioctl(vm, KVM_IRQFD, struct.pack("IIII16x", trigger, 48, 0, 0))
    os.write(trigger, struct.pack("Q", 1))

    try:
        os.open("/dev/vfio/99", os.O_RDWR)
    except FileNotFoundError as error:
        seen["absent"] = error.filename

    file = os.open(scratch, os.O_RDWR | os.O_CREAT)
    os.write(file, b"real")
    os.pwrite(file, b"R", 0)
    seen["real"] = os.pread(file, 4, 0)
    size = (ctypes.c_ushort * 4)()
    terminal = os.openpty()
    fcntl.ioctl(terminal[0], 0x5414, struct.pack("4H", 3, 4, 0, 0))
    fcntl.ioctl(terminal[1], 0x5413, size)
    seen["terminal"] = list(size)

    page.close()
    for fd in (trigger, control, device_fd, group_fd, container, vcpu, vm, file, *terminal):
        os.close(fd)
    return seen
