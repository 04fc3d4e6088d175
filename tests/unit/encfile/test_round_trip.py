from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensconce import encfile

KEY = bytes(range(16))
GROUP = 96 * 4096
EDGES = [0, 3072, 7168, 3072 + GROUP, 3072 + 2 * GROUP]
SIZES = sorted({max(0, edge + step) for edge in EDGES for step in (-1, 0, 1)})
Reader = Callable[[bytes, bytes], tuple[int, bytes, bytes, list[bytes]]]


def some(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("format", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_every_boundary(tmp_path: Path, reference: Reader, size: int, format: encfile.Format) -> None:
    data = some(size)
    (tmp_path / "in").write_bytes(data)
    mark = encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="./a//x", format=format)
    sealed = (tmp_path / "enc").read_bytes()
    assert mark == encfile.fingerprint(tmp_path / "enc") == hashlib.sha256(sealed[:4096]).digest()
    assert len(sealed) == encfile.encrypted_size(size)
    assert reference(sealed, KEY)[:3] == (format, b"a/x", data)
    assert encfile.decrypt_bytes(sealed, KEY, verify_path="a/x") == data
    assert encfile.decrypt_bytes(tmp_path / "enc", KEY, verify_path="a/./x") == data
    encfile.decrypt_file(tmp_path / "enc", tmp_path / "out", KEY, verify_path=None)
    assert (tmp_path / "out").read_bytes() == data


@pytest.mark.parametrize("groups", [33, 34])
def test_three_levels_of_tables(tmp_path: Path, reference: Reader, groups: int) -> None:
    data = random.Random(1).randbytes(4096) * (96 * groups) + some(3072 + 5)
    (tmp_path / "in").write_bytes(data)
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x")
    sealed = (tmp_path / "enc").read_bytes()
    assert reference(sealed, KEY)[2] == data
    assert encfile.decrypt_bytes(sealed, KEY, verify_path="x") == data


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(size=st.integers(0, 3 * GROUP), format=st.sampled_from([1, 2]), path=st.text(min_size=1, max_size=150))
def test_any_size_and_path(tmp_path: Path, size: int, format: encfile.Format, path: str) -> None:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return
    path = "x" + path.replace("\0", "").replace("..", "")
    data = some(size)
    (tmp_path / "in").write_bytes(data)
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path=path, format=format)
    assert encfile.decrypt_bytes(memoryview((tmp_path / "enc").read_bytes()), KEY, verify_path=path) == data


def test_no_key_and_no_nonce_is_ever_used_twice(tmp_path: Path, reference: Reader) -> None:
    (tmp_path / "in").write_bytes(bytes(3072 + 2 * GROUP))
    keys: list[bytes] = []
    nonces = set()
    for _ in range(3):
        encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x")
        sealed = (tmp_path / "enc").read_bytes()
        keys += reference(sealed, KEY)[3]
        nonces.add(sealed[10:42])
        nodes = [sealed[at : at + 4096] for at in range(0, len(sealed), 4096)]
        assert len(set(nodes)) == len(nodes), "equal data must not show"
    assert len(set(keys)) == len(keys) == 3 * (2 + 192)
    assert len(nonces) == 3


def test_a_buffer_used_before_leaks_nothing_into_a_short_last_node(tmp_path: Path, reference: Reader) -> None:
    (tmp_path / "in").write_bytes(b"\xff" * (3072 + GROUP + 10))
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x")
    reference((tmp_path / "enc").read_bytes(), KEY)  # asserts that unused space is zero


def test_progress_adds_up(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(some(3072 + 5 * GROUP))
    told: list[int] = []
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x", progress=told.append)
    assert sum(told) == 3072 + 5 * GROUP
    assert len(told) > 3
    told.clear()
    encfile.decrypt_file(tmp_path / "enc", tmp_path / "out", KEY, verify_path="x", progress=told.append)
    assert sum(told) == 3072 + 5 * GROUP


def test_plaintext_is_private_and_ciphertext_is_not(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x")
    encfile.decrypt_file(tmp_path / "enc", tmp_path / "out", KEY, verify_path="x")
    assert (tmp_path / "enc").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
