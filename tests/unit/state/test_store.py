"""What both stores of documents do alike: the one in a folder, and the one in a database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ensconce.errors import InputError
from ensconce.state import database as database_module
from ensconce.state import folder as folder_module
from ensconce.state import store as store_module
from ensconce.state.database import DatabaseStore
from ensconce.state.engine import Database
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store

Open = Callable[[], Store]


@pytest.fixture(params=["folder", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_store(kind: str, tmp_path: Path) -> Iterator[Open]:
    """Opens the documents as another process would; the same ones each time."""
    databases: list[Database] = []

    def open_() -> Store:
        if kind == "folder":
            return FolderStore(tmp_path / "state")
        databases.append(Database.open_sqlite(tmp_path / "state.db"))
        return DatabaseStore(databases[-1])

    yield open_
    for database in databases:
        database.close()


@pytest.fixture
def store(open_store: Open) -> Store:
    return open_store()


@pytest.fixture
def modules(kind: str) -> list[ModuleType]:
    """Those that know how long a document may be."""
    return [folder_module if kind == "folder" else database_module, store_module]


def put(store: Store, name: str, data: bytes) -> None:
    with store.locked(name) as slot:
        slot.write(data)


def test_a_document_is_none_until_it_is_written(store: Store, open_store: Open) -> None:
    assert store.read("policy") is None
    with store.locked("policy") as slot:
        assert slot.read() is None
        slot.write(b"one")
        assert slot.read() == b"one"
        # Durable at once, for whoever looks, before the lock is let go of.
        assert open_store().read("policy") == b"one"
    assert store.read("policy") == b"one"
    put(store, "policy", b"")
    assert store.read("policy") == b""
    assert store.read("policy.2") is None


def test_documents_are_apart(store: Store) -> None:
    names = ("a", "a/b", "a.b", "a-b", "a/b/c")
    for name in names:
        put(store, name, name.encode())
    assert [store.read(name) for name in names] == [name.encode() for name in names]


def test_what_the_holder_writes_stays_when_it_fails_afterwards(store: Store) -> None:
    def fail() -> None:
        with store.locked("policy") as slot:
            slot.write(b"one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.read("policy") == b"one"


def test_other_documents_are_free_meanwhile(store: Store) -> None:
    with store.locked("policy") as slot:
        put(store, "keystore", b"x")
        slot.write(b"y")
    assert (store.read("keystore"), store.read("policy")) == (b"x", b"y")


@pytest.mark.parametrize("name", ["", "../x", "/a", "a/", "a//b", ".hidden", "A", "a b", "a_b", "a\n", "é", "a" * 101])
def test_refuses_what_is_not_a_name(store: Store, name: str) -> None:
    with pytest.raises(InputError, match=r"state\.name"):
        store.read(name)
    with pytest.raises(InputError, match=r"state\.name"), store.locked(name):
        pass


def test_refuses_a_document_that_is_too_long(
    store: Store, modules: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "policy", b"12345")
    for module in modules:
        monkeypatch.setattr(module, "MAX_DOCUMENT", 4)
    with pytest.raises(InputError, match=r"state\.read"):
        store.read("policy")
    with pytest.raises(InputError, match=r"state\.write"):
        put(store, "policy", b"12345")
    put(store, "policy", b"1234")
    assert store.read("policy") == b"1234"


def test_threads_take_turns_and_so_does_whoever_opens_it_too(store: Store, open_store: Open) -> None:
    def count(store: Store) -> None:
        for _ in range(20):
            with store.locked("counter") as slot:
                slot.write(str(int(slot.read() or b"0") + 1).encode())

    threads = [threading.Thread(target=count, args=(each,)) for each in (store, store, open_store(), open_store())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("counter") == b"80"


def test_waits_for_whoever_holds_it(
    store: Store, open_store: Open, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    begun, done = threading.Event(), threading.Event()
    mine = open_store()

    def other() -> None:
        begun.set()
        put(mine, "policy", b"second")
        done.set()

    with store.locked("policy") as slot:
        threading.Thread(target=other, daemon=True).start()
        wait_for(begun.is_set, "the other to come")
        with store.locked("keystore"):  # another document is free meanwhile
            slot.write(b"first")
        assert not done.is_set()
        assert store.read("policy") == b"first"
    wait_for(done.is_set, "the other")
    assert store.read("policy") == b"second"
