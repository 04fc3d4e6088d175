"""A store in a database: a row for each document."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ensconce.errors import InputError
from ensconce.files import holding
from ensconce.state.engine import DOCUMENTS, Database
from ensconce.state.store import MAX_DOCUMENT, check_name, check_size

__all__ = ["DatabaseStore"]


class DatabaseStore:
    """Documents in a database, for all machines that reach it; the protocol is :class:`Store`.

    A document's lock is not the database's own write lock, because its holder may write the log meanwhile, and because
    what a slot writes is durable at once. With SQLite, which is for one machine, it is a file beside the database, held
    with ``flock``; with PostgreSQL a session's advisory lock, which ends with the connection: a slot writes through
    that same connection, so whoever has lost the lock cannot write.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, name: str) -> bytes | None:
        """The document as it was last written, None when there is none yet.

        Raises:
            InputError: ``state.name``; ``state.read``: it is longer than ``MAX_DOCUMENT``.
            UnreachableError: ``state.unreachable``.
        """
        check_name(name)
        with self._database.reading() as connection:
            return _read(connection, name)

    def locked(self, name: str) -> AbstractContextManager[_Slot]:
        """Hold one document alone; waits for whoever holds it. Not re-entrant.

        Raises:
            InputError: ``state.name``; ``state.lock``: the lock file cannot be written.
            UnreachableError: ``state.unreachable``; also when somebody has held it for too long.
        """
        check_name(name)
        file = self._database.sqlite_file
        return self._locked_session(name) if file is None else self._locked_file(name, file)

    @contextlib.contextmanager
    def _locked_file(self, name: str, file: Path) -> Iterator[_Slot]:
        path = file.with_name(f".{file.name}.{name.replace('/', '_')}.lock")
        with holding(path, "state.lock", name):
            yield _Slot(name, self._database.reading, self._database.writing)

    @contextlib.contextmanager
    def _locked_session(self, name: str) -> Iterator[_Slot]:
        key = int.from_bytes(hashlib.sha256(b"ensconce/state/document/" + name.encode()).digest()[:8], signed=True)
        with self._database.session() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_lock(key)))
            try:
                same = contextlib.nullcontext(connection)
                yield _Slot(name, lambda: same, lambda: same)
            finally:
                try:
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
                except BaseException:
                    connection.invalidate()  # closed for good, and the lock with it
                    raise


class _Slot:
    def __init__(
        self,
        name: str,
        reading: Callable[[], AbstractContextManager[Connection]],
        writing: Callable[[], AbstractContextManager[Connection]],
    ) -> None:
        self._name = name
        self._reading = reading
        self._writing = writing

    def read(self) -> bytes | None:
        with self._reading() as connection:
            return _read(connection, self._name)

    def write(self, data: bytes) -> None:
        check_size("state.write", self._name, data)
        with self._writing() as connection:
            # Nobody else can write this row between the two.
            changed = connection.execute(sa.update(DOCUMENTS).where(DOCUMENTS.c.name == self._name).values(data=data))
            if changed.rowcount == 0:
                connection.execute(sa.insert(DOCUMENTS).values(name=self._name, data=data))


def _read(connection: Connection, name: str) -> bytes | None:
    bounded = sa.func.substr(DOCUMENTS.c.data, 1, MAX_DOCUMENT + 1)
    row = connection.execute(sa.select(DOCUMENTS.c.name, bounded).where(DOCUMENTS.c.name == name)).first()
    if row is None:
        return None
    data = b"" if row[1] is None else row[1]  # SQLite's substr has NULL for what is empty
    if not isinstance(data, bytes):  # and its columns take values of any type
        raise InputError("state.read", f"the document {name} is no bytes", remedy="restore the database from a backup")
    check_size("state.read", name, data)
    return data
