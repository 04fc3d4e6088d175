"""The metadata node, the first 4096 bytes of an encrypted file: bytes to a frozen dataclass and back.

Everything else in the file hangs from it. It is laid out as in ``protected_files_format.h`` of Gramine 1.9::

    offset  size
         0     8  "GRAFS_PF"
         8     1  major version, 1 or 2
         9     1  minor version, 0
        10    32  nonce of the metadata key
        42    16  GCM tag of the encrypted part
        58     1  feature flags, only in version 2
        59  3884  encrypted part: path[772], u64 size, key[16] and tag[16] of the root MHT node, data[3072]
                  padding with zeros; in version 1 the encrypted part starts at 58

Version, flags and padding are not covered by any tag. Gramine ignores most of them; here they must have the only
values that were ever written, so that no bit of a file can change unnoticed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from ensconce.encfile.fileio import opened, read_at
from ensconce.encfile.layout import ENTRY_SIZE, HEAD_SIZE, NODE_SIZE, Format, Layout
from ensconce.encfile.names import PATH_SIZE, shown
from ensconce.encfile.nodes import ZERO_IV
from ensconce.errors import IntegrityError

__all__ = ["Fingerprint", "Metadata", "check_path", "check_size", "fingerprint", "open_metadata", "seal_metadata"]

Fingerprint = NewType("Fingerprint", bytes)
"""SHA-256 (32 bytes) of a metadata node, which commits to every other node of its file."""

_MAGIC: Final = b"GRAFS_PF"
_PENDING: Final = 0x01
_NONCE_SIZE: Final = 32
_TAG_SIZE: Final = 16
_TAG_AT: Final = 42
_BODY: Final = struct.Struct(f"<{PATH_SIZE}sQ{ENTRY_SIZE}s{HEAD_SIZE}s")
_BODY_AT: Final[dict[Format, int]] = {1: 58, 2: 59}


@dataclass(frozen=True)
class Metadata:
    """What the encrypted part of a metadata node says.

    Attributes:
        path: the embedded path, at most 771 bytes.
        size: bytes of plaintext in the whole file.
        root: key and tag of the root MHT node, 32 bytes; meaningless if ``size`` is at most 3072.
        head: the first ``min(size, 3072)`` bytes of plaintext.
    """

    path: bytes
    size: int
    root: bytes
    head: bytes


def _metadata_key(wrap_key: bytes, nonce: bytes) -> bytes:
    """NIST SP 800-108 in counter mode with AES-CMAC, one block: ``ipf_generate_metadata_key``."""
    mac = CMAC(AES(wrap_key))
    mac.update(struct.pack("<I64s32sI", 1, b"SGX-PROTECTED-FS-METADATA-KEY", nonce, 128))
    return mac.finalize()


def seal_metadata(metadata: Metadata, wrap_key: bytes, format: Format) -> bytes:
    """The 4096 bytes of a metadata node, under a key that is used for it alone."""
    nonce = os.urandom(_NONCE_SIZE)
    body = _BODY.pack(metadata.path, metadata.size, metadata.root, metadata.head)
    sealed = AESGCM(_metadata_key(wrap_key, nonce)).encrypt(ZERO_IV, body, None)
    node = _MAGIC + bytes([format, 0]) + nonce + sealed[-_TAG_SIZE:]
    return (node.ljust(_BODY_AT[format], b"\0") + sealed[:-_TAG_SIZE]).ljust(NODE_SIZE, b"\0")


def open_metadata(node: bytes, wrap_key: bytes) -> Metadata:
    """Verify and decrypt a metadata node.

    Args:
        node: the first 4096 bytes of the file, or all of it if it is shorter.
        wrap_key: 16 bytes.

    Raises:
        IntegrityError: ``encfile.magic``, ``encfile.size``, ``encfile.version``, ``encfile.pending``,
            ``encfile.flags``, ``encfile.padding``, ``encfile.metadata_mac`` or ``encfile.path``.
    """
    start = _check_header(node)
    end = start + _BODY.size
    sealed = node[start:end] + node[_TAG_AT : _TAG_AT + _TAG_SIZE]
    key = _metadata_key(wrap_key, node[_TAG_AT - _NONCE_SIZE : _TAG_AT])
    try:
        body = AESGCM(key).decrypt(ZERO_IV, sealed, None)
    except InvalidTag:
        raise IntegrityError(
            "encfile.metadata_mac",
            "the wrap key is wrong, or the metadata node (node 0) was changed",
            rule="the GCM tag of the metadata node must verify under the key derived from the wrap key",
            remedy="check the key; if it is the right one, fetch the file again",
        ) from None
    path, size, root, head = _BODY.unpack(body)
    path, nul, _ = path.partition(b"\0")
    if not nul:
        raise IntegrityError(
            "encfile.path", "the embedded path has no end", rule=f"at most {PATH_SIZE - 1} bytes and a NUL"
        )
    return Metadata(path=path, size=size, root=root, head=head[:size])


def _check_header(node: bytes) -> int:
    """Check all that is in the clear; returns where the encrypted part starts."""
    if node[: len(_MAGIC)] != _MAGIC[: len(node)] or not node:
        raise IntegrityError(
            "encfile.magic",
            "this is not an encrypted file of Gramine's",
            found=f"it starts with {node[:8].hex()}" if node else "an empty file",
            rule=f"it must start with {_MAGIC.hex()} (GRAFS_PF)",
        )
    if len(node) < NODE_SIZE:
        raise IntegrityError(
            "encfile.size",
            "the encrypted file is cut off within its first node",
            found=f"{len(node)} bytes",
            rule=f"at least {NODE_SIZE} bytes",
            remedy="fetch the file again",
        )
    major, minor = node[8], node[9]
    if major not in (1, 2) or minor != 0:
        raise IntegrityError(
            "encfile.version", "unknown version of the format", found=f"{major}.{minor}", rule="1.0 or 2.0"
        )
    start = _BODY_AT[1] if major == 1 else _BODY_AT[2]
    flags = node[58] if major == 2 else 0
    if flags & _PENDING:
        raise IntegrityError(
            "encfile.pending",
            "the file is marked as having unfinished writes",
            found=f"feature flags 0x{flags:02x}",
            rule="flag 0x01 must be clear",
            remedy="recover it with the Gramine mount that wrote it (enable_recovery), or fetch it again",
        )
    if flags:
        raise IntegrityError(
            "encfile.flags", "unknown feature flags", found=f"0x{flags:02x}", rule="none are known but 0x01"
        )
    if any(node[start + _BODY.size : NODE_SIZE]):
        raise IntegrityError("encfile.padding", "the padding of the metadata node was changed", rule="all zeros")
    return start


def check_path(metadata: Metadata, expected: bytes) -> None:
    """Refuse a file that was made for another path.

    Args:
        metadata: the verified metadata.
        expected: the path it must hold, in normal form (``names.path_bytes``).

    Raises:
        IntegrityError: ``encfile.path``.
    """
    if metadata.path != expected:
        raise IntegrityError(
            "encfile.path",
            "the file was made for another path (renamed, or swapped with another)",
            found=shown(metadata.path),
            rule=f"it must hold the path {shown(expected)}",
            remedy="put each file back under its own name, or encrypt it again with the path it is opened under",
        )


def check_size(metadata: Metadata, found: int) -> None:
    """Refuse a file that is longer or shorter than its metadata says.

    Gramine ignores what is behind the last node; here it is refused, because nothing vouches for it.

    Raises:
        IntegrityError: ``encfile.size``.
    """
    expected = Layout(metadata.size).encrypted_size
    if found != expected:
        raise IntegrityError(
            "encfile.size",
            "the encrypted file was cut off" if found < expected else "the encrypted file has extra bytes at its end",
            found=f"{found} bytes",
            rule=f"{expected} bytes, for {metadata.size} bytes of data",
            remedy="fetch the file again"
            if found < expected
            else "fetch it again; if Gramine's tool wrote it over a longer file, delete that one first",
        )


def fingerprint(path: Path) -> Fingerprint:
    """SHA-256 of the metadata node: tells one encryption of one file from every other.

    For detection and audit; the file is neither opened nor verified. Every encryption of the same data has another
    fingerprint.

    Raises:
        InputError: the file cannot be read.
        IntegrityError: ``encfile.size``, it is shorter than a metadata node.
    """
    with opened(path) as (handle, size):
        node = bytearray(NODE_SIZE)
        if size < NODE_SIZE:
            raise IntegrityError(
                "encfile.size", f"{shown(path)} is too short for an encrypted file", found=f"{size} bytes"
            )
        read_at(handle, memoryview(node), 0, path)
    return Fingerprint(hashlib.sha256(node).digest())
