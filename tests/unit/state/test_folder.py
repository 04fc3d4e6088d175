"""What only the store in a folder does; what both do is in test_store.py."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ensconce.errors import InputError
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "state")


def put(store: Store, name: str, data: bytes) -> None:
    with store.locked(name) as slot:
        slot.write(data)


def test_nobody_else_may_read(store: FolderStore, tmp_path: Path) -> None:
    put(store, "keystore", b"x")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in (tmp_path / "state").iterdir())


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(tmp_path / "file")
    with pytest.raises(InputError, match=r"state\.lock"), store.locked("policy"):
        pass
    with pytest.raises(InputError, match=r"state\.read"):
        store.read("policy")
    with pytest.raises(InputError, match=r"state\.lock"), FolderStore(tmp_path / "no" / "parent").locked("policy"):
        pass


def test_a_link_is_not_followed(store: FolderStore, tmp_path: Path) -> None:
    put(store, "policy", b"x")
    (tmp_path / "state" / "policy").unlink()
    (tmp_path / "state" / "policy").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"state\.read"):
        store.read("policy")


def test_a_full_disk_keeps_the_old_document(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "policy", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"state\.write"):
        put(store, "policy", b"new")
    monkeypatch.undo()
    assert store.read("policy") == b"old"


def test_what_a_killed_holder_left_is_cleared_away(store: FolderStore, tmp_path: Path) -> None:
    put(store, "a", b"x")
    mine, others = tmp_path / "state" / ".a.abcd_123.part", tmp_path / "state" / ".a.b.abcd_123.part"
    mine.touch()
    others.touch()
    put(store, "a", b"y")
    assert not mine.exists()
    assert others.exists()
