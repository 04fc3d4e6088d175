"""Store and log in a real PostgreSQL server, which restarts, crashes, fills and is bent meanwhile."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog, verify_log
from ensconce.audit.database import DatabaseLog
from ensconce.dashboard.logs import Entries
from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.state.database import DatabaseStore
from ensconce.state.engine import Database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
Clock = Callable[[], int]


class Cluster(Protocol):
    def start(self) -> None: ...
    def stop(self, how: signal.Signals = ...) -> None: ...
    def url(self, database: str) -> str: ...
    def execute(self, database: str, statement: str, *values: object) -> list[tuple[object, ...]]: ...


@pytest.fixture
def opened(cluster: Cluster, database: str) -> Iterator[Database]:
    opened = Database.open(cluster.url(database))
    yield opened
    opened.close()


@pytest.fixture
def store(opened: Database) -> DatabaseStore:
    return DatabaseStore(opened)


@pytest.fixture
def log(opened: Database, clock: Clock) -> AuditLog:
    return AuditLog.open(DatabaseLog(opened), KEY, clock)


def put(store: DatabaseStore, name: str, data: bytes) -> None:
    with store.locked(name) as slot:
        slot.write(data)


def test_documents(store: DatabaseStore, cluster: Cluster, database: str) -> None:
    assert store.read("policy") is None
    with store.locked("policy") as slot:
        assert slot.read() is None
        slot.write(b"\x00\xff")
        assert slot.read() == store.read("policy") == b"\x00\xff"
        put(store, "keystore", b"")  # another document is free meanwhile
    assert store.read("keystore") == b""
    assert DatabaseStore(Database.open(cluster.url(database))).read("policy") == b"\x00\xff"


def test_who_locks_a_document_is_alone_among_connections(store: DatabaseStore, cluster: Cluster, database: str) -> None:
    def count(store: DatabaseStore) -> None:
        for _ in range(10):
            with store.locked("counter") as slot:
                slot.write(str(int(slot.read() or b"0") + 1).encode())

    threads = [threading.Thread(target=count, args=(each,)) for each in (store, store)]
    threads += [
        threading.Thread(target=count, args=(DatabaseStore(Database.open(cluster.url(database))),)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("counter") == b"40"


def test_who_loses_the_connection_loses_the_lock_and_cannot_write(
    store: DatabaseStore, cluster: Cluster, database: str
) -> None:
    put(store, "policy", b"old")
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"

    def write() -> None:
        with store.locked("policy") as slot:
            cluster.execute(database, others, database)
            slot.write(b"new")

    with pytest.raises(UnreachableError, match=r"state\.unreachable"):
        write()
    assert store.read("policy") == b"old"
    put(store, "policy", b"newer")  # the lock went with the connection
    assert store.read("policy") == b"newer"


def test_servers_that_open_a_new_database_at_once(cluster: Cluster, database: str, clock: Clock) -> None:
    failed: list[EnsconceError] = []

    def begin() -> None:
        try:
            opened = Database.open(cluster.url(database))
            AuditLog.open(DatabaseLog(opened), KEY, clock).append("a")
            opened.close()
        except EnsconceError as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert verify_log(DatabaseLog(Database.open(cluster.url(database))), PUBLIC).size == 6


def test_two_servers_append_to_one_log(
    log: AuditLog, opened: Database, cluster: Cluster, database: str, clock: Clock
) -> None:
    other = AuditLog.open(DatabaseLog(Database.open(cluster.url(database))), KEY, clock)

    def append(log: AuditLog, name: str) -> None:
        for number in range(15):
            log.append("a", who=name, number=number)

    threads = [threading.Thread(target=append, args=(each, f"{n}")) for n, each in enumerate((log, log, other, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify_log(DatabaseLog(opened), PUBLIC).size == 60
    order: dict[object, list[object]] = {}
    for entry in log.entries():
        order.setdefault(entry.fields["who"], []).append(entry.fields["number"])
    assert order == {str(n): list(range(15)) for n in range(4)}
    assert log.consistency(7, 60) == other.consistency(7, 60)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_the_database_server_restarts(
    log: AuditLog, store: DatabaseStore, opened: Database, cluster: Cluster, how: signal.Signals
) -> None:
    log.append("a")
    put(store, "policy", b"x")
    cluster.stop(how)
    try:
        for attempt in (lambda: log.append("b"), lambda: store.read("policy"), lambda: put(store, "policy", b"y")):
            with pytest.raises(UnreachableError, match=r"state\.unreachable"):
                attempt()
    finally:
        cluster.start()
    assert log.append("c").seq == 1
    assert store.read("policy") == b"x"
    assert verify_log(DatabaseLog(opened), PUBLIC).size == 2


def test_an_append_whose_connection_dies_is_not_acknowledged(
    log: AuditLog, opened: Database, cluster: Cluster, database: str
) -> None:
    log.append("a")
    cluster.execute(
        database,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$",
    )
    cluster.execute(database, "CREATE TRIGGER die BEFORE UPDATE ON ensconce_log_head EXECUTE FUNCTION die()")
    with pytest.raises(UnreachableError):
        log.append("b")
    cluster.execute(database, "DROP TRIGGER die ON ensconce_log_head")
    assert log.append("c").seq == 1
    assert [entry.event for entry in log.entries()] == ["a", "c"]
    assert verify_log(DatabaseLog(opened), PUBLIC).size == 2


@pytest.mark.parametrize(
    ("statement", "check", "entry"),
    [
        ("UPDATE ensconce_log SET line = overlay(line placing 'X'::bytea from 40) WHERE seq = 2", "audit.", 2),
        ("DELETE FROM ensconce_log WHERE seq = 2", "audit.sequence", 2),
        ("DELETE FROM ensconce_log WHERE seq = 4", "audit.truncated", 4),
        ("UPDATE ensconce_log SET seq = 9 WHERE seq = 1", "audit.sequence", 1),
        ("UPDATE ensconce_log SET line = (SELECT line FROM ensconce_log WHERE seq = 0) WHERE seq = 3", "audit.", 3),
        ("INSERT INTO ensconce_log VALUES (5, 'x')", "audit.tail", 5),
    ],
)
def test_bent_rows_are_named(
    log: AuditLog, opened: Database, cluster: Cluster, database: str, statement: str, check: str, entry: int
) -> None:
    log.append_many([("a", {"n": n}) for n in range(5)])
    cluster.execute(database, statement)
    with pytest.raises(IntegrityError) as caught:
        verify_log(DatabaseLog(opened), PUBLIC)
    assert caught.value.check.startswith(check)
    assert f"entry {entry} " in caught.value.problem


def test_a_reader_sees_one_moment(log: AuditLog, opened: Database) -> None:
    log.append_many([("a", {}) for _ in range(3)])
    with DatabaseLog(opened).view() as view:
        head = view.head
        log.append("b")
        assert view.head == head


def test_who_may_not_is_told(cluster: Cluster, database: str) -> None:
    with pytest.raises(UnreachableError, match="password authentication failed") as caught:
        Database.open(cluster.url(database).replace("correct", "wrong"))
    assert "wrong" not in str(caught.value)
    with pytest.raises(UnreachableError, match="does not exist"):
        Database.open(cluster.url("nowhere"))
    Database.open(cluster.url(database)).close()
    cluster.execute(database, "CREATE ROLE reader LOGIN PASSWORD 'correct horse'")
    with pytest.raises(InputError, match=r"state\.open"):
        Database.open(cluster.url(database).replace("ensconce:", "reader:"))
    cluster.execute(database, "DROP ROLE reader")


def test_commits_are_durable_whatever_the_server_was_told(cluster: Cluster, database: str) -> None:
    cluster.execute(database, f"ALTER DATABASE {database} SET synchronous_commit = off")
    opened = Database.open(cluster.url(database))
    with opened.reading() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "20s"
    opened.close()


def test_a_dashboard_follows_a_log_in_the_database(
    log: AuditLog, opened: Database, cluster: Cluster, database: str
) -> None:
    entries = Entries(DatabaseLog(opened), PUBLIC)
    log.append("key.released", key_ids=["model/digits/1"])
    log.append("key.refused", peer="192.0.2.1:5")
    assert entries.look().bent is None
    assert [each.event for each in entries.recent] == ["key.refused", "key.released"]
    cluster.stop()
    try:
        away = entries.look()
    finally:
        cluster.start()
    assert (away.bent, away.error and away.error.check) == (None, "state.unreachable")
    log.append("key.refused", peer="192.0.2.1:6")
    again = entries.look()
    assert (again.error, again.bent) == (None, None)
    assert [each.seq for each in entries.recent] == [2, 1, 0]
    cluster.execute(database, "DELETE FROM ensconce_log_head")
    gone = entries.look()
    assert gone.bent is not None
