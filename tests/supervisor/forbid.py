"""``python -m supervisor.forbid ERRNO PROGRAM ...``: the program, where seccomp(2) fails, as in a strict container."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from kvmvfio_emu.doors.supervisor.syscalls import architecture

_SECCOMP_MODE_FILTER, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 2, 22, 38
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LD_ABS, _JEQ, _RET = 0x20, 0x15, 0x06


def main() -> None:
    """Never returns."""
    code = ctypes.create_string_buffer(
        b"".join(
            struct.pack("<HBBI", *instruction)
            for instruction in (
                (_LD_ABS, 0, 0, 0),
                (_JEQ, 0, 1, architecture().seccomp),
                (_RET, 0, 0, _ERRNO | int(sys.argv[1])),
                (_RET, 0, 0, _ALLOW),
            )
        )
    )
    program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert not libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
