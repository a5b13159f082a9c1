"""The engine's C library (unicorn 2, unicorn.h) by cffi: its Python interface costs more than a whole guest exit.

The library is the one that the Python package brings. Addresses are bytes; every call that fails raises `EngineError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import unicorn
from cffi import FFI
from unicorn import unicorn_const as uc

from kvmvfio_emu.guest.machine.stage2 import SIZE, Stage2

ffi = FFI()
ffi.cdef("""
    int uc_open(int arch, int mode, void **uc);
    int uc_close(void *uc);
    int uc_ctl(void *uc, int control, ...);
    int uc_emu_start(void *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int uc_emu_stop(void *uc);
    int uc_reg_read(void *uc, int regid, void *value);
    int uc_reg_write(void *uc, int regid, const void *value);
    int uc_mem_map_ptr(void *uc, uint64_t address, size_t size, uint32_t perms, void *ptr);
    int uc_mem_unmap(void *uc, uint64_t address, size_t size);
    int uc_vmem_read(void *uc, uint64_t address, uint32_t prot, void *bytes, size_t size);
    int uc_hook_add(void *uc, size_t *hook, int type, void *callback, void *user, uint64_t begin, uint64_t end, ...);
    const char *uc_strerror(int code);
    size_t uc_context_size(void *uc);
    int uc_context_alloc(void *uc, void **context);
    int uc_context_save(void *uc, void *context);
    int uc_context_free(void *context);
    typedef struct { uint32_t crn, crm, op0, op1, op2; uint64_t val; } cp_reg;
    typedef struct { uint32_t cp, is64, sec, crn, crm, opc1, opc2; uint64_t val; } cp32_reg;
""")

#: What the interrupt hook tells.
UNDEFINED, SVC, PREFETCH_ABORT, DATA_ABORT, BREAKPOINT, HVC, SMC = 1, 2, 3, 4, 7, 11, 13
#: The code of a run that ended by one of them without telling of it.
INVALID_INSTRUCTION = uc.UC_ERR_INSN_INVALID

_ALL_PERMISSIONS = uc.UC_PROT_ALL  #: it is the second stage that forbids
_WRITE_CONTROL = uc.UC_CTL_IO_WRITE << 30
#: The range of a hook that is for every address: one that is empty.
_ALL = (ffi.cast("uint64_t", 1), ffi.cast("uint64_t", 0))


class EngineError(Exception):
    """The engine refused, or is not as it has to be."""


def check(code: int, call: str) -> None:
    """`EngineError` when ``call`` returned one."""
    if code:
        raise EngineError(f"{call}: {reason(code)}")


def reason(code: int) -> str:
    """What the engine says of its error ``code``."""
    text: Any = ffi.string(_lib.uc_strerror(code))
    return str(text.decode())


def _load() -> Any:
    found = sorted(Path(unicorn.__file__).parent.glob("lib/*unicorn*.so*"))
    return ffi.dlopen(str(found[0]) if found else "libunicorn.so.2")


_lib = _load()


class Raised(NamedTuple):
    """An exception, as the engine describes it."""

    esr: int
    fsr: int  #: an abort's fault status in an AArch32 guest
    address: int
    level: int  #: the exception level that it is for


_RAISED = struct.Struct("<IIQI")


class Cpu:
    """One engine, with a hypervisor's second stage of translation around it; an execution state makes it a CPU.

    ``on_exception(number)`` is told of an exception, which ends the run; it may not use the engine.
    """

    ARCHITECTURE: ClassVar[int]  #: UC_ARCH_*
    #: Of HCR or HCR_EL2: the second stage, and that virtual interrupts are taken; what else an execution state needs.
    HYPERVISOR: ClassVar[int] = 1 << 4 | 1 << 3 | 1
    ADDRESSES: ClassVar[int]  #: a virtual address with all bits set
    PC: ClassVar[int]  #: the program counter's number; see `pc`
    STATUS: ClassVar[int]  #: for `read` and `write`: the register that has the mode and the interrupt masks
    COPROCESSOR: ClassVar[int]  #: for system registers, whose struct has the encoding

    def __init__(self, model: int, stage2: Stage2, fault_page: Any, on_exception: Callable[[int], None]) -> None:
        """``model``: UC_CPU_*. ``fault_page``: the engine's struct for reading HPFAR or HPFAR_EL2."""
        self.handle: Any = open_engine(self.ARCHITECTURE)
        self._value, self._word = ffi.new("uint64_t *"), ffi.new("uint32_t *")
        self._control(uc.UC_CTL_CPU_MODEL, ffi.cast("int", model))
        context = ffi.new("void **")
        check(_lib.uc_context_alloc(self.handle, context), "uc_context_alloc")
        self._context: Any = context[0]
        self.saved: Any = ffi.buffer(self._context, _lib.uc_context_size(self.handle))
        """The engine's whole CPU as it was when the last exception was told."""
        self._hooks: list[Any] = []
        self._pc: int | None = 0  #: None: the engine knows
        self._offered = 0
        self._hpfar: Any = fault_page
        self._hook_exceptions(on_exception)
        self._stage2 = stage2
        tables = ffi.cast("uintptr_t", ffi.from_buffer(stage2.memory))
        place = ffi.cast("void *", tables)
        check(_lib.uc_mem_map_ptr(self.handle, stage2.tables, SIZE, _ALL_PERMISSIONS, place), "uc_mem_map_ptr")

    @property
    def hinted(self) -> bool:
        """Whether the last run ended by WFE or YIELD."""
        return False

    @property
    def memory_end(self) -> int:
        """The first guest physical address that the engine cannot have memory at."""
        return self._stage2.tables

    def stop_between(self, place: int) -> None:
        """A stop from outside waits for the end of a translation, and never comes in the middle of an instruction.

        ``place``: `private.Places.no_stop_inside`.
        """
        ffi.buffer(self.handle, place + 1)[place] = b"\1"

    def close(self) -> None:
        """Free it; nothing may be called after."""
        _lib.uc_context_free(self._context)
        close_engine(self.handle)

    # -- running ----------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Execute from `pc` until something stops it. Returns the engine's code."""
        raise NotImplementedError

    def _start(self, begin: int, until: int) -> int:
        self._pc = None
        return int(_lib.uc_emu_start(self.handle, begin, until, 0, 0))

    def offer(self, *, irq: bool, fiq: bool) -> None:
        """Virtual interrupts that wait: the engine takes one by itself as soon as the guest does not mask it."""
        offered = irq << 7 | fiq << 6  # HCR.VI, HCR.VF
        if offered != self._offered:
            self._offered = offered
            self._set_hypervisor(self.HYPERVISOR | offered)

    def _set_hypervisor(self, value: int) -> None:
        raise NotImplementedError

    def exception(self, place: int) -> Raised:
        """The one that ended the last run. ``place``: `private.Places.exception`."""
        return Raised._make(_RAISED.unpack_from(self.saved, place))

    @property
    def fault_page(self) -> int:
        """The guest physical address of the page of the last fault of the second stage."""
        return int(self._hpfar.val) >> 4 << 12

    # -- registers --------------------------------------------------------------------------------------------

    @property
    def pc(self) -> int:
        """Where it stands: what the last run left, or what was set since. The engine is asked once a run."""
        if self._pc is None:
            self._pc = self.read(self.PC)
        return self._pc

    @pc.setter
    def pc(self, value: int) -> None:
        self._pc = value & self.ADDRESSES  # the engine is told at its next run

    def read(self, register: int) -> int:
        """A register of at most 64 bits."""
        self._value[0] = 0
        _lib.uc_reg_read(self.handle, register, self._value)
        return int(self._value[0])

    def write(self, register: int, value: int) -> None:
        """Set one."""
        self._value[0] = value & 0xFFFFFFFFFFFFFFFF
        _lib.uc_reg_write(self.handle, register, self._value)

    def _read_into(self, register: int, place: Any) -> bool:
        """A register of another size, or a system register; False: the engine has it not."""
        return not _lib.uc_reg_read(self.handle, register, place)

    def _write_from(self, register: int, place: Any) -> None:
        write_register(self.handle, register, place)

    # -- memory -----------------------------------------------------------------------------------------------

    def map(self, address: int, size: int, host: int, *, write: bool) -> None:
        """Show ``size`` bytes of our memory at ``host`` to the guest."""
        pointer = ffi.cast("void *", host)
        check(_lib.uc_mem_map_ptr(self.handle, address, size, _ALL_PERMISSIONS, pointer), "uc_mem_map_ptr")
        self._stage2.allow(address, size, write=write)

    def unmap(self, address: int, size: int) -> None:
        """End it."""
        self._stage2.forbid(address, size)
        check(_lib.uc_mem_unmap(self.handle, address, size), "uc_mem_unmap")
        self._control(uc.UC_CTL_TLB_FLUSH)

    def word(self, address: int) -> int | None:
        """The instruction at a virtual address; None: the guest could not read there."""
        failed = _lib.uc_vmem_read(self.handle, address, uc.UC_PROT_EXEC, self._word, 4)
        return None if failed else int(self._word[0])

    def forget_code(self, start: int, end: int) -> None:
        """Translate what lies there anew: somebody else has written it."""
        self._control(uc.UC_CTL_TB_REMOVE_CACHE, ffi.cast("uint64_t", start), ffi.cast("uint64_t", end))

    def forget_all_code(self) -> None:
        """The same for everything."""
        self._control(uc.UC_CTL_TB_FLUSH)

    # -- hooks ------------------------------------------------------------------------------------------------

    def _hook_exceptions(self, tell: Callable[[int], None]) -> None:
        handle, stop, save, context = self.handle, _lib.uc_emu_stop, _lib.uc_context_save, self._context
        read, hpfar, coprocessor = _lib.uc_reg_read, self._hpfar, self.COPROCESSOR

        def raised(_: Any, number: int, __: Any) -> None:
            # Here: at the end of its run the engine translates another address, for nobody.
            save(handle, context)
            if number in (PREFETCH_ABORT, DATA_ABORT):
                read(handle, coprocessor, hpfar)
            tell(number)
            stop(handle)

        self.hook(uc.UC_HOOK_INTR, "void(void *, uint32_t, void *)", raised)

    def hook(self, kind: int, signature: str, function: Callable[..., Any], *more: Any) -> None:
        """Have ``function`` told of UC_HOOK_*; it must not hold this object, which would live as long as its hooks."""
        callback: Any = ffi.callback(signature, function)
        self._hooks.append(callback)
        address, number = ffi.cast("void *", callback), ffi.new("size_t *")
        check(_lib.uc_hook_add(self.handle, number, kind, address, ffi.NULL, *_ALL, *more), "uc_hook_add")

    def _control(self, what: int, *arguments: Any) -> None:
        request = _WRITE_CONTROL | len(arguments) << 26 | what
        check(_lib.uc_ctl(self.handle, ffi.cast("int", request), *arguments), "uc_ctl")


def write_register(handle: Any, register: int, place: Any) -> None:
    """Set a register of an engine from what ``place`` points to."""
    check(_lib.uc_reg_write(handle, register, place), "uc_reg_write")


def open_engine(architecture: int) -> Any:
    """One of UC_ARCH_*, as yet without a CPU."""
    handle = ffi.new("void **")
    check(_lib.uc_open(architecture, uc.UC_MODE_ARM, handle), "uc_open")
    return handle[0]


def initialise(handle: Any, register: int) -> None:
    """It gets its CPU. ``register``: any that it will have."""
    check(_lib.uc_reg_read(handle, register, ffi.new("uint64_t *")), "uc_reg_read")


def close_engine(handle: Any) -> None:
    """Free it."""
    _lib.uc_close(handle)


def stop(handle: Any) -> None:
    """End the run of an engine, from any thread."""
    _lib.uc_emu_stop(handle)
