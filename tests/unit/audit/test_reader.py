from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog, Entry, verify_log
from ensconce.audit.database import DatabaseLog
from ensconce.audit.folder import FolderLog
from ensconce.audit.reader import LogReader
from ensconce.audit.storage import HeldLog, LogStorage, LogView, Position
from ensconce.errors import InputError, IntegrityError
from ensconce.state.engine import Database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def reader(storage: LogStorage) -> LogReader:
    return LogReader(storage, KEY.public_key(), lambda entry: entry.event == "a")


def seen(log: LogReader) -> list[int]:
    return [entry.seq for entry in log.entries()]


@pytest.fixture(params=["folder", "database"])
def storage(tmp_path: Path, request: pytest.FixtureRequest) -> LogStorage:
    if request.param == "folder":
        return FolderLog(tmp_path / "audit")
    return DatabaseLog(Database.open_sqlite(tmp_path / "state.db"))


def test_it_reads_what_was_added(storage: LogStorage) -> None:
    log = AuditLog.open(storage, KEY, lambda: 0)
    follower = reader(storage)
    assert seen(follower) == []
    log.append("a")
    log.append("b")
    assert seen(follower) == [0]
    log.append("a", n=1)
    assert seen(follower) == [0, 2]
    assert seen(follower) == seen(reader(storage)) == [0, 2]


def test_a_log_that_is_not_there_is_told(storage: LogStorage) -> None:
    with pytest.raises((IntegrityError, InputError)):
        reader(storage).entries()


class TestBentLogs:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        log = AuditLog.open(tmp_path / "audit", KEY, lambda: 0)
        for _ in range(3):
            log.append("a")
        return tmp_path / "audit"

    def test_one_that_went_back_is_refused_until_it_goes_on(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "earlier")
        AuditLog.open(folder, KEY, lambda: 0).append("a")
        follower = reader(FolderLog(folder))
        assert seen(follower) == [0, 1, 2, 3]
        folder.rename(tmp_path / "later")
        shutil.copytree(tmp_path / "earlier", folder)
        for _ in range(2):
            with pytest.raises(IntegrityError, match="put back to an earlier one"):
                follower.entries()
        shutil.rmtree(folder)
        (tmp_path / "later").rename(folder)
        assert seen(follower) == [0, 1, 2, 3]

    def test_another_that_the_owner_wrote_too_is_refused(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "fork")
        follower = reader(FolderLog(folder))
        AuditLog.open(folder, KEY, lambda: 0).append("a", n=1)
        assert seen(follower) == [0, 1, 2, 3]
        fork = AuditLog.open(tmp_path / "fork", KEY, lambda: 0)
        for n in (2, 3):
            fork.append("a", n=n)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "fork", folder)
        with pytest.raises(IntegrityError):
            follower.entries()

    def test_a_change_in_what_was_added_is_refused(self, folder: Path) -> None:
        follower = reader(FolderLog(folder))
        (folder / "log.jsonl").write_bytes((folder / "log.jsonl").read_bytes().replace(b'"seq":1', b'"seq":7'))
        with pytest.raises(IntegrityError) as caught:
            follower.entries()
        assert caught.value.check == "audit.sequence"


class Turncoat:
    """A log whose lines, once they were read, are those of another: a database can do that, and so can a disk."""

    leaves_tail = True

    def __init__(self, first: FolderLog, then: FolderLog) -> None:
        self.readings = [first, then, then]
        self._head = first

    def prepare(self) -> None:
        pass

    @contextlib.contextmanager
    def view(self) -> Iterator[LogView]:
        with self._head.view() as view:
            self.head = view.head
            yield self

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldLog]:
        with self._head.held() as held:
            yield held

    def lines(self, after: Position) -> Iterator[bytes]:
        with self.readings.pop(0).view() as view:
            yield from view.lines(after)


class TestLogsThatChangeBetweenTwoReadings:
    """What was checked is what is given, so that a retired key does not come back."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Turncoat:
        folders = tmp_path / "genuine", tmp_path / "forged"
        stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
        for folder, key, event in zip(folders, (KEY, stranger), ("key.retired", "key.spared"), strict=True):
            AuditLog.open(folder, key, lambda: 0).append(event, key_id="secret/a")
        return Turncoat(*map(FolderLog, folders))

    def test_a_reader(self, storage: Turncoat) -> None:
        entries = LogReader(storage, KEY.public_key(), lambda _: True).entries()
        assert [entry.event for entry in entries] == ["key.retired"]

    def test_a_verifier(self, storage: Turncoat) -> None:
        entries: list[Entry] = []
        with contextlib.suppress(IntegrityError):  # what follows the head is read again
            verify_log(storage, KEY.public_key(), entries.append)
        assert [entry.event for entry in entries] == ["key.retired"]

    def test_the_writer(self, storage: Turncoat) -> None:
        log = AuditLog.open(storage, KEY, lambda: 0)
        storage.readings.pop(0)
        with pytest.raises(IntegrityError):
            list(log.entries())
