"""The wrap key: the 16 bytes that a file's metadata key is derived from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ensconce.encfile.names import shown
from ensconce.errors import InputError
from ensconce.files import read_bounded

__all__ = ["WRAP_KEY_SIZE", "check_wrap_key", "read_wrap_key"]

WRAP_KEY_SIZE: Final = 16
_RULE: Final = f"exactly {WRAP_KEY_SIZE} raw bytes"


def check_wrap_key(wrap_key: bytes) -> bytes:
    """``wrap_key`` itself, if it has the right length.

    Raises:
        InputError: it is not 16 bytes long.
    """
    if len(wrap_key) != WRAP_KEY_SIZE:
        raise InputError(
            "encfile.wrap_key", "the wrap key has the wrong length", found=f"{len(wrap_key)} bytes", rule=_RULE
        )
    return bytes(wrap_key)


def read_wrap_key(path: Path) -> bytes:
    """Read a wrap key from a file of 16 raw bytes, as Gramine's tool does.

    Raises:
        InputError: the file cannot be read, or has another length.
    """
    data = read_bounded(path, limit=4096)
    if len(data) == WRAP_KEY_SIZE:
        return data
    # Not with this path: what is there may be somebody's key of another kind.
    remedy = f"check the path; a new key is made with head -c {WRAP_KEY_SIZE} /dev/urandom > new.key"
    if len(data.strip()) == 2 * WRAP_KEY_SIZE:
        remedy = "this looks like hexadecimal digits; turn them into bytes: xxd -r -p"
    raise InputError(
        "encfile.wrap_key",
        f"{shown(path)} is not a wrap key",
        found=f"{len(data)} bytes",
        rule=_RULE,
        remedy=remedy,
    )
