from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ensconce.errors import InputError
from ensconce.state import folder as folder_module
from ensconce.state import store as store_module
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "state")


def put(store: Store, name: str, data: bytes) -> None:
    with store.locked(name) as slot:
        slot.write(data)


def test_a_document_is_none_until_it_is_written(store: FolderStore) -> None:
    assert store.read("policy") is None
    with store.locked("policy") as slot:
        assert slot.read() is None
        slot.write(b"one")
        assert slot.read() == b"one"
    assert store.read("policy") == b"one"
    put(store, "policy", b"")
    assert store.read("policy") == b""


def test_documents_are_apart(store: FolderStore) -> None:
    for name in ("a", "a/b", "a.b", "a-b", "a/b/c"):
        put(store, name, name.encode())
    assert [store.read(name) for name in ("a", "a/b", "a.b", "a-b", "a/b/c")] == [
        b"a",
        b"a/b",
        b"a.b",
        b"a-b",
        b"a/b/c",
    ]


def test_nobody_else_may_read(store: FolderStore, tmp_path: Path) -> None:
    put(store, "keystore", b"x")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in (tmp_path / "state").iterdir())


@pytest.mark.parametrize("name", ["", "../x", "/a", "a/", "a//b", ".hidden", "A", "a_b", "a\n", "é", "a" * 101])
def test_refuses_what_is_not_a_name(store: FolderStore, name: str) -> None:
    with pytest.raises(InputError, match=r"state\.name"):
        store.read(name)
    with pytest.raises(InputError, match=r"state\.name"), store.locked(name):
        pass


def test_refuses_a_document_that_is_too_long(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "policy", b"12345")
    for module in (folder_module, store_module):
        monkeypatch.setattr(module, "MAX_DOCUMENT", 4)
    with pytest.raises(InputError, match=r"state\.read"):
        store.read("policy")
    with pytest.raises(InputError, match=r"state\.write"):
        put(store, "policy", b"12345")
    put(store, "policy", b"1234")
    assert store.read("policy") == b"1234"


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


def test_threads_take_turns(store: FolderStore) -> None:
    def count() -> None:
        for _ in range(20):
            with store.locked("counter") as slot:
                slot.write(str(int(slot.read() or b"0") + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("counter") == b"80"


def test_waits_for_whoever_holds_it(store: FolderStore, wait_for: Callable[[Callable[[], object], str], None]) -> None:
    done = threading.Event()

    def other() -> None:
        put(store, "policy", b"second")
        done.set()

    with store.locked("policy") as slot:
        threading.Thread(target=other, daemon=True).start()
        with store.locked("keystore"):  # another document is free meanwhile
            slot.write(b"first")
        assert not done.is_set()
        assert store.read("policy") == b"first"
    wait_for(done.is_set, "the other")
    assert store.read("policy") == b"second"


def test_what_a_killed_holder_left_is_cleared_away(store: FolderStore, tmp_path: Path) -> None:
    put(store, "a", b"x")
    mine, others = tmp_path / "state" / ".a.abcd_123.part", tmp_path / "state" / ".a.b.abcd_123.part"
    mine.touch()
    others.touch()
    put(store, "a", b"y")
    assert not mine.exists()
    assert others.exists()
