"""Decrypting one file, to a file or into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ensconce.encfile.crew import Progress, do_groups, gathered, ignore
from ensconce.encfile.fileio import check_output, opened, read_at, reader, write_at
from ensconce.encfile.groups import At, memory_opener, opener
from ensconce.encfile.layout import ENTRY_SIZE, HEAD_SIZE, NODE_SIZE, Layout
from ensconce.encfile.metadata import Metadata, check_path, check_size, open_metadata
from ensconce.encfile.names import path_bytes
from ensconce.encfile.room import room
from ensconce.encfile.wrapkey import check_wrap_key
from ensconce.errors import InputError
from ensconce.files import writing_aside

__all__ = ["decrypt_bytes", "decrypt_file", "decrypt_to_memory"]

_PRIVATE: Final = 0o600


def decrypt_file(
    src: Path,
    dst: Path,
    wrap_key: bytes,
    *,
    verify_path: str | None,
    progress: Progress | None = None,
    workers: int | None = None,
    follow: bool = True,
) -> None:
    """Decrypt ``src`` to ``dst``, which appears (readable by its owner alone) only when every node was verified.

    Memory: as :func:`ensconce.encfile.encrypt.encrypt_file`.

    Args:
        src: an encrypted file, of either version.
        dst: the plaintext; an existing file is replaced.
        wrap_key: 16 bytes.
        verify_path: the path that must be embedded; None to accept any.
        progress: called with the number of further bytes done.
        workers: processes to use; None for one per processor if the file is large.
        follow: whether ``src`` may be a symbolic link.

    Raises:
        IntegrityError: ``encfile.magic``, ``.version``, ``.pending``, ``.flags``, ``.padding``, ``.metadata_mac``
            (wrong key, or changed), ``.path``, ``.size``, ``.node_mac`` (names the node).
        InputError: wrong key length, unreadable source, target that cannot be written.
    """
    key, report = check_wrap_key(wrap_key), progress or ignore
    expected = None if verify_path is None else path_bytes(verify_path)
    with opened(src, follow=follow) as (source, size):
        check_output(src, dst)

        def read(view: memoryview, offset: int) -> None:
            read_at(source, view, offset, src)

        metadata, layout = _start(read, size, key, expected)
        with writing_aside(dst, _PRIVATE) as file, gathered(layout, source, file.fileno(), workers) as (entries, crew):
            target = file.fileno()
            write_at(target, memoryview(metadata.head), 0)
            report(len(metadata.head))
            entries[:ENTRY_SIZE] = metadata.root[: len(entries[:ENTRY_SIZE])]
            work = opener(layout, read, lambda view, offset: write_at(target, view, offset), entries)
            do_groups("open", layout, work, report, crew)


def decrypt_bytes(src: Path | bytes | bytearray | memoryview, wrap_key: bytes, *, verify_path: str | None) -> bytearray:
    """Decrypt a whole file into memory, verified to the last node before anything is returned.

    Everything happens in this process, nothing is written, and each byte of the source is read once, into memory of
    this process, before it is verified; who can change the source meanwhile gains nothing.

    Args:
        src: the encrypted file, as a path or as its bytes.
        wrap_key: 16 bytes.
        verify_path: the path that must be embedded; None to accept any.

    Returns:
        The plaintext.

    Raises:
        IntegrityError: as :func:`decrypt_file`.
        InputError: wrong key length, unreadable source, not enough memory.
    """
    if isinstance(src, Path):
        return bytearray(decrypt_to_memory(src, wrap_key, verify_path=verify_path))
    sealed = memoryview(src).cast("B")

    def read(view: memoryview, offset: int) -> None:
        view[:] = sealed[offset : offset + len(view)]

    expected = None if verify_path is None else path_bytes(verify_path)
    return bytearray(_decrypt_to_memory(read, len(sealed), check_wrap_key(wrap_key), expected))


def decrypt_to_memory(src: Path, wrap_key: bytes, *, verify_path: str | None) -> memoryview:
    """As :func:`decrypt_bytes`, for large files inside an enclave: each byte is read, decrypted, and where it stays.

    Returns:
        The plaintext, in memory that is its own, may be written to, and is given back when nobody refers to it.

    Raises:
        IntegrityError: as :func:`decrypt_file`.
        InputError: wrong key length, unreadable source, not enough memory.
    """
    key = check_wrap_key(wrap_key)
    expected = None if verify_path is None else path_bytes(verify_path)
    with opened(src) as (source, size):
        return _decrypt_to_memory(reader(source, src), size, key, expected)


def _decrypt_to_memory(read: At, size: int, key: bytes, expected: bytes | None) -> memoryview:
    metadata, layout = _start(read, size, key, expected)
    size = HEAD_SIZE + layout.data_nodes * NODE_SIZE
    try:
        result = room(size)
    except (MemoryError, OSError, OverflowError) as error:
        raise InputError(
            "encfile.memory",
            "there is not enough memory for the decrypted file",
            found=f"{size} bytes needed",
            remedy="give the process (in an enclave: sgx.enclave_size) more memory",
        ) from error
    result[: len(metadata.head)] = metadata.head
    if layout.groups:
        entries = memoryview(bytearray(layout.groups * ENTRY_SIZE))
        entries[:ENTRY_SIZE] = metadata.root
        do_groups("open", layout, memory_opener(layout, read, result, entries), ignore, None)
    return result[: metadata.size]


def _start(read: At, size: int, key: bytes, expected: bytes | None) -> tuple[Metadata, Layout]:
    """Read and judge the metadata: all that can be known before the first group is read."""
    node = bytearray(min(size, NODE_SIZE))
    read(memoryview(node), 0)
    metadata = open_metadata(bytes(node), key)
    if expected is not None:
        check_path(metadata, expected)
    check_size(metadata, size)
    return metadata, Layout(metadata.size)
