"""Watching a log from outside: keep the last good head, and take a new one only with the proof that it follows.

Whoever does so from time to time, and compares heads with others who do, leaves the owner no way to take an entry back
or to show two logs to two people.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce.audit.head import Head, parse_head
from ensconce.audit.proofs import ConsistencyProof, check_continuation
from ensconce.audit.public import PublicLog, read_head
from ensconce.errors import IntegrityError
from ensconce.files import write_aside

__all__ = ["Exported", "LogSource", "Sighting", "watch"]


class LogSource(Protocol):
    """Who answers for a log: a status address, or an exported file."""

    def head(self) -> bytes:
        """The head as it was sent, unchecked.

        Raises:
            UnreachableError: ``audit.source``.
        """

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        """A proof as it was sent, unchecked.

        Raises:
            UnreachableError: ``audit.source``.
        """


@dataclass(frozen=True)
class Exported:
    """A log that the owner exported, as a source.

    Attributes:
        log: the exported log.
    """

    log: PublicLog

    def head(self) -> bytes:
        """The head in the file."""
        return self.log.head.to_bytes()

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        """From the file's hashes. Raises as :meth:`PublicLog.consistency`."""
        return self.log.consistency(first, second)


@dataclass(frozen=True)
class Sighting:
    """What a look at a log showed, when all was well.

    Attributes:
        earlier: the head that was kept, None at the first look.
        head: the head that is kept now.
    """

    earlier: Head | None
    head: Head


def watch(source: LogSource, kept: Path, key: Ed25519PublicKey) -> Sighting:
    """Look at the log, and keep its head when it follows from the one kept so far.

    Args:
        source: who answers for the log.
        kept: the file with the head; missing at the first look, which takes what it is given if the owner signed it.
        key: the owner's public key.

    Raises:
        InputError: ``file.*``: the kept head cannot be read or written.
        UnreachableError: ``audit.source``: no answer, or none that could be one.
        IntegrityError: the log was bent: ``audit.rollback``, ``audit.fork``, ``merkle.consistency``. The kept head
            stays, and the other, which the owner signed as well, is written beside it as evidence:
            ``<kept>.<16 hexadecimal digits>.bent``. ``audit.head``, ``audit.key``: the owner did not sign what came.
    """
    earlier = read_head(kept, key) if kept.exists() else None
    head = parse_head(source.head(), key)
    if earlier is not None:
        proof = None
        if 0 < earlier.size < head.size:
            proof = source.consistency(earlier.size, head.size)
        try:
            check_continuation(earlier, head, proof)
        except IntegrityError as error:
            beside = kept.with_name(f"{kept.name}.{hashlib.sha256(head.to_bytes()).hexdigest()[:16]}.bent")
            write_aside(beside, head.to_bytes())
            raise error.altered(
                remedy=f"keep {kept} and {beside}, both signed by the owner; ask for the proof that joins them"
            ) from error
    if earlier is None or head.size > earlier.size:
        write_aside(kept, head.to_bytes())
        return Sighting(earlier, head)
    return Sighting(earlier, earlier)
