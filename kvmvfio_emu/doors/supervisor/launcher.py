"""Runs in the child, before the program: installs the filter, hands the listener over, becomes the program.

Stand-alone on purpose: only the standard library, started with ``python -I -S``, so that nothing of the package or its
environment is loaded under the filter. Arguments: socket descriptor, filter (hex), flags, then the program and its own.
"""

import ctypes
import os
import socket
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SECCOMP_SET_MODE_FILTER = 1
SIGKILL = 9


class Filter(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def main() -> None:
    """Never returns: exec, or exit status 125 after a word on the socket."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    code = ctypes.create_string_buffer(bytes.fromhex(sys.argv[2]))
    number, flags, parent, program = int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:]
    libc = ctypes.CDLL(None, use_errno=True)
    # Our targets die with us: without a supervisor every open of theirs would fail.
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(125)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        fail(channel, "prctl(PR_SET_NO_NEW_PRIVS)", ctypes.get_errno())
    wanted = Filter((len(code) - 1) // 8, ctypes.addressof(code))
    listener = libc.syscall(number, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(wanted))
    if listener < 0:
        fail(channel, "seccomp", ctypes.get_errno())
    socket.send_fds(channel, [struct.pack("<i", 0)], [listener])
    os.close(listener)
    channel.recv(1)
    channel.close()
    for signal in (13, 25):  # Python ignores SIGPIPE and SIGXFSZ; the program should have them as its parent had
        libc.signal(signal, 0)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        os.write(2, f"kvmvfio-emu: {program[0]}: {error.strerror}\n".encode())
        os._exit(127 if error.errno == 2 else 126)


def fail(channel: socket.socket, what: str, error: int) -> None:
    """Tell the supervisor which call failed, and how."""
    channel.send(struct.pack("<i", error) + what.encode())
    os._exit(125)


if __name__ == "__main__":
    main()
