"""A log in a database: a row for each line, one row for the head, and one transaction for every append."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError as RowExists

from ensconce.audit.entry import MAX_LINE, damaged
from ensconce.audit.head import MAX_HEAD
from ensconce.audit.storage import HeldLog, LogView, Position
from ensconce.errors import IntegrityError
from ensconce.state.engine import LOG_HEAD, LOG_LINES, Database

__all__ = ["DatabaseLog"]

_LOCK = 0x656E73636F6E6301
_PAGE = 64


class DatabaseLog:
    """The log in ``database``; the protocol is :class:`~ensconce.audit.storage.LogStorage`.

    Lines and heads are the same bytes as in a folder. Lines and head change in one transaction, so a crash leaves no
    line without a head; whatever follows the head was put there by somebody else.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def prepare(self) -> None:
        """Nothing: the tables were made when the database was opened."""

    @contextlib.contextmanager
    def view(self) -> Iterator[LogView]:
        """Log and head of one moment: one transaction, whatever others append meanwhile.

        Raises:
            UnreachableError: ``state.unreachable``.
        """
        with self._database.reading() as connection:
            yield _Rows(connection)

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldLog]:
        """The log, held alone by a transaction that is committed when the block has ended well.

        Raises:
            InputError: ``state.write``.
            UnreachableError: ``state.unreachable``; where it comes of the commit, nobody knows whether the entries are
                in the log. They count as not recorded.
        """
        with self._database.writing(_LOCK) as connection:
            yield _Rows(connection)

    def __str__(self) -> str:
        return str(self._database)


class _Rows:
    leaves_tail = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def head(self) -> bytes | None:
        head = self._connection.scalar(
            sa.select(sa.func.substr(LOG_HEAD.c.head, 1, MAX_HEAD + 1)).where(LOG_HEAD.c.id == 1)
        )
        return head if isinstance(head, bytes) or head is None else b""

    def lines(self, after: Position) -> Iterator[bytes]:
        seq, bounded = after.size, sa.func.substr(LOG_LINES.c.line, 1, MAX_LINE + 1)
        while True:
            page = sa.select(LOG_LINES.c.seq, bounded).where(LOG_LINES.c.seq >= seq).order_by(LOG_LINES.c.seq)
            rows = self._connection.execute(page.limit(_PAGE)).all()
            for number, line in rows:
                if number != seq:
                    raise damaged("audit.sequence", seq, "is missing", f"row {ascii(number)[:40]} in its place")
                yield line if isinstance(line, bytes) else b""  # SQLite keeps any type in any column
                seq += 1
            if len(rows) < _PAGE:
                return

    def moved(self, _since: Position, head: bytes, /) -> bool:
        return self.head != head

    def append(self, after: Position, lines: Sequence[bytes], head: bytes) -> None:
        rows = [{"seq": after.size + number, "line": line} for number, line in enumerate(lines)]
        try:
            if rows:
                self._connection.execute(sa.insert(LOG_LINES), rows)
        except RowExists:
            raise damaged("audit.tail", after.size, "is in the database already, and no head covers it") from None
        changed = self._connection.execute(sa.update(LOG_HEAD).where(LOG_HEAD.c.id == 1).values(head=head))
        if changed.rowcount == 0:
            self._connection.execute(sa.insert(LOG_HEAD).values(id=1, head=head))
        # A trigger or a rule in the database may drop what it was given, and nobody be told.
        kept = self._connection.scalar(sa.select(sa.func.count()).where(LOG_LINES.c.seq >= after.size))
        if kept != len(lines) or self.head != head:
            raise IntegrityError(
                "audit.write",
                "the database did not keep what was written to the audit log",
                found=f"{kept} lines of {len(lines)}, {'the' if self.head == head else 'another'} head",
                rule="what is not recorded does not happen",
                remedy="find out who put a trigger, a rule or a view in its way",
            )

    def cut(self, after: Position) -> None:
        raise IntegrityError(
            "audit.tail",
            f"what follows entry {after.size - 1} of the audit log is no entry",
            rule="lines and head change in one transaction",
            remedy="restore the database from a backup, or compare with an exported copy",
        )
