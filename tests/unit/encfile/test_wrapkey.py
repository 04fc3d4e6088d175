from __future__ import annotations

import os
from pathlib import Path

import pytest

from ensconce import encfile
from ensconce.errors import InputError


def test_sixteen_raw_bytes(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(range(16)))
    assert encfile.read_wrap_key(tmp_path / "key") == bytes(range(16))


@pytest.mark.parametrize("content", [b"", bytes(15), bytes(17), bytes(32), bytes(5000)])
def test_other_lengths(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(InputError) as caught:
        encfile.read_wrap_key(tmp_path / "key")
    assert f"> {tmp_path}" not in caught.value.remedy, "advice to overwrite a file that may be worth something"


def test_hexadecimal_digits_are_recognised_but_never_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("00112233445566778899aabbccddeeff\n")
    with pytest.raises(InputError, match="xxd") as caught:
        encfile.read_wrap_key(tmp_path / "key")
    assert "0011" not in str(caught.value)


def test_missing_key_and_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe"):
        with pytest.raises(InputError):
            encfile.read_wrap_key(tmp_path / name)


def test_wrong_length_in_the_library(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    with pytest.raises(InputError, match="17 bytes"):
        encfile.encrypt_file(tmp_path / "in", tmp_path / "out", bytes(17), embedded_path="x")
    with pytest.raises(InputError, match="15 bytes"):
        encfile.decrypt_bytes(b"", bytes(15), verify_path=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
