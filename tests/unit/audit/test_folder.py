"""What may lie in the place of a log's files, and is not taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog, verify_log
from ensconce.audit.storage import HEAD, LOG
from ensconce.errors import InputError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AuditLog.open(tmp_path / "audit", KEY, lambda: 0).append("a")
    return tmp_path / "audit"


def refused(folder: Path, check: str) -> None:
    with pytest.raises(InputError) as caught:
        AuditLog.open(folder, KEY, lambda: 0).append("b")
    assert caught.value.check == check


def test_a_file_in_the_place_of_the_folder_or_its_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "audit.open")
    refused(tmp_path / "file" / "audit", "audit.open")


def test_a_link_in_the_place_of_the_log_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / LOG).rename(tmp_path / "elsewhere")
    (folder / LOG).symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    refused(folder, "audit.write")
    assert (tmp_path / "elsewhere").read_bytes() == before


def test_a_link_in_the_place_of_the_lock_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(tmp_path / "elsewhere")
    refused(folder, "audit.lock")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_in_the_place_of_the_head(folder: Path) -> None:
    (folder / HEAD).unlink()
    (folder / HEAD).mkdir()
    refused(folder, "audit.read")
    with pytest.raises(InputError) as caught:
        verify_log(folder, KEY.public_key())
    assert caught.value.check == "audit.read"
