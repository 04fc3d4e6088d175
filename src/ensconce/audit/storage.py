"""Where a log is kept, as the writer and the readers see it: lines in order, and one head.

A storage keeps bytes and hands them out; whether they are the owner's log is for :mod:`ensconce.audit.chain` to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from ensconce.errors import InputError

__all__ = ["HEAD", "LOG", "HeldLog", "LogStorage", "LogView", "Position", "missing"]

LOG = "log.jsonl"
HEAD = "head.json"


class Position(NamedTuple):
    """A place between two entries: after ``size`` entries, whose lines are ``offset`` bytes long together."""

    size: int
    offset: int


class LogView(Protocol):
    """Log and head of one moment."""

    @property
    def leaves_tail(self) -> bool:
        """Whether a writer that is stopped may leave lines that no head covers; where not, such lines are wrong."""

    @property
    def head(self) -> bytes | None:
        """The head as stored, None when there is none; at most one byte longer than a head may be."""

    def lines(self, after: Position) -> Iterator[bytes]:
        """The lines from there on, each with its newline; one that is cut short, or longer than ``MAX_LINE``, as is.

        Raises:
            InputError: ``audit.read``.
            UnreachableError: ``state.unreachable``.
            IntegrityError: a database's row is out of its place.
        """


class HeldLog(LogView, Protocol):
    """The log while nobody else can write it."""

    def moved(self, since: Position, head: bytes, /) -> bool:
        """Whether the log is no longer as a writer left it, who ended there with this head. Reads no entries.

        Either of the two tells it; a storage looks at the one that costs it less.
        """

    def append(self, after: Position, lines: Sequence[bytes], head: bytes) -> None:
        """Add lines (there may be none), then replace the head.

        When this raises, what was written is taken away again where that is still possible. What was added counts from
        the moment at which the log is let go of.

        Raises:
            InputError: ``audit.write``: the disk is full or failing.
            UnreachableError: ``state.unreachable``.
            IntegrityError: ``audit.tail``: a database has such a row already.
        """

    def cut(self, after: Position) -> None:
        """Remove what follows. Raises as :meth:`append`."""


class LogStorage(Protocol):
    """One log's place: a folder, or a database."""

    def prepare(self) -> None:
        """Make what the log is kept in where it is not there yet, and clear away what a crash left beside it.

        Raises:
            InputError: ``audit.open``: it cannot be made.
        """

    def view(self) -> AbstractContextManager[LogView]:
        """The log as it is now, for reading.

        Raises:
            InputError: ``audit.missing``; ``audit.read``.
            UnreachableError: ``state.unreachable``.
        """

    def held(self) -> AbstractContextManager[HeldLog]:
        """Hold the log alone among threads, processes and machines; waits for whoever holds it.

        What was appended is durable, and may be acknowledged, when the block has ended.

        Raises:
            InputError: ``audit.lock``, ``audit.write``.
            UnreachableError: ``state.unreachable``.
        """


def missing(where: object) -> InputError:
    """The error for a place without a log."""
    return InputError("audit.missing", f"there is no audit log in {where}", remedy="check the path")
