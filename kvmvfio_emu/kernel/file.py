"""Open files and their ioctls; models ``struct file`` (fs/file_table.c) and fs/ioctl.c.

An ioctl is declared once, on its handler::

    @ioctl(uapi.KVM_IRQ_LINE, "struct kvm_irq_level")
    def irq_line(self, level): ...

Dispatch, copy-in, copy-out, the listing and the decoders all derive from that declaration.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import close  # bound here: not what `Kernel.installed` may put in its place
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from kvmvfio_emu import uapi
from kvmvfio_emu.kernel.calltrace import watched_ioctl
from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.sized import copy_struct_from_user
from kvmvfio_emu.kernel.task import UserPtr

if TYPE_CHECKING:
    from kvmvfio_emu.kernel.host import Host

_F = TypeVar("_F", bound=Callable[..., Any])
_Entry = Callable[[Any, Any], Any]
_IOC_READ = 2
_DIRECTION_SHIFT = 30
#: The requests whose argument is a number, of all kinds of files; no kind takes a pointer for one of them.
VALUE_REQUESTS: set[int] = set()
#: The `File.owner` that no process is.
NOBODY = object()


@dataclass(frozen=True, slots=True)
class IoctlDecl:
    """What is known of one ioctl of one kind of file."""

    number: int
    handler: str
    struct: str | None  #: C name of the argument, None when the argument is a plain value
    minsz: int  #: bytes copied in; below sizeof(struct) for VFIO's growing structs
    argsz: bool  #: the struct starts with ``argsz``, checked against ``minsz`` (EINVAL)
    sized: bool  #: the struct starts with its size; copied as `kernel.sized` says
    out: bool  #: the struct is copied back on success
    tail: bool  #: the handler also gets the user pointer, for what follows the struct
    value: bool  #: the argument is a number, never a pointer
    when: str  #: which kernels have it, a condition on the profile
    absent: int | None  #: errno of the stub that the others have; None: to them the number is unknown


def ioctl(
    number: int,
    struct: str | None = None,
    *,
    minsz: int | None = None,
    argsz: bool = False,
    sized: bool = False,
    out: bool | None = None,
    tail: bool = False,
    value: bool = False,
    when: str = "",
    absent: int | None = None,
) -> Callable[[_F], _F]:
    """Declare the decorated method as the handler of request ``number``.

    Without ``struct`` the handler gets the raw argument, which is a pointer unless ``value`` says that it is a number.
    With it the argument is a pointer: the struct is copied in once (EFAULT) and handed over as a cffi pointer; ``out``
    (default: whether the number says ``_IOR``) copies it back. ``argsz`` and ``minsz`` are VFIO's convention for
    structs that grow; ``sized`` is iommufd's.

    ``when`` says which kernels have this ioctl (`Profile.offers`); to the others it is an unknown number, whose
    argument is not looked at, or with ``absent`` one that they know and refuse with that errno.
    """
    size = uapi.sizeof(struct) if struct else 0
    declared = IoctlDecl(
        number,
        "",
        struct,
        size if minsz is None else minsz,
        argsz,
        sized,
        bool((number >> _DIRECTION_SHIFT) & _IOC_READ) if out is None else out,
        tail,
        value,
        when,
        absent,
    )

    def mark(handler: _F) -> _F:
        handler.__ioctl__ = declared  # type: ignore[attr-defined]
        return handler

    return mark


def _compile(handler: Callable[..., Any], decl: IoctlDecl) -> _Entry:
    """The dispatch entry ``(file, arg) -> result`` of a declaration: all decisions taken once, here."""
    if not decl.when:
        return _compile_call(handler, decl)
    number, when, absent = decl.number, decl.when, decl.absent
    if absent is not None:

        def or_stub(file: File, *arguments: Any) -> Any:
            if not file.host.profile.offers(when):
                raise KernelError(absent, f"{uapi.ioctl_name(number, file.kind)} is not built in")
            return handler(file, *arguments)

        return _compile_call(or_stub, decl)
    entry = _compile_call(handler, decl)

    def or_unknown(file: File, arg: UserPtr) -> Any:
        return entry(file, arg) if file.host.profile.offers(when) else file.unknown_ioctl(number, arg)

    return or_unknown


def _compile_call(handler: Callable[..., Any], decl: IoctlDecl) -> _Entry:
    """The same, of an ioctl that is there: the copies around its handler."""
    if decl.struct is None:
        return handler
    pointer_type = uapi.ffi.typeof(decl.struct + " *")
    from_buffer = uapi.ffi.from_buffer
    size, minsz, out, argsz, tail = uapi.sizeof(decl.struct), decl.minsz, decl.out, decl.argsz, decl.tail
    if decl.sized:
        assert tail, "a handler of a sized struct answers by itself"

        def sized_entry(file: File, arg: UserPtr) -> Any:
            raw = copy_struct_from_user(file.host.current, arg, size, minsz)
            return handler(file, from_buffer(pointer_type, raw), arg)

        return sized_entry

    def entry(file: File, arg: UserPtr) -> Any:
        task = file.host.current
        raw = task.copy_from_user(arg, minsz)
        if minsz != size:
            raw.extend(bytes(size - minsz))
        value: Any = from_buffer(pointer_type, raw)
        if argsz and value.argsz < minsz:
            raise KernelError(errno.EINVAL, f"argsz {value.argsz} is below {minsz}")
        result = handler(file, value, arg) if tail else handler(file, value)
        if out:
            task.copy_to_user(arg, memoryview(raw)[:minsz])
        return result

    return entry


class File:
    """One open file description. Subclasses are the kinds of file that KVM and VFIO hand out.

    Lives while descriptors or kernel references hold it (`get`, `put`); `release` runs when the last one goes.
    """

    #: Which kind of file this is, for names and listings: "kvm", "vm", "vcpu", "device", ...
    kind: ClassVar[str] = "file"
    #: Which of several of that kind, for listings: "platform", "pci".
    variant: ClassVar[str] = ""
    #: Which kernels have this kind (`Profile.offers`), for listings: what opens it decides.
    when: ClassVar[str] = ""
    #: What readlink(/proc/self/fd/N) shows on a real kernel.
    link: str = "anon_inode:[file]"
    #: Which of its kind, for people: a number or a device's name; empty where that says nothing.
    detail: str = ""
    #: lseek answers 0 (noop_llseek); else ESPIPE.
    seekable: ClassVar[bool] = False
    #: errno for a request number that this kind does not know.
    unknown_errno: ClassVar[int] = errno.ENOTTY
    #: Mappings show device registers, not memory (VM_PFNMAP): guests reach them by `mapped_read` and `mapped_write`.
    is_device_memory: ClassVar[bool] = False
    #: The only address space (UserMemory) that may use ioctls here; None: any, `NOBODY`: none.
    owner: object | None = None
    #: Bytes that can be mapped (0: mmap is refused).
    map_size: int = 0

    ioctls: ClassVar[dict[int, IoctlDecl]] = {}
    _entries: ClassVar[dict[int, _Entry]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.ioctls, cls._entries = dict(cls.ioctls), dict(cls._entries)
        for name, member in vars(cls).items():
            marked: IoctlDecl | None = getattr(member, "__ioctl__", None)
            if marked is not None:
                decl = replace(marked, handler=name)
                cls.ioctls[decl.number] = decl
                if decl.value:
                    VALUE_REQUESTS.add(decl.number)
                cls._entries[decl.number] = _compile(member, decl)

    def __init__(self, host: Host) -> None:
        self.host = host
        self._count = 1
        host.files[id(self)] = self

    @property
    def references(self) -> int:
        """How many hold this file: one for all of its descriptors together, one for each holder in the kernel."""
        return self._count

    # -- references ----------------------------------------------------------------------------------------

    def get(self) -> None:
        """One more holder; models get_file."""
        assert self._count > 0, f"{self!r} used after its release"
        self._count += 1

    def put(self) -> None:
        """One holder less; the last one releases. Models fput."""
        assert self._count > 0, f"{self!r} put once too often"
        self._count -= 1
        if not self._count:
            del self.host.files[id(self)]
            self.host.event("release", file=self.kind, detail=self.detail)
            self.release()

    # -- file operations; what a kind does not offer answers as Linux does --------------------------------

    def ioctl(self, request: int, arg: UserPtr) -> Any:
        """Dispatch ``request``. Returns the result (int >= 0), or a call that goes on (KVM_RUN)."""
        if self.host.trace.calls:
            return watched_ioctl(self, request, arg)
        return self.dispatch(request, arg)

    def dispatch(self, request: int, arg: UserPtr) -> Any:
        """As `ioctl`, unseen by the trace and by the faults."""
        if self.owner is not None and self.host.current.mm is not self.owner:
            why = "nobody any more" if self.owner is NOBODY else "only the process that created it"
            raise KernelError(errno.EIO, f"this {self.kind} file serves {why}")
        entry = self._entries.get(request)
        if entry is None:
            return self.unknown_ioctl(request, arg)
        return entry(self, arg)

    def unknown_ioctl(self, request: int, arg: UserPtr) -> Any:
        """Answer a request number that has no handler."""
        raise KernelError(self.unknown_errno, f"a {self.kind} file knows no ioctl {request:#010x}")

    def read(self, size: int, offset: int | None) -> bytes:
        """At most ``size`` bytes; ``offset`` None means the file position."""
        raise KernelError(errno.EINVAL, f"a {self.kind} file has no read")

    def write(self, data: bytes, offset: int | None) -> int:
        """Bytes taken of ``data``."""
        raise KernelError(errno.EINVAL, f"a {self.kind} file has no write")

    def mmap(self, offset: int, length: int, *, write: bool, shared: bool) -> None:
        """Judge a mapping (page aligned, ``length`` > 0). The pages themselves are the backing file's."""
        raise KernelError(errno.ENODEV, f"a {self.kind} file has no mmap")

    def mapped_read(self, offset: int, size: int) -> int:
        """A load through a mapping of this file, by a guest or by a program: only asked where `is_device_memory`."""
        raise NotImplementedError

    def mapped_write(self, offset: int, size: int, value: int) -> None:
        """A store through a mapping of this file."""
        raise NotImplementedError

    @property
    def mapped_memory(self) -> int:
        """Of `is_device_memory` files: the descriptor of the memory that mappings show, if they show any."""
        raise NotImplementedError

    def trap_mappings(self) -> None:
        """Of `is_device_memory` files: the door brings each access through a mapping to `mapped_read` and its kin."""
        raise NotImplementedError

    @property
    def traps_mappings(self) -> bool:
        """Whether it does."""
        return False

    def show_mappings(self) -> None:
        """The door cannot do that (any more): mappings are to show a copy of the registers."""
        raise NotImplementedError

    def attach_backing(self, fd: int) -> None:
        """The shared memory that mappings show, `map_size` bytes: a memfd of the door's, owned by the file now.

        A file that has any keeps it open until it is released.
        """
        close(fd)

    def abandon(self) -> None:
        """The kernel is powered off: give real descriptors back, nothing else."""

    def release(self) -> None:
        """The last reference is gone."""
