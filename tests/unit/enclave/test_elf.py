import sys
from pathlib import Path

import pytest

from ensconce.enclave.elf import loaded_part, soname
from ensconce.errors import InputError


def library() -> Path:
    """A library of this machine that this process has mapped."""
    maps = Path("/proc/self/maps").read_text().split()
    return next(Path(word) for word in maps if "/libc.so.6" in word)


def test_a_library_states_its_name_and_a_program_none() -> None:
    assert soname(library().read_bytes()) == "libc.so.6"
    assert soname(Path(sys.executable).resolve().read_bytes()) is None


def test_what_is_loaded_stays_and_what_follows_goes() -> None:
    data = library().read_bytes()
    part = loaded_part(data + b"\0" * 5000)
    assert len(part) <= len(data)
    assert part[64:] == data[64 : len(part)]
    assert soname(part) == "libc.so.6"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 100, b"\x7fELF\x02\x01" + b"\xff" * 100])
def test_what_is_no_program_file_is_refused(data: bytes) -> None:
    for read in (soname, loaded_part):
        with pytest.raises(InputError) as caught:
            read(data)
        assert caught.value.check == "image.elf"
