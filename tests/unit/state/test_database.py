"""SQLite as the store of documents, and the URLs of databases; what both stores do is in test_store.py."""

from __future__ import annotations

import builtins
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.state.database import DatabaseStore
from ensconce.state.engine import Database, read_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def database(file: Path) -> Iterator[Database]:
    database = Database.open_sqlite(file)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> DatabaseStore:
    return DatabaseStore(database)


def put(store: DatabaseStore, name: str, data: bytes) -> None:
    with store.locked(name) as slot:
        slot.write(data)


def test_a_document_of_another_type_is_refused(store: DatabaseStore, file: Path) -> None:
    put(store, "policy", b"x")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE ensconce_documents SET data = 7")
    connection.close()
    with pytest.raises(InputError, match=r"state\.read"):
        store.read("policy")


def test_nobody_else_may_read_the_file_or_its_journal(store: DatabaseStore, tmp_path: Path) -> None:
    put(store, "keystore", b"x")
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "state.db": 0o600,
        "state.db-wal": 0o600,
        "state.db-shm": 0o600,
        ".state.db.keystore.lock": 0o600,
    }


def test_opening_the_file_twice_leaves_the_journal_to_who_writes_it(store: DatabaseStore, file: Path) -> None:
    """POSIX locks: whoever closes any descriptor of a file drops the locks that its process has on it.

    Another process that closes the database then takes itself for the last, and deletes the journal that is written to.
    """
    put(store, "policy", b"one")
    Database.open(f"sqlite:///{file}")
    look = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('select count(*) from ensconce_documents')"
    subprocess.run([sys.executable, "-c", f"{look}.fetchone(); c.close()"], check=True)
    put(store, "policy", b"two")
    with contextlib.closing(sqlite3.connect(file)) as other:
        assert other.execute("select data from ensconce_documents").fetchall() == [(b"two",)]


def test_what_is_no_file_is_refused(file: Path) -> None:
    file.symlink_to(file.with_name("elsewhere.db"))
    with pytest.raises(InputError, match=r"state\.open"):
        Database.open_sqlite(file)


def test_commits_reach_the_disk(database: Database) -> None:
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_many_open_a_new_database_at_once(tmp_path: Path) -> None:
    failed: list[EnsconceError] = []

    def make() -> None:
        try:
            Database.open_sqlite(tmp_path / "new.db").close()
        except EnsconceError as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_tables_of_another_version_are_refused(database: Database, file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE ensconce_schema SET version = 2")
    connection.close()
    with pytest.raises(InputError, match=r"state\.version") as caught:
        Database.open_sqlite(file)
    assert caught.value.found == "2"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"this is not a database" * 100)
    with pytest.raises(IntegrityError, match=r"state\.damaged"):
        Database.open_sqlite(tmp_path / "x")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "no" / "x", tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match=r"state\.open"):
            Database.open_sqlite(path)


def test_a_full_disk_is_told_and_leaves_the_old_document(store: DatabaseStore, database: Database) -> None:
    put(store, "policy", b"old")
    with database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    # Each connection has its own limit; the pool gives this thread the same one again.
    with database.reading() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InputError, match=r"state\.write"):
        put(store, "policy", bytes(1 << 20))
    assert store.read("policy") == b"old"


def test_a_busy_database_is_out_of_reach(
    store: DatabaseStore, database: Database, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.reading() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnreachableError, match=r"state\.unreachable"):
        put(store, "policy", b"x")
    other.execute("ROLLBACK")
    other.close()
    put(store, "policy", b"x")


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://user:secret@host/db",
        "sqlite://",
        "sqlite:///relative.db",
        "sqlite:///:memory:",
        "sqlite:////tmp/x.db?mode=ro",
        "postgresql+pg8000://user:secret@host/db",
        "http://user:secret@host:port/",
    ],
)
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(InputError, match=r"state\.url") as caught:
        Database.open(url)
    assert "secret" not in str(caught.value)


def test_the_url_file_is_private_and_short(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("postgresql://host/db\n")
    path.chmod(0o600)
    assert read_url(path) == "postgresql://host/db"
    path.chmod(0o640)
    with pytest.raises(InputError, match=r"state\.url_file") as caught:
        read_url(path)
    assert caught.value.found == "mode 0640"
    path.chmod(0o600)
    for content in (b"", b"\n", b"one two", b"\xff\xfe", b"a\nb\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"state\.url_file"):
            read_url(path)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match=r"file\.size"):
        read_url(path)
    with pytest.raises(InputError, match=r"file\.read"):
        read_url(tmp_path / "none")


def test_without_the_driver_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "psycopg":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"state\.driver"):
        Database.open("postgresql://user:secret@127.0.0.1/db")


def test_no_server_there_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"state\.unreachable") as caught:
        Database.open(f"postgresql://user:secret@/db?host={tmp_path}")
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in str(error)
        error = error.__cause__
    assert os.fspath(tmp_path) in str(caught.value)


@pytest.fixture
def sslmode(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Which one the driver is given for a URL."""
    psycopg = pytest.importorskip("psycopg")
    seen: dict[str, object] = {}

    def connect(*_: object, **arguments: object) -> None:
        seen.update(arguments)
        raise psycopg.OperationalError("no")

    def open_(url: str) -> object:
        with pytest.raises(UnreachableError):
            Database.open(url)
        return seen.get("sslmode")

    monkeypatch.setattr(psycopg, "connect", connect)
    for variable in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    return open_


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://u@db.example/x", "verify-full"),
        ("postgresql://u@10.0.0.7/x", "verify-full"),
        ("postgresql://u@/x?host=/run/a&host=db.example", "verify-full"),
        ("postgresql://u@localhost/x?hostaddr=10.0.0.7", "verify-full"),
        ("postgresql://u@localhost/x?service=far", "verify-full"),
        ("postgresql://u@db.example/x?sslmode=require", "require"),
        ("postgresql://u@127.0.0.1/x", None),
        ("postgresql://u@localhost/x?hostaddr=127.0.0.1", None),
        ("postgresql://u@/x?host=/run/postgresql", None),
        ("postgresql://u@/x", None),
    ],
)
def test_another_machine_must_prove_who_it_is(url: str, mode: str | None, sslmode: Callable[[str], object]) -> None:
    assert sslmode(url) == mode


@pytest.mark.parametrize(
    ("variable", "value", "url", "mode"),
    [
        ("PGHOST", "db.example", "postgresql://u@/x", "verify-full"),
        ("PGHOST", "/run/postgresql", "postgresql://u@/x", None),
        ("PGHOST", "db.example", "postgresql://u@localhost/x", None),
        ("PGHOST", "db.example", "postgresql://u@/x?host=/run/postgresql", None),
        ("PGHOSTADDR", "10.0.0.7", "postgresql://u@localhost/x", "verify-full"),
        ("PGHOSTADDR", "10.0.0.7", "postgresql://u@localhost/x?hostaddr=127.0.0.1", None),
        ("PGSERVICE", "far", "postgresql://u@localhost/x", "verify-full"),
    ],
)
def test_also_one_that_the_environment_names(
    variable: str,
    value: str,
    url: str,
    mode: str | None,
    sslmode: Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    assert sslmode(url) == mode
