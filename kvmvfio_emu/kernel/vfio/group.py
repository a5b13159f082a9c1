"""IOMMU groups, /dev/vfio/N: what can be given to userspace only as a whole; models drivers/vfio/vfio.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, cast

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.file import File, ioctl
from kvmvfio_emu.kernel.iommu import IommuGroup
from kvmvfio_emu.kernel.task import Task, UserPtr
from kvmvfio_emu.kernel.vfio.bus import BusDevice
from kvmvfio_emu.kernel.vfio.container import Container, ContainerFile

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.iommufd.file import IommufdFile
    from kvmvfio_emu.kernel.vfio.device import VfioDevice
    from kvmvfio_emu.kernel.vfio.module import Vfio

_PAGE = 4096  #: a device name with its final zero byte must fit a page


class VfioGroup:
    """``struct vfio_group``: exists while a device of it is bound to a VFIO driver, or anybody refers to it.

    ``refs``: one for each VFIO device, the open file, and each external user.
    ``container_users``: one for SET_CONTAINER, one for each open device file and external user; at zero the
    group leaves the container.
    """

    def __init__(self, vfio: Vfio, number: int, members: list[BusDevice]) -> None:
        self.vfio = vfio
        self.number = number
        self.members = members  #: every device of the IOMMU group, whatever driver it has
        self.devices: dict[str, VfioDevice] = {}
        self.refs = 0
        self.external_users = 0
        self.file: GroupFile | None = None
        self.container: Container | None = None
        self.container_users = 0
        self.iommu = IommuGroup(number, [member.hw for member in members], lambda: self.viable)
        self.iommufd: IommufdFile | None = None  #: in the place of a container
        self.node_users = 0  #: devices of it that are bound through their own nodes
        self.kvm: object = None  #: the virtual machine that KVM said uses it

    @property
    def path(self) -> str:
        """Its device node."""
        return f"/dev/vfio/{self.number}"

    @property
    def viable(self) -> bool:
        """Whether no host driver uses any device of the group."""
        return all(member.harmless for member in self.members)

    def get(self) -> None:
        """One more reference."""
        self.refs += 1

    def put(self) -> None:
        """One reference less; with the last the group and its node go."""
        assert self.refs > 0, f"{self} put once too often"
        self.refs -= 1
        if not self.refs:
            self.vfio.forget_group(self)

    def open(self) -> GroupFile:
        """Open the node. EBUSY while it is open, while devices keep it in its container, or are bound without it."""
        if self.node_users:
            raise KernelError(errno.EBUSY, f"{self.node_users} devices of {self.path} are bound to an iommufd")
        if self.file is not None:
            raise KernelError(errno.EBUSY, f"{self.path} is open")
        if self.container is not None:
            raise KernelError(errno.EBUSY, f"{self.path} is still in the container of an earlier opener")
        self.file = GroupFile(self)
        self.get()
        return self.file

    def block(self) -> None:
        """A device is to be used without the group, which cannot be opened then. EBUSY. vfio_device_block_group."""
        if self.file is not None or self.container is not None:
            raise KernelError(errno.EBUSY, f"{self.path} is open")
        self.node_users += 1

    def unblock(self) -> None:
        """Such a device is given back."""
        assert self.node_users > 0, f"{self}: unblocked once too often"
        self.node_users -= 1

    # -- the container -----------------------------------------------------------------------------

    def enter(self, container: Container) -> None:
        """Join ``container``; the caller has seen that there is none yet."""
        container.attach(self)
        self.container = container
        self.container_users += 1

    def leave_user(self) -> None:
        """One container user less; the last leaves. Models vfio_group_try_dissolve_container."""
        if self.container_users:
            self.container_users -= 1
            if not self.container_users:
                self._leave()

    def unset_container(self) -> None:
        """Leave on request. EINVAL without a container; EBUSY while devices or KVM use it, but never of an iommufd."""
        if self.iommufd is not None:
            self.leave_iommufd()
            return
        if not self.container_users:
            raise KernelError(errno.EINVAL, f"{self.path} is in no container")
        if self.container_users != 1:
            raise KernelError(errno.EBUSY, f"{self.container_users - 1} users besides the group's own file")
        self.container_users = 0
        self._leave()

    def _leave(self) -> None:
        container, self.container = self.container, None
        assert container is not None
        container.detach(self)

    def use_iommufd(self, file: IommufdFile) -> None:
        """An iommufd is its container from now on."""
        from kvmvfio_emu.kernel.iommufd.compat import create_ioas  # here: kernels without iommufd do not load it

        create_ioas(file)
        file.get()
        self.iommufd = file

    def leave_iommufd(self) -> None:
        """An iommufd is no longer its container; devices that are bound to it stay so."""
        iommufd, self.iommufd = self.iommufd, None
        if iommufd is not None:
            iommufd.put()

    @property
    def has_iommu(self) -> bool:
        """Whether it is in a container whose IOMMU driver is chosen, or uses an iommufd."""
        return self.iommufd is not None or (self.container is not None and self.container.iommu is not None)

    # -- devices -----------------------------------------------------------------------------------

    def device(self, name: str) -> VfioDevice:
        """The VFIO device called ``name``. ENODEV."""
        found = self.devices.get(name)
        if found is None:
            raise KernelError(errno.ENODEV, f"{self.path} has no device {name!r} with a VFIO driver")
        return found

    def device_fd(self, name: str) -> int:
        """A new descriptor of device ``name``. EINVAL, ENODEV, EMFILE, and the driver's own errors."""
        if self.vfio.host.profile.device_name_first:
            self.device(name)
        if not self.has_iommu:
            raise KernelError(errno.EINVAL, f"{self.path} has no container, or that has no IOMMU set")
        if self.iommufd is None and not self.viable:  # else it is judged when the device is bound
            raise KernelError(errno.EINVAL, f"{self.path} is not viable: a host driver uses one of its devices")
        return self.vfio.host.current.install(self.device(name).open())

    def __repr__(self) -> str:
        return f"<VfioGroup {self.number} refs {self.refs} container users {self.container_users}>"


class GroupFile(File):
    """An open /dev/vfio/N; there is one at a time."""

    kind = "group"

    def __init__(self, group: VfioGroup) -> None:
        super().__init__(group.vfio.host)
        self.group = group
        self.link = group.path
        self.detail = str(group.number)

    @ioctl(uapi.VFIO_GROUP_GET_STATUS, "struct vfio_group_status", argsz=True, out=True)
    def get_status(self, status: Any) -> int:
        """Whether the group is viable and in a container. EINVAL (argsz)."""
        status.flags = 0
        if self.group.viable or self.group.iommufd is not None:
            status.flags |= uapi.VFIO_GROUP_FLAGS_VIABLE
        if self.group.container is not None or self.group.iommufd is not None:
            status.flags |= uapi.VFIO_GROUP_FLAGS_CONTAINER_SET
        return 0

    @ioctl(uapi.VFIO_GROUP_SET_CONTAINER, "int32_t")
    def set_container(self, pointer: Any) -> int:
        """Join the container behind the descriptor at ``pointer``. EINVAL, EBADF, and what the IOMMU says."""
        fd, group, profile = int(pointer[0]), self.group, self.host.profile
        if not profile.set_container_fd_first and (fd < 0 or group.container_users):
            raise KernelError(errno.EINVAL, f"{fd} is no descriptor, or {group.path} has a container already")
        file = self.host.current.fdget(fd)
        if group.container_users or group.iommufd is not None:
            raise KernelError(errno.EINVAL, f"{group.path} is in a container already")
        if file is not None and file.kind == "iommufd":
            group.use_iommufd(cast("IommufdFile", file))
            return 0
        if not isinstance(file, ContainerFile):
            raise KernelError(getattr(errno, profile.not_container_errno), f"descriptor {fd} is no VFIO container")
        group.enter(file.container)
        return 0

    @ioctl(uapi.VFIO_GROUP_UNSET_CONTAINER)
    def unset_container(self, _arg: UserPtr) -> int:
        """Leave the container. EINVAL, EBUSY."""
        self.group.unset_container()
        return 0

    @ioctl(uapi.VFIO_GROUP_GET_DEVICE_FD)
    def get_device_fd(self, arg: UserPtr) -> int:
        """A descriptor for the device whose name is the string at ``arg``. EFAULT, EINVAL, ENODEV, EMFILE."""
        return self.group.device_fd(_user_string(self.host.current, arg))

    def release(self) -> None:
        """The last close: the group leaves its container unless devices or KVM still use that."""
        self.group.file = None
        self.group.leave_iommufd()
        self.group.leave_user()
        self.group.put()


def _user_string(task: Task, arg: UserPtr) -> str:
    """The string at ``arg``, read no further than its pages. EFAULT, EINVAL (too long). Models strndup_user."""
    if isinstance(arg, int):
        first = _PAGE - arg % _PAGE
        raw = task.copy_from_user(arg, first)
        if 0 not in raw and first < _PAGE:
            raw += task.copy_from_user(arg, _PAGE - first, first)
    else:
        raw = task.copy_from_user(arg, max(len(arg), 1024))[:_PAGE]  # a buffer object ends in zeroes
    end = raw.find(0)
    if end < 0:
        raise KernelError(errno.EINVAL, f"the string has no end within {_PAGE} bytes")
    return raw[:end].decode("utf-8", "surrogateescape")
