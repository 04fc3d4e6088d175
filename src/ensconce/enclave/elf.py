"""What a shared object says of itself: the name that it is asked for by, and how much of its file is ever loaded.

Source: System V ABI, "Object files" and "Dynamic linking"; 64-bit, little-endian. The files are the owner's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ensconce.errors import InputError

__all__ = ["loaded_part", "soname"]

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_STRTAB, _DT_SONAME = 0, 5, 14


def soname(data: bytes) -> str | None:
    """The name by which programs ask for a shared object (``DT_SONAME``); None when it states none.

    Raises:
        InputError: ``image.elf``: the bytes are no 64-bit little-endian ELF file, or a damaged one.
    """
    try:
        segments = list(_segments(data))
        entries = {
            tag: value
            for kind, offset, _, size in segments
            if kind == _PT_DYNAMIC
            for tag, value in _ENTRY.iter_unpack(data[offset : offset + size])
            if tag != _DT_NULL
        }
        if _DT_SONAME not in entries:
            return None
        strings = next(
            offset + entries[_DT_STRTAB] - address
            for kind, offset, address, size in segments
            if kind == _PT_LOAD and address <= entries[_DT_STRTAB] < address + size
        )
        start = strings + entries[_DT_SONAME]
        return data[start : data.index(b"\0", start)].decode("ascii")
    except (struct.error, KeyError, StopIteration, ValueError, OverflowError) as error:
        raise _damaged() from error


def loaded_part(data: bytes) -> bytes:
    """The file without what follows its last segment and is never loaded: debugging information, section names.

    Raises:
        InputError: as :func:`soname`.
    """
    try:
        end = max(offset + size for kind, offset, _, size in _segments(data) if kind == _PT_LOAD)
        header = list(_HEADER.unpack_from(data))
    except (struct.error, ValueError, OverflowError) as error:
        raise _damaged() from error
    # No section table any more: its offset, its number of entries, and the entry with the sections' names.
    header[6] = header[12] = header[13] = 0
    return _HEADER.pack(*header) + data[_HEADER.size : end]


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, offset in the file, address and size in the file of each segment."""
    ident, *_, start, _, _, _, size, count, _, _, _ = _HEADER.unpack_from(data)
    if ident[:6] != b"\x7fELF\x02\x01":
        raise _damaged()
    for number in range(count):
        kind, _, offset, address, _, length, _, _ = _SEGMENT.unpack_from(data, start + number * size)
        yield kind, offset, address, length


def _damaged() -> InputError:
    return InputError(
        "image.elf",
        "a library of this machine is no program file that can be read",
        rule="a 64-bit ELF file",
        remedy="install it again",
    )
