"""The path inside an encrypted file, and how to show a path to people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ensconce.errors import InputError

__all__ = ["PATH_SIZE", "normal_path", "path_bytes", "shown"]

PATH_SIZE: Final = 772
"""Bytes that the format has for the path, the closing NUL included (``PATH_MAX_SIZE`` in Gramine)."""


def normal_path(path: str) -> str:
    """The form in which Gramine writes and compares a path: no ``.``, no empty part, ``..`` resolved by name.

    Both Gramine's tool and its file system bring paths into this form before they look at them, so any other
    could never be opened. Works on the text alone; symbolic links are not looked at.

    Source: ``get_norm_path`` in ``common/src/path_utils.c`` of Gramine 1.9.
    """
    absolute = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        elif not absolute:
            parts.append(part)
    return ("/" if absolute else "") + "/".join(parts)


def path_bytes(path: str) -> bytes:
    """The bytes to embed for ``path``, in normal form.

    Raises:
        InputError: it names no file, holds a NUL, or is longer than 771 bytes.
    """
    encoded = os.fsencode(normal_path(path))
    rule = f"1 to {PATH_SIZE - 1} bytes, none of them NUL, that name a file"
    if encoded in (b"", b"/") or b"\0" in encoded:
        raise InputError("encfile.path", "the path to embed names no file", found=shown(path) or "nothing", rule=rule)
    if len(encoded) >= PATH_SIZE:
        raise InputError(
            "encfile.path",
            "the path to embed is too long for the format",
            found=f"{len(encoded)} bytes",
            rule=rule,
            remedy="choose a shorter path (--path), it is the one that the manifest's uri opens",
        )
    return encoded


def shown(path: str | bytes | Path) -> str:
    """A path as text for messages: what cannot be printed (control characters, stray bytes) is escaped."""
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
