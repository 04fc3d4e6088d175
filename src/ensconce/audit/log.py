"""The log's writer: append-only, durable before it returns, safe for threads, processes, machines and crashes.

Entries are appended and synced, then the head is signed and replaced. In a folder, a crash between the two shows:
entries, or part of one, without a head. The next append or open puts that right: entries that are whole, that continue
the chain and that carry the writer's own signature are adopted; the rest is cut off. None of them was ever
acknowledged. Anything else after the head is tampering and stops the writer. A database has no such moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit.chain import MAX_BATCH, Chain, follow, read_tail
from ensconce.audit.entry import MAX_FRAME, MAX_LINE, Entry, FieldValue, StoredValue, canonical, sign_entry, storable
from ensconce.audit.folder import storage_at
from ensconce.audit.group import GroupCommit
from ensconce.audit.head import Head, head_missing, parse_head, sign_head
from ensconce.audit.proofs import ConsistencyProof
from ensconce.audit.reader import LogReader
from ensconce.audit.storage import HeldLog, LogStorage, missing
from ensconce.audit.tree import LogTree
from ensconce.times import utc_text

__all__ = ["AuditLog"]

_Event = tuple[str, Mapping[str, StoredValue]]


class AuditLog:
    """An audit log open for appending; make one with ``open``.

    Threads may share it, and then share the disk's work as well; processes may each open their own on the same folder,
    and machines on the same database.
    """

    def __init__(self, storage: LogStorage, signing_key: Ed25519PrivateKey, now: Callable[[], int]) -> None:
        """For ``open``."""
        self._storage = storage
        self._key = signing_key
        self._public_key = signing_key.public_key()
        self._now = now
        self._chain = Chain()
        self._head = b""
        self._group = GroupCommit[_Event, Entry](self._commit, most=MAX_BATCH, heaviest=MAX_LINE)
        self._tree = LogTree(storage, self._public_key)

    @classmethod
    def open(
        cls, where: Path | LogStorage, signing_key: Ed25519PrivateKey, now: Callable[[], int], *, begin: bool = True
    ) -> AuditLog:
        """Open the log, checking all of it.

        Args:
            where: the log's own folder (0700; its parent must exist), or where else it is kept.
            signing_key: the owner's key; a log has one for life.
            now: the clock, Unix time in seconds.
            begin: begin a log that is missing.

        Raises:
            InputError: ``audit.open``, ``audit.lock``, ``audit.write``: the folder cannot be used; ``audit.missing``.
            UnreachableError: ``state.unreachable``: the database cannot be reached.
            IntegrityError: ``audit.*``: the log was changed; nothing is ever appended to such a log.
        """
        storage = storage_at(where)
        log = cls(storage, signing_key, now)
        storage.prepare()
        with storage.held() as held:
            if held.head is None:
                if any(held.lines(log._chain.position)):
                    raise head_missing()
                if not begin:
                    raise missing(storage)
                held.append(log._chain.position, (), log._sign_head(log._chain))
            settled = log._catch_up(held)
        log._chain, log._head = settled
        return log

    def append(self, event: str, /, **fields: FieldValue) -> Entry:
        """Record an event. It is on disk, chained and covered by a signed head when this returns.

        When this raises, the event counts as not recorded: do not do what it announces. (It may yet turn up in the log,
        if the entry was written and the head was not. The log can say too much, never too little.)

        Args:
            event: dotted name, e.g. ``key.released``.
            fields: text, whole numbers, truth values, lists of these. Text beyond 1024 characters is cut and says so.
                No secrets.

        Raises:
            InputError: ``audit.event``, ``audit.field``: not something that the log takes; ``audit.write``: the disk is
                full or failing.
            UnreachableError: ``state.unreachable``.
            IntegrityError: the log was changed since.
        """
        return self.append_many([(event, fields)])[0]

    def append_many(self, events: Sequence[tuple[str, Mapping[str, FieldValue]]]) -> list[Entry]:
        """Record several events in this order, up to ``MAX_BATCH`` of them with one sync and under one head.

        Raises:
            InputError: as :meth:`append`; an event that the log does not take leaves all of them unrecorded.
            UnreachableError: as :meth:`append`.
            IntegrityError: as :meth:`append`.
        """
        checked = [(event, storable(event, fields)) for event, fields in events]
        return self._group.submit([((event, stored), len(canonical(stored)) + MAX_FRAME) for event, stored in checked])

    def entries(self) -> Iterator[Entry]:
        """The entries so far, in order, checked as :meth:`LogReader.entries` does, and raising as it does."""
        return iter(LogReader(self._storage, self._public_key, lambda _: True).entries())

    def head(self) -> Head:
        """The current signed head, whoever wrote it. Reads no entries.

        Raises:
            InputError: it cannot be read.
            UnreachableError: ``state.unreachable``.
            IntegrityError: it is missing or was changed.
        """
        with self._storage.view() as view:
            return parse_head(view.head, self._public_key)

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        """The proof that the log of ``first`` entries is the beginning of the log of ``second``.

        The hashes of all entries are read once and then kept (64 bytes each); a proof takes some log2(size) of them.

        Raises:
            InputError: ``merkle.range``: unless 0 < first <= second <= the log's size; or as :meth:`head`.
            UnreachableError: ``state.unreachable``.
            IntegrityError: the log was changed.
        """
        return self._tree.consistency(first, second)

    def _commit(self, events: Sequence[_Event]) -> list[Entry]:
        # One at a time: the group has one leader.
        with self._storage.held() as held:
            chain, head = self._chain, self._head
            # Nobody rereads the log for an append: while it is as it was left, nothing was added.
            if held.moved(chain.position, head):
                chain, head = self._catch_up(held)
            start, entries, lines = chain.position, list[Entry](), list[bytes]()
            chain, time = chain.copy(), utc_text(self._now())
            for event, stored in events:
                entry = sign_entry(chain.size, time, event, stored, chain.last, self._key)
                line = entry.to_line()
                chain.extend(entry, line)
                entries.append(entry)
                lines.append(line)
            head = self._sign_head(chain)
            held.append(start, lines, head)
        self._chain, self._head = chain, head
        return entries

    def _catch_up(self, held: HeldLog) -> tuple[Chain, bytes]:
        head = held.head
        if head is None:
            raise head_missing()
        chain = follow(held, self._chain, parse_head(head, self._public_key), self._public_key)
        tail = read_tail(held, chain, self._public_key)
        if tail.torn:
            held.cut(tail.chain.position)
        if tail.entries:
            head = self._sign_head(tail.chain)
            held.append(tail.chain.position, (), head)
        return tail.chain, head

    def _sign_head(self, chain: Chain) -> bytes:
        time = utc_text(self._now())
        return sign_head(chain.size, chain.frontier.root(), chain.last, time, self._key).to_bytes()
