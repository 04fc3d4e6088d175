"""No way back: what a publisher showed once, the next file must come after.

For each publisher (the key or the identity that is trusted) and service one document: the newest serial, its statement,
and the log's head. The first file that is seen is believed. What a host leaves out of date it cannot make the client
forget.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.published import Sha256
from ensconce.audit.entry import canonical
from ensconce.audit.head import Head, parse_head
from ensconce.audit.proofs import check_continuation
from ensconce.errors import EvidenceError, IntegrityError
from ensconce.publication.file import PublishedFile
from ensconce.state.store import Store
from ensconce.strict import StrictModel
from ensconce.trail import held

__all__ = ["admit"]


class _Remembered(StrictModel):
    version: Literal[2] = 2
    publisher: str
    key: str
    service: str
    serial: Annotated[int, Field(ge=1)]
    sha256: Sha256
    head: dict[str, Any]


def admit(store: Store, file: PublishedFile) -> None:
    """Refuse a file from before what was seen, or of another log; remember it otherwise.

    Args:
        store: of this client.
        file: all of which holds.

    Raises:
        EvidenceError: ``published.rollback``; ``published.fork``: another statement of the same serial;
            ``published.key``: an identity vouches for another key than before.
        IntegrityError: ``audit.rollback``, ``audit.fork``, ``merkle.consistency``: the publisher's log was bent;
            ``published.remembered``: the document is damaged.
        InputError: ``state.*``.
        UnreachableError: ``state.unreachable``.
    """
    serial, sha256, head = file.measurements.serial, file.sha256, file.proof.head
    publisher, service, key = file.believed, file.measurements.service, key_name(file.publisher)
    # Both are in the name, which is short, and in the document, for people.
    name = f"published/{hashlib.sha256(f'{publisher} {service}'.encode()).hexdigest()}"
    with store.locked(name) as slot:
        document = slot.read()
        if document is not None:
            seen = _read(document)
            if (seen.publisher, seen.service) != (publisher, service):
                raise _damaged()
            _refuse_older(file, seen)
            if seen.key != key:
                raise _another_key(file, key, seen.key)
            earlier = _head(seen, file)
            proof = next((each for each in file.continues if each.first == earlier.size), None)
            check_continuation(earlier, head, proof if earlier.size != head.size else None)
            held(
                "merkle.consistency", "publisher's log", found=f"{head.size} entries", rule=f"continues {earlier.size}"
            )
        held("published.rollback", "serial", found=str(serial), rule="not before one that was seen")
        shown = _Remembered(
            publisher=publisher, key=key, service=service, serial=serial, sha256=sha256, head=head.to_json_object()
        )
        new = canonical(shown.model_dump(mode="json"))
        if new != document:
            slot.write(new)


def _read(document: bytes) -> _Remembered:
    with contextlib.suppress(ValidationError):
        return _Remembered.model_validate_json(document)
    raise _damaged()


def _head(seen: _Remembered, file: PublishedFile) -> Head:
    try:
        return parse_head(canonical(seen.head) + b"\n", file.publisher)
    except IntegrityError:
        raise _damaged() from None


def _refuse_older(file: PublishedFile, seen: _Remembered) -> None:
    serial = file.measurements.serial
    if serial < seen.serial:
        raise EvidenceError(
            "published.rollback",
            "there was a newer list from this publisher already",
            found=f"serial {serial}, of {file.measurements.created}",
            rule=f"{seen.serial} or higher",
            remedy="get the newest; whoever serves this one keeps back what was withdrawn or added since",
        )
    if serial == seen.serial and file.sha256 != seen.sha256:
        raise EvidenceError(
            "published.fork",
            "the publisher has signed two lists of one serial",
            found=f"serial {serial}, sha256 {file.sha256}",
            rule=f"sha256 {seen.sha256}",
            remedy="believe neither, keep both, and ask the publisher",
        )


def _another_key(file: PublishedFile, found: str, rule: str) -> EvidenceError:
    return EvidenceError(
        "published.key",
        "this publisher's lists had a log under another key before",
        found=found,
        rule=rule,
        remedy=f"ask the publisher; once you know that the key was changed, remove the document that names "
        f"{file.believed} from the state folder",
    )


def _damaged() -> IntegrityError:
    return IntegrityError(
        "published.remembered",
        "what this client remembers of a publisher is damaged",
        remedy="remove the document from the state folder once you have seen by other means which list is the newest",
    )
