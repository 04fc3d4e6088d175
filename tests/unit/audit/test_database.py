"""The log in SQLite: the folder's guarantees, where each way to bend it is a change of rows."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog, read_entries, verify_log
from ensconce.audit.database import DatabaseLog
from ensconce.audit.entry import MAX_LINE
from ensconce.audit.storage import Position
from ensconce.errors import InputError, IntegrityError, UnreachableError
from ensconce.state.engine import Database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
SIZE = 5


def clock() -> int:
    return 1_769_860_800


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open_sqlite(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
def storage(database: Database) -> DatabaseLog:
    return DatabaseLog(database)


@pytest.fixture
def log(storage: DatabaseLog) -> AuditLog:
    log = AuditLog.open(storage, KEY, clock)
    log.append_many([("a", {"n": n}) for n in range(SIZE)])
    return log


@pytest.fixture
def change(tmp_path: Path) -> Callable[..., None]:
    def execute(statement: str, *values: object) -> None:
        with sqlite3.connect(tmp_path / "state.db") as connection:
            connection.execute(statement, values)
        connection.close()

    return execute


def test_it_holds_what_a_folder_would(log: AuditLog, storage: DatabaseLog, tmp_path: Path) -> None:
    folder = AuditLog.open(tmp_path / "audit", KEY, clock)
    folder.append_many([("a", {"n": n}) for n in range(SIZE)])
    assert list(log.entries()) == list(folder.entries())
    assert verify_log(storage, PUBLIC) == verify_log(tmp_path / "audit", PUBLIC) == log.head()
    assert log.consistency(2, SIZE) == folder.consistency(2, SIZE)
    with storage.view() as view:
        assert b"".join(view.lines(Position(0, 0))) == (tmp_path / "audit" / "log.jsonl").read_bytes()


def test_two_writers_take_turns(log: AuditLog, storage: DatabaseLog, tmp_path: Path) -> None:
    other_database = Database.open_sqlite(tmp_path / "state.db")
    other = AuditLog.open(DatabaseLog(other_database), KEY, clock)
    for number in range(4):
        assert log.append("b").seq == SIZE + 2 * number
        assert other.append("c").seq == SIZE + 2 * number + 1
    assert verify_log(storage, PUBLIC).size == SIZE + 8
    other_database.close()


@pytest.mark.parametrize("at", range(SIZE))
def test_a_changed_row_is_named(log: AuditLog, storage: DatabaseLog, change: Callable[..., None], at: int) -> None:
    change("UPDATE ensconce_log SET line = replace(line, '\"n\":', '\"n\":1') WHERE seq = ?", at)
    for judge in (lambda: verify_log(storage, PUBLIC), lambda: AuditLog.open(storage, KEY, clock)):
        with pytest.raises(IntegrityError, match=f"entry {at} "):
            judge()


@pytest.mark.parametrize("at", range(SIZE))
def test_a_removed_row_is_named(log: AuditLog, storage: DatabaseLog, change: Callable[..., None], at: int) -> None:
    change("DELETE FROM ensconce_log WHERE seq = ?", at)
    with pytest.raises(IntegrityError, match=f"entry {at} "):
        verify_log(storage, PUBLIC)
    with pytest.raises(IntegrityError, match=f"entry {at} "):
        list(read_entries(storage)) and verify_log(storage, PUBLIC)


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(range(SIZE), 2)))
def test_exchanged_rows_are_named(
    log: AuditLog, storage: DatabaseLog, change: Callable[..., None], one: int, two: int
) -> None:
    for old, new in ((one, 1000), (two, one), (1000, two)):
        change("UPDATE ensconce_log SET seq = ? WHERE seq = ?", new, old)
    with pytest.raises(IntegrityError, match=f"entry {one} "):
        verify_log(storage, PUBLIC)


@pytest.mark.parametrize("value", ["text", 5, None, 1.5, b"", bytes(MAX_LINE + 2)])
def test_a_row_of_another_kind_is_named(
    log: AuditLog, storage: DatabaseLog, change: Callable[..., None], value: object
) -> None:
    change("PRAGMA ignore_check_constraints = 1")
    statement = "UPDATE ensconce_log SET line = ? WHERE seq = 3"
    if value is None:
        change("DELETE FROM ensconce_log WHERE seq = 3")
        statement = "INSERT INTO ensconce_log VALUES ('3', coalesce(?, 0))"
    change(statement, value)
    with pytest.raises(IntegrityError, match="entry 3 "):
        verify_log(storage, PUBLIC)


def test_what_follows_the_head_did_not_come_of_a_crash(
    log: AuditLog, storage: DatabaseLog, change: Callable[..., None]
) -> None:
    head = log.head().to_bytes()
    log.append("b")
    change("UPDATE ensconce_log_head SET head = ?", head)
    for judge in (lambda: verify_log(storage, PUBLIC), lambda: AuditLog.open(storage, KEY, clock)):
        with pytest.raises(IntegrityError) as caught:
            judge()
        assert caught.value.check == "audit.tail"
    # A writer that had not seen the entry finds the row taken.
    with pytest.raises(IntegrityError, match="audit"):
        log.append("c")


def test_a_row_that_waits_for_the_writer_stops_it(log: AuditLog, change: Callable[..., None]) -> None:
    change("INSERT INTO ensconce_log VALUES (?, x'00')", SIZE)
    with pytest.raises(IntegrityError) as caught:
        log.append("b")
    assert caught.value.check == "audit.tail"


@pytest.mark.parametrize("value", [b"", b"{}\n", "text", 7, bytes(5000)])
def test_a_changed_head(log: AuditLog, storage: DatabaseLog, change: Callable[..., None], value: object) -> None:
    change("UPDATE ensconce_log_head SET head = ?", value)
    with pytest.raises(IntegrityError) as caught:
        verify_log(storage, PUBLIC)
    assert caught.value.check == "audit.head"
    with pytest.raises(IntegrityError):
        log.append("b")


def test_an_earlier_head_and_its_log_stop_a_running_writer(log: AuditLog, change: Callable[..., None]) -> None:
    head = log.head().to_bytes()
    log.append("b")
    change("UPDATE ensconce_log_head SET head = ?", head)
    change("DELETE FROM ensconce_log WHERE seq = ?", SIZE)
    with pytest.raises(IntegrityError, match="put back"):
        log.append("c")


def test_an_emptied_database_is_not_begun_anew(
    log: AuditLog, storage: DatabaseLog, change: Callable[..., None]
) -> None:
    change("DELETE FROM ensconce_log_head")
    for judge in (lambda: verify_log(storage, PUBLIC), lambda: AuditLog.open(storage, KEY, clock)):
        with pytest.raises(IntegrityError, match=r"audit\.head"):
            judge()
    with pytest.raises(IntegrityError, match=r"audit\.head"):
        log.append("b")
    change("DELETE FROM ensconce_log")
    with pytest.raises(InputError) as caught:
        AuditLog.open(storage, KEY, clock, begin=False)
    assert caught.value.check == "audit.missing"
    with pytest.raises(IntegrityError):
        log.append("b")


def test_an_append_that_fails_leaves_nothing(log: AuditLog, storage: DatabaseLog, change: Callable[..., None]) -> None:
    change("CREATE TRIGGER full BEFORE UPDATE ON ensconce_log_head BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises((InputError, UnreachableError)):
        log.append("b")
    change("DROP TRIGGER full")
    assert verify_log(storage, PUBLIC).size == SIZE
    assert log.append("c").seq == SIZE


@pytest.mark.parametrize("table", ["ensconce_log", "ensconce_log_head"])
@pytest.mark.parametrize("drop", ["BEFORE {} ON {} BEGIN SELECT RAISE(IGNORE)", "AFTER {} ON {} BEGIN DELETE FROM {}"])
def test_what_a_trigger_drops_is_not_acknowledged(
    log: AuditLog, storage: DatabaseLog, change: Callable[..., None], drop: str, table: str
) -> None:
    action = "INSERT" if table == "ensconce_log" else "UPDATE"
    change(f"CREATE TRIGGER thief {drop.format(action, table, table)}; END")
    for _ in range(2):
        with pytest.raises((IntegrityError, UnreachableError)):
            log.append("key.released")
    assert verify_log(storage, PUBLIC).size == SIZE
    change("DROP TRIGGER thief")
    log.append("key.released")
    assert verify_log(storage, PUBLIC).size == SIZE + 1


def test_a_log_longer_than_a_page(log: AuditLog, storage: DatabaseLog) -> None:
    log.append_many([("b", {"n": n}) for n in range(200)])
    assert verify_log(storage, PUBLIC).size == SIZE + 200
    assert [entry.seq for entry in read_entries(storage)] == list(range(SIZE + 200))
