"""The engine's C library (unicorn 2, unicorn.h) by cffi: its Python interface costs more than a whole guest exit.

The library is the one that the Python package brings. Addresses are bytes; every call that fails raises `EngineError`.
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unicorn
from cffi import FFI
from unicorn import arm64_const as a64
from unicorn import unicorn_const as uc

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

READ, WRITE, EXECUTE = uc.UC_PROT_READ, uc.UC_PROT_WRITE, uc.UC_PROT_EXEC
MEM_FETCHES = (uc.UC_MEM_FETCH_UNMAPPED, uc.UC_MEM_FETCH_PROT)
MEM_WRITES = (uc.UC_MEM_WRITE_UNMAPPED, uc.UC_MEM_WRITE_PROT)
#: Numbers of `Cpu.write` and `Cpu.read`.
PC, SP, PSTATE = a64.UC_ARM64_REG_PC, a64.UC_ARM64_REG_SP, a64.UC_ARM64_REG_PSTATE
FPCR, FPSR, Q0 = a64.UC_ARM64_REG_FPCR, a64.UC_ARM64_REG_FPSR, a64.UC_ARM64_REG_Q0
X = (*(a64.UC_ARM64_REG_X0 + number for number in range(29)), a64.UC_ARM64_REG_X29, a64.UC_ARM64_REG_X30)
#: All of them; the zero register, which an instruction hook may name, is not there.
GENERAL = frozenset(X)
#: What the interrupt hook tells.
UNDEFINED, SVC, PREFETCH_ABORT, DATA_ABORT, BREAKPOINT, HVC, SMC = 1, 2, 3, 4, 7, 11, 13

#: Not an address of an instruction, so that nothing but a stop ends a run.
_NOWHERE = (1 << 64) - 1
_WRITE_CONTROL = uc.UC_CTL_IO_WRITE << 30
#: The range of a hook that is for every address: one that is empty.
_ALL = (ffi.cast("uint64_t", 1), ffi.cast("uint64_t", 0))


class EngineError(Exception):
    """The engine refused; the text is its own."""

    def __init__(self, code: int, call: str) -> None:
        reason: Any = ffi.string(_lib.uc_strerror(code))
        super().__init__(f"{call}: {reason.decode()}")


def _load() -> Any:
    found = sorted(Path(unicorn.__file__).parent.glob("lib/*unicorn*.so*"))
    return ffi.dlopen(str(found[0]) if found else "libunicorn.so.2")


_lib = _load()


class Cpu:
    """One engine: a Cortex-A72 whose EL1 is AArch64.

    ``on_memory(access, address, size, value)`` is told of an access to nothing (value: that of a store),
    ``on_exception(number)`` of an exception; both end the run. ``on_read(encoding)`` gives what an MRS reads and
    ``on_write(encoding, value)`` says whether an MSR was served; None and False leave it to the engine. None of
    them may use the engine.
    """

    def __init__(
        self,
        on_memory: Callable[[int, int, int, int], None],
        on_exception: Callable[[int], None],
        on_read: Callable[[Encoding], int | None],
        on_write: Callable[[Encoding, int], bool],
    ) -> None:
        handle = ffi.new("void **")
        self._check(_lib.uc_open(uc.UC_ARCH_ARM64, uc.UC_MODE_ARM, handle), "uc_open")
        self.handle: Any = handle[0]
        self._value, self._word, self._quad = ffi.new("uint64_t *"), ffi.new("uint32_t *"), ffi.new("uint8_t[16]")
        self._cp: Any = ffi.new("cp_reg *")
        self._control(uc.UC_CTL_CPU_MODEL, ffi.cast("int", a64.UC_CPU_ARM64_A72))
        context = ffi.new("void **")
        self._check(_lib.uc_context_alloc(self.handle, context), "uc_context_alloc")
        self._context: Any = context[0]
        self._hooks: list[Any] = []
        self._hook_memory(on_memory)
        self._hook_exceptions(on_exception)
        self._hook_system(on_read, on_write)
        # At reset EL1 counts as AArch32: SCR_EL3.RW (with HCE, NS), then HCR_EL2.RW.
        self.write_system((3, 6, 1, 1, 0), 0x501)
        self.write_system((3, 4, 1, 1, 0), 1 << 31)

    def close(self) -> None:
        """Free it; nothing may be called after."""
        _lib.uc_context_free(self._context)
        _lib.uc_close(self.handle)

    # -- running ----------------------------------------------------------------------------------------------

    def run(self, pc: int, count: int = 0) -> int:
        """Execute from ``pc`` until something stops it, or ``count`` instructions. Returns the engine's code."""
        return int(_lib.uc_emu_start(self.handle, pc, _NOWHERE, 0, count))

    @property
    def saved(self) -> Any:
        """The engine's whole CPU as it was when the last exception was told: a buffer."""
        return ffi.buffer(self._context, _lib.uc_context_size(self.handle))

    def exception(self) -> tuple[int, int]:
        """Of the exception that ended the last run: its syndrome, as ESR_ELx would have it, and the faulting address."""
        return struct.unpack_from("<I4xQ", self.saved, _exception_place())

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
        self._check(_lib.uc_reg_write(self.handle, a64.UC_ARM64_REG_CP_REG, cp), "uc_reg_write")

    # -- memory -----------------------------------------------------------------------------------------------

    def map(self, address: int, size: int, host: int, permissions: int) -> None:
        """Show ``size`` bytes of our memory at ``host`` to the guest."""
        pointer = ffi.cast("void *", host)
        self._check(_lib.uc_mem_map_ptr(self.handle, address, size, permissions, pointer), "uc_mem_map_ptr")

    def unmap(self, address: int, size: int) -> None:
        """End it."""
        self._check(_lib.uc_mem_unmap(self.handle, address, size), "uc_mem_unmap")

    def word(self, address: int) -> int | None:
        """The instruction at a virtual address; None: the guest could not read there."""
        failed = _lib.uc_vmem_read(self.handle, address, EXECUTE, self._word, 4)
        return None if failed else int(self._word[0])

    def forget_code(self, start: int, end: int) -> None:
        """Translate what lies there anew: somebody else has written it."""
        self._control(uc.UC_CTL_TB_REMOVE_CACHE, ffi.cast("uint64_t", start), ffi.cast("uint64_t", end))

    def forget_all_code(self) -> None:
        """The same for everything."""
        self._control(uc.UC_CTL_TB_FLUSH)

    # -- hooks ------------------------------------------------------------------------------------------------

    def _hook_memory(self, tell: Callable[[int, int, int, int], None]) -> None:
        def accessed(_: Any, access: int, address: int, size: int, value: int, __: Any) -> bool:
            tell(access, address, size, value)
            return False

        signature = "bool(void *, int, uint64_t, int, int64_t, void *)"
        self._hook(uc.UC_HOOK_MEM_UNMAPPED | uc.UC_HOOK_MEM_WRITE_PROT, signature, accessed)

    def _hook_exceptions(self, tell: Callable[[int], None]) -> None:
        handle, stop, save, context = self.handle, _lib.uc_emu_stop, _lib.uc_context_save, self._context

        def raised(_: Any, number: int, __: Any) -> None:
            save(handle, context)  # at the end of its run the engine makes another one, which nobody takes
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
        self._check(_lib.uc_hook_add(self.handle, number, kind, address, ffi.NULL, *_ALL, *more), "uc_hook_add")

    def _control(self, what: int, *arguments: Any) -> None:
        request = _WRITE_CONTROL | len(arguments) << 26 | what
        self._check(_lib.uc_ctl(self.handle, ffi.cast("int", request), *arguments), "uc_ctl")

    @staticmethod
    def _check(code: int, call: str) -> None:
        if code:
            raise EngineError(code, call)


@functools.cache
def _exception_place() -> int:
    """Where in a saved CPU the engine keeps what its interface does not tell of an exception; found by making one."""
    memory, number = mmap.mmap(-1, mmap.PAGESIZE), 0x5A3C
    memory[:4] = struct.pack("<I", 0xD4000001 | number << 5)  # svc
    address = ffi.cast("uintptr_t", ffi.from_buffer(memory))
    cpu = Cpu(lambda *_: None, lambda _: None, lambda _: None, lambda *_: False)
    cpu.map(0, mmap.PAGESIZE, int(address), READ | EXECUTE)
    cpu.run(0)
    saved, syndrome = bytes(cpu.saved), struct.pack("<I", 0x15 << 26 | 1 << 25 | number)
    cpu.close()
    if saved.count(syndrome) != 1:
        raise EngineError(uc.UC_ERR_VERSION, "this version of unicorn keeps exceptions elsewhere")
    return saved.find(syndrome)


def stop(handle: Any) -> None:
    """End the run of an engine, from any thread."""
    _lib.uc_emu_stop(handle)
