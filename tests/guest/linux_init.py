"""A first process for Linux, and the initial file system around it: it says that it is there, and switches off."""

from __future__ import annotations

import struct

HELLO = b"Hello from the first process\n"
#: write(1, what follows, 29); reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF).
CODE = {
    "arm64": (
        *(0xD2800020, 0x100001A1, 0xD28003A2, 0xD2800808, 0xD4000001),
        *(0xD29BD5A0, 0xF2BFDC20, 0xD2832D21, 0xF2A50241, 0xD29FDB82, 0xF2A86422),
        *(0xD28011C8, 0xD4000001, 0x14000000),
    ),
    "armhf": (
        *(0xE3A00001, 0xE28F102C, 0xE3A0201D, 0xE3A07004, 0xEF000000),
        *(0xE30D0EAD, 0xE34F0EE1, 0xE3011969, 0xE3421812, 0xE30F2EDC, 0xE3442321),
        *(0xE3A07058, 0xEF000000, 0xEAFFFFFE),
    ),
}
_LOADED_AT = 0x10000
_DIRECTORY, _FILE, _CHARACTERS = 0o40755, 0o100755, 0o20600
_CONSOLE = (5, 1)


def initrd(architecture: str) -> bytes:
    """A cpio archive (the format "newc") with /init and /dev/console."""
    entries = (
        ("dev", _DIRECTORY, b"", (0, 0)),
        ("dev/console", _CHARACTERS, b"", _CONSOLE),
        ("init", _FILE, _executable(architecture), (0, 0)),
        ("TRAILER!!!", 0, b"", (0, 0)),
    )
    return b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))


def _executable(architecture: str) -> bytes:
    """An ELF file with one segment: all of it."""
    wide = architecture == "arm64"
    code = struct.pack(f"<{len(CODE[architecture])}I", *CODE[architecture]) + HELLO
    word, headers = ("Q", 64 + 56) if wide else ("I", 52 + 32)
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1, 1)) + bytes(9)
    start, size = _LOADED_AT + headers, headers + len(code)
    flags = 0 if wide else 0x05000000  # EABI version 5
    head = struct.pack(
        f"<HHI3{word}I6H",
        2,
        183 if wide else 40,
        1,
        start,
        headers - (56 if wide else 32),
        0,
        flags,
        64 if wide else 52,
        56 if wide else 32,
        1,
        0,
        0,
        0,
    )
    if wide:
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 0x1000)
    else:
        segment = struct.pack("<8I", 1, 0, _LOADED_AT, _LOADED_AT, size, size, 5, 0x1000)
    return ident + head + segment + code


def _entry(number: int, name: str, mode: int, data: bytes, device: tuple[int, int]) -> bytes:
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
