"""Libraries of packages and of the machine, as an image takes them in.

Invariants: what is cut off changes neither the name that a library states nor any byte that is loaded, and cutting
twice cuts no more. Oracle: the file's own program headers, read here once more.
"""

from __future__ import annotations

import struct

from ensconce.enclave.elf import loaded_part, soname
from ensconce.errors import InputError
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["NEVER_LOADED", "TARGET", "check", "library"]

NEVER_LOADED = b"debugging"


def check(data: bytes) -> bool:
    """Read a library's name, and cut it to what is loaded."""
    name = attempt(lambda: soname(data), InputError)
    part = attempt(lambda: loaded_part(data), InputError)
    if isinstance(part, Refused):
        return False
    holds(len(part) <= len(data), "more than there was")
    holds(part[64:] == data[64 : len(part)], "other bytes")
    again = attempt(lambda: loaded_part(part), InputError)
    holds(isinstance(again, Refused) or len(again) <= len(part), "cutting again adds something")
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _, offset, _, _, length, _, _ = struct.unpack_from("<IIQQQQQQ", data, start + number * size)
        if kind == 1:
            wanted = data[offset : offset + length]
            holds(offset < 64 or part[offset : offset + length] == wanted, "a byte that is loaded is gone")
    if isinstance(name, Refused):
        return False
    if name is not None:
        holds(name.isascii() and "\0" not in name and name.encode() + b"\0" in data, "another name")
    return True


def library(content: bytes, name: str | None) -> bytes:
    """A library of one segment that states ``name``; what is never loaded follows."""
    strings = b"\0" + (name or "").encode() + b"\0"
    start = 64 + 2 * 56
    at = start + len(strings)
    entries = [(5, start), *([(14, 1)] if name else []), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    loaded = at + len(dynamic) + len(content)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, loaded, 0, 64, 56, 2, 64, 1, 0)
    segments = [(1, 5, 0, 0, 0, loaded, loaded, 1), (2, 6, at, at, at, len(dynamic), len(dynamic), 8)]
    table = b"".join(struct.pack("<IIQQQQQQ", *each) for each in segments)
    return header + table + strings + dynamic + content + NEVER_LOADED


def seeds() -> dict[str, bytes]:
    """With a name, without one, and cut short."""
    return {
        "good": library(b"code", "libcode.so.1"),
        "good-nameless": library(b"code", None),
        "cut": library(b"code", "libcode.so.1")[:100],
    }


TARGET = Target("elf", check, seeds, max_size=4096, words=(b"\x7fELF\2\1\1",))
