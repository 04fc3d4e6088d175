"""Encrypting one file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ensconce.encfile.crew import Progress, do_groups, gathered, ignore
from ensconce.encfile.fileio import check_output, opened, read_at, write_at
from ensconce.encfile.groups import sealer
from ensconce.encfile.layout import ENTRY_SIZE, HEAD_SIZE, Format, Layout
from ensconce.encfile.metadata import Fingerprint, Metadata, seal_metadata
from ensconce.encfile.names import path_bytes, shown
from ensconce.encfile.wrapkey import check_wrap_key
from ensconce.errors import InputError
from ensconce.files import writing_aside

__all__ = ["encrypt_file"]


def encrypt_file(
    src: Path,
    dst: Path,
    wrap_key: bytes,
    *,
    embedded_path: str,
    format: Format = 2,
    progress: Progress | None = None,
    workers: int | None = None,
    follow: bool = True,
) -> Fingerprint:
    """Encrypt ``src`` to ``dst``, which appears only when it is complete and on the disk.

    Memory: under a megabyte per process, and 32 bytes for each 384 KiB of the file.

    Args:
        src: a regular file; nothing may write to it meanwhile.
        dst: the encrypted file; an existing file is replaced.
        wrap_key: 16 bytes.
        embedded_path: the path under which the file will be opened (in a Gramine manifest, what follows ``file:`` in
            the mount's ``uri``); brought into Gramine's normal form, at most 771 bytes.
        format: 2 for Gramine 1.9 and later, 1 for every release.
        progress: called with the number of further bytes done.
        workers: processes to use; None for one per processor if the file is large.
        follow: whether ``src`` may be a symbolic link.

    Returns:
        The fingerprint of the new file.

    Raises:
        InputError: wrong key length or path, unreadable or changing source, target that cannot be written.
    """
    key, path, report = check_wrap_key(wrap_key), path_bytes(embedded_path), progress or ignore
    with opened(src, follow=follow) as (source, size):
        check_output(src, dst)
        layout = Layout(size)
        before = os.fstat(source)
        with writing_aside(dst) as file, gathered(layout, source, file.fileno(), workers) as (entries, crew):
            target = file.fileno()
            head = bytearray(min(size, HEAD_SIZE))
            read_at(source, memoryview(head), 0, src)
            work = sealer(
                layout,
                lambda view, offset: read_at(source, view, offset, src),
                lambda view, offset: write_at(target, view, offset),
                entries,
            )
            report(len(head))
            do_groups("seal", layout, work, report, crew)
            root = bytes(entries[:ENTRY_SIZE])
            node = seal_metadata(Metadata(path=path, size=size, root=root, head=bytes(head)), key, format)
            write_at(target, memoryview(node), 0)
            after = os.fstat(source)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise InputError(
                    "encfile.input_changed",
                    f"{shown(src)} changed while it was read",
                    remedy="let nothing write to it meanwhile, and try again",
                )
    return Fingerprint(hashlib.sha256(node).digest())
