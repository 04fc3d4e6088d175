"""A second, independent reader of the format: slow, recursive, written from the format's description alone."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

NODE = 4096
Reader = Callable[[bytes, bytes], tuple[int, bytes, bytes, list[bytes]]]


def read(blob: bytes, wrap_key: bytes) -> tuple[int, bytes, bytes, list[bytes]]:
    """Version, path, data, and every node key that occurs in the file."""
    version = blob[8]
    mac = CMAC(AES(wrap_key))
    mac.update(struct.pack("<I", 1) + b"SGX-PROTECTED-FS-METADATA-KEY".ljust(64, b"\0") + blob[10:42])
    mac.update(struct.pack("<I", 0x80))
    start = 58 if version == 1 else 59
    body = AESGCM(mac.finalize()).decrypt(bytes(12), blob[start : start + 3884] + blob[42:58], None)
    path = body[:772].rstrip(b"\0")
    size = int.from_bytes(body[772:780], "little")
    keys: list[bytes] = []
    nodes = {}  # logical number of a data node -> its plaintext

    def opened(number: int, entry: bytes) -> bytes:
        keys.append(entry[:16])
        return AESGCM(entry[:16]).decrypt(bytes(12), blob[number * NODE : (number + 1) * NODE] + entry[16:], None)

    def walk(table: int, entry: bytes) -> None:
        plain = opened(1 + 97 * table, entry)
        assert len(plain) == NODE
        for slot in range(128):
            child = plain[32 * slot : 32 * (slot + 1)]
            if child == bytes(32):
                continue
            if slot < 96:
                data = 96 * table + slot
                nodes[data] = opened(data + 2 + data // 96, child)
            else:
                walk(32 * table + 1 + slot - 96, child)

    if size > 3072:
        walk(0, body[780:812])
    whole = body[812:] + b"".join(nodes[number] for number in range(len(nodes)))
    assert whole[size:] == bytes(len(whole) - size), "unused space must be zero"
    assert len(blob) == NODE * (1 + len(keys))
    return version, path, whole[:size], keys


@pytest.fixture(scope="session")
def reference() -> Reader:
    return read
