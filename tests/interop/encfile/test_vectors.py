"""Files that Gramine's own tools wrote, and (where it is installed) Gramine's tool on files that we wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ensconce import encfile
from ensconce.errors import IntegrityError

SIZES = [0, 1, 3072, 3073, 7168, 7169, 396288]
GROUP = 96 * 4096


def pattern(size: int) -> bytes:
    return bytes((index * 31 + (index >> 8)) & 0xFF for index in range(size))


@pytest.fixture
def folder(vectors: Path) -> Path:
    return vectors / "encrypted-files"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_every_vector(folder: Path, tmp_path: Path, version: int, size: int) -> None:
    key = encfile.read_wrap_key(folder / "wrap.key")
    source = folder / f"v{version}-{size}.pf"
    assert encfile.decrypt_bytes(source, key, verify_path=f"data/{source.name}") == pattern(size)
    assert encfile.decrypt_bytes(source.read_bytes(), key, verify_path=None) == pattern(size)
    encfile.decrypt_file(source, tmp_path / "out", key, verify_path=f"data/{source.name}")
    assert (tmp_path / "out").read_bytes() == pattern(size)
    assert source.stat().st_size == encfile.encrypted_size(size)
    with pytest.raises(IntegrityError, match="another path"):
        encfile.decrypt_bytes(source, key, verify_path=source.name)
    with pytest.raises(IntegrityError, match="wrap key"):
        encfile.decrypt_bytes(source, bytes(16), verify_path=None)


def test_no_vector_is_left_out(folder: Path) -> None:
    names = {path.name for path in folder.glob("*.pf")}
    assert names == {f"v{version}-{size}.pf" for version in (1, 2) for size in SIZES}


@pytest.fixture
def tool() -> str:
    found = shutil.which("gramine-sgx-pf-crypt")
    if found is None:
        pytest.skip("gramine-sgx-pf-crypt is not installed")
    return found


@pytest.mark.parametrize("format", [1, 2])
@pytest.mark.parametrize("size", [*SIZES, 396289, 3072 + 2 * GROUP, 3072 + 34 * GROUP + 5])
def test_gramines_tool_reads_what_we_write_and_the_other_way_round(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, format: encfile.Format
) -> None:
    monkeypatch.chdir(tmp_path)
    key, data = os.urandom(16), os.urandom(size)
    Path("key").write_bytes(key)
    Path("in").write_bytes(data)
    workers = 2 if size > GROUP else 1
    encfile.encrypt_file(Path("in"), Path("enc"), key, embedded_path="enc", format=format, workers=workers)
    subprocess.run([tool, "decrypt", "-V", "-w", "key", "-i", "enc", "-o", "out"], check=True, capture_output=True)
    assert Path("out").read_bytes() == data
    subprocess.run([tool, "encrypt", "-w", "key", "-i", "in", "-o", "theirs"], check=True, capture_output=True)
    assert encfile.decrypt_bytes(Path("theirs"), key, verify_path="theirs") == data
