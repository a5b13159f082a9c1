"""The engine's C library (unicorn 2, unicorn.h) by cffi: its Python interface costs more than a whole guest exit.

The library is the one that the Python package brings. Addresses are bytes; every call that fails raises `EngineError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unicorn
from cffi import FFI
from unicorn import arm64_const as a64
from unicorn import unicorn_const as uc

from kvmvfio_emu.guest.machine.stage2 import CONTROL, SIZE, TABLES, Stage2
from kvmvfio_emu.kernel.kvm.sysregs import Encoding

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
""")

#: Numbers of `Cpu.write` and `Cpu.read`.
PC, SP, PSTATE = a64.UC_ARM64_REG_PC, a64.UC_ARM64_REG_SP, a64.UC_ARM64_REG_PSTATE
FPCR, FPSR, Q0 = a64.UC_ARM64_REG_FPCR, a64.UC_ARM64_REG_FPSR, a64.UC_ARM64_REG_Q0
X = (*(a64.UC_ARM64_REG_X0 + number for number in range(29)), a64.UC_ARM64_REG_X29, a64.UC_ARM64_REG_X30)
#: All of them; the zero register, which an instruction hook may name, is not there.
GENERAL = frozenset(X)
HPFAR_EL2: Encoding = (3, 4, 6, 0, 4)
#: What the interrupt hook tells.
UNDEFINED, SVC, PREFETCH_ABORT, DATA_ABORT, BREAKPOINT, HVC, SMC = 1, 2, 3, 4, 7, 11, 13

#: Not an address of an instruction, so that nothing but a stop ends a run.
_NOWHERE = (1 << 64) - 1
_ALL_PERMISSIONS = uc.UC_PROT_ALL  #: it is the second stage that forbids
_WRITE_CONTROL = uc.UC_CTL_IO_WRITE << 30
#: The range of a hook that is for every address: one that is empty.
_ALL = (ffi.cast("uint64_t", 1), ffi.cast("uint64_t", 0))


class EngineError(Exception):
    """The engine refused, or is not as it has to be."""


def _check(code: int, call: str) -> None:
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


class Cpu:
    """One engine: a Cortex-A72 whose EL1 is AArch64.

    ``on_exception(number)`` is told of an exception, which ends the run. ``on_read(encoding)`` gives what an MRS
    reads and ``on_write(encoding, value)`` says whether an MSR was served; None and False leave it to the engine.
    None of them may use the engine.
    """

    def __init__(
        self,
        on_exception: Callable[[int], None],
        on_read: Callable[[Encoding], int | None],
        on_write: Callable[[Encoding, int], bool],
    ) -> None:
        self.handle: Any = open_engine()
        self._value, self._word, self._quad = ffi.new("uint64_t *"), ffi.new("uint32_t *"), ffi.new("uint8_t[16]")
        self._cp: Any = ffi.new("cp_reg *")
        self._control(uc.UC_CTL_CPU_MODEL, ffi.cast("int", a64.UC_CPU_ARM64_A72))
        context = ffi.new("void **")
        _check(_lib.uc_context_alloc(self.handle, context), "uc_context_alloc")
        self._context: Any = context[0]
        self._hooks: list[Any] = []
        self._hpfar: Any = ffi.new("cp_reg *")
        self._hook_exceptions(on_exception)
        self._hook_system(on_read, on_write)
        self._stage2 = Stage2()
        tables = ffi.cast("uintptr_t", ffi.from_buffer(self._stage2.memory))
        _check(_lib.uc_mem_map_ptr(self.handle, TABLES, SIZE, _ALL_PERMISSIONS, ffi.cast("void *", tables)), "tables")
        self.write_system((3, 4, 2, 1, 2), CONTROL)
        self.write_system((3, 4, 2, 1, 0), TABLES)
        # At reset EL1 counts as AArch32: SCR_EL3.RW (with HCE, NS), then HCR_EL2.RW, and VM: the second stage.
        self.write_system((3, 6, 1, 1, 0), 0x501)
        self.write_system((3, 4, 1, 1, 0), 1 << 31 | 1)

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

    def run(self, pc: int, count: int = 0) -> int:
        """Execute from ``pc`` until something stops it, or ``count`` instructions. Returns the engine's code."""
        return int(_lib.uc_emu_start(self.handle, pc, _NOWHERE, 0, count))

    @property
    def saved(self) -> Any:
        """The engine's whole CPU as it was when the last exception was told: a buffer."""
        return ffi.buffer(self._context, _lib.uc_context_size(self.handle))

    def exception(self, place: int) -> tuple[int, int, int]:
        """Of the exception that ended the last run: the syndrome, the address, the exception level that it is for.

        ``place``: `private.Places.exception`.
        """
        return struct.unpack_from("<I4xQI", self.saved, place)

    @property
    def fault_page(self) -> int:
        """The guest physical address of the page of the last fault of the second stage."""
        return int(self._hpfar.val) >> 4 << 12

    # -- registers --------------------------------------------------------------------------------------------

    def read(self, register: int) -> int:
        """A register of at most 64 bits."""
        self._value[0] = 0
        _lib.uc_reg_read(self.handle, register, self._value)
        return int(self._value[0])

    def write(self, register: int, value: int) -> None:
        """Set one."""
        self._value[0] = value & 0xFFFFFFFFFFFFFFFF
        _lib.uc_reg_write(self.handle, register, self._value)

    def read_quad(self, number: int) -> bytes:
        """A vector register: 16 bytes."""
        _lib.uc_reg_read(self.handle, Q0 + number, self._quad)
        return bytes(ffi.buffer(self._quad))

    def write_quad(self, number: int, value: bytes) -> None:
        """Set one."""
        ffi.memmove(self._quad, value, 16)
        _lib.uc_reg_write(self.handle, Q0 + number, self._quad)

    def read_system(self, encoding: Encoding) -> int | None:
        """A system register by (op0, op1, CRn, CRm, op2); None: the engine has it not."""
        cp = self._cp
        cp.op0, cp.op1, cp.crn, cp.crm, cp.op2 = encoding
        return None if _lib.uc_reg_read(self.handle, a64.UC_ARM64_REG_CP_REG, cp) else int(cp.val)

    def write_system(self, encoding: Encoding, value: int) -> None:
        """Set one; it also makes the engine see what was written to PSTATE before."""
        cp = self._cp
        cp.op0, cp.op1, cp.crn, cp.crm, cp.op2 = encoding
        cp.val = value
        _check(_lib.uc_reg_write(self.handle, a64.UC_ARM64_REG_CP_REG, cp), "uc_reg_write")

    # -- memory -----------------------------------------------------------------------------------------------

    def map(self, address: int, size: int, host: int, *, write: bool) -> None:
        """Show ``size`` bytes of our memory at ``host`` to the guest."""
        pointer = ffi.cast("void *", host)
        _check(_lib.uc_mem_map_ptr(self.handle, address, size, _ALL_PERMISSIONS, pointer), "uc_mem_map_ptr")
        self._stage2.allow(address, size, write=write)

    def unmap(self, address: int, size: int) -> None:
        """End it."""
        self._stage2.forbid(address, size)
        _check(_lib.uc_mem_unmap(self.handle, address, size), "uc_mem_unmap")
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
        read, hpfar = _lib.uc_reg_read, self._hpfar
        hpfar.op0, hpfar.op1, hpfar.crn, hpfar.crm, hpfar.op2 = HPFAR_EL2

        def raised(_: Any, number: int, __: Any) -> None:
            # Here: at the end of its run the engine translates another address, for nobody.
            save(handle, context)
            if number in (PREFETCH_ABORT, DATA_ABORT):
                read(handle, a64.UC_ARM64_REG_CP_REG, hpfar)
            tell(number)
            stop(handle)

        self._hook(uc.UC_HOOK_INTR, "void(void *, uint32_t, void *)", raised)

    def _hook_system(
        self, serve_read: Callable[[Encoding], int | None], serve_write: Callable[[Encoding, int], bool]
    ) -> None:
        handle, write, value = self.handle, _lib.uc_reg_write, ffi.new("uint64_t *")

        def read(_: Any, register: int, cp: Any, __: Any) -> int:
            found = serve_read((cp.op0, cp.op1, cp.crn, cp.crm, cp.op2))
            if found is None:
                return 0
            if register in GENERAL:
                value[0] = found
                write(handle, register, value)
            return 1

        def written(_: Any, __: int, cp: Any, ___: Any) -> int:
            return int(serve_write((cp.op0, cp.op1, cp.crn, cp.crm, cp.op2), int(cp.val)))

        signature = "uint32_t(void *, int, cp_reg *, void *)"
        self._hook(uc.UC_HOOK_INSN, signature, read, ffi.cast("int", a64.UC_ARM64_INS_MRS))
        self._hook(uc.UC_HOOK_INSN, signature, written, ffi.cast("int", a64.UC_ARM64_INS_MSR))

    def _hook(self, kind: int, signature: str, function: Callable[..., Any], *more: Any) -> None:
        callback: Any = ffi.callback(signature, function)
        self._hooks.append(callback)
        address, number = ffi.cast("void *", callback), ffi.new("size_t *")
        _check(_lib.uc_hook_add(self.handle, number, kind, address, ffi.NULL, *_ALL, *more), "uc_hook_add")

    def _control(self, what: int, *arguments: Any) -> None:
        request = _WRITE_CONTROL | len(arguments) << 26 | what
        _check(_lib.uc_ctl(self.handle, ffi.cast("int", request), *arguments), "uc_ctl")


def open_engine() -> Any:
    """One for arm64, as yet without a CPU."""
    handle = ffi.new("void **")
    _check(_lib.uc_open(uc.UC_ARCH_ARM64, uc.UC_MODE_ARM, handle), "uc_open")
    return handle[0]


def initialise(handle: Any) -> None:
    """It gets its CPU."""
    _check(_lib.uc_reg_read(handle, PC, ffi.new("uint64_t *")), "uc_reg_read")


def close_engine(handle: Any) -> None:
    """Free it."""
    _lib.uc_close(handle)


def stop(handle: Any) -> None:
    """End the run of an engine, from any thread."""
    _lib.uc_emu_stop(handle)
