"""The published file: a signed statement, where it is in the publisher's audit log, and that the log has merely grown.

Canonical JSON and a newline of ``envelope`` (DSSE), ``proof`` (that the log has the entry ``published`` of this very
statement) and ``continues`` (a consistency proof from each head that an earlier file showed to this one's). One key
signs statement, entry and head. Everything is checked before any of it is believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce import strict_json
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.published import Measurements
from ensconce.audit.entry import canonical
from ensconce.audit.proofs import ConsistencyProof, InclusionProof, parse_consistency, parse_proof
from ensconce.errors import EvidenceError, InputError
from ensconce.publication.dsse import Envelope
from ensconce.publication.statement import malformed, parse_statement, read_model
from ensconce.trail import held

__all__ = ["EVENT", "MAX_CONTINUES", "MAX_FILE", "PublishedFile", "open_envelope", "parse_published"]

EVENT = "published"
"""The audit log's event for a statement; fields ``serial`` and ``sha256``."""

MAX_FILE = 1 << 19
"""Longest file in bytes."""

MAX_CONTINUES = 128
"""Most earlier heads that a file leads on from."""


@dataclass(frozen=True)
class PublishedFile:
    """A published file all of which holds; only whether it is the newest is not known by it.

    Attributes:
        envelope: the statement, signed.
        proof: where its entry is in the log.
        continues: from earlier heads, by their size.
        publisher: whose signatures these are.
        measurements: what the statement says.
    """

    envelope: Envelope
    proof: InclusionProof
    continues: tuple[ConsistencyProof, ...]
    publisher: Ed25519PublicKey
    measurements: Measurements

    @property
    def sha256(self) -> str:
        """SHA-256 of the statement, hexadecimal."""
        return hashlib.sha256(self.envelope.body()).hexdigest()

    def to_bytes(self) -> bytes:
        """The file."""
        value = {
            "envelope": self.envelope.model_dump(mode="json"),
            "proof": self.proof.to_json_object(),
            "continues": [each.to_json_object() for each in self.continues],
        }
        return canonical(value) + b"\n"


def parse_published(data: bytes, publishers: Sequence[Ed25519PublicKey]) -> PublishedFile:
    """Read a published file and check all of it that can be checked with the publishers' keys alone.

    Args:
        data: the file.
        publishers: whom the client trusts; one of them must have signed.

    Raises:
        EvidenceError: ``published.file``, ``published.envelope``, ``published.statement``: it is none of ours;
            ``published.signature``: none of these publishers signed it; ``published.proof``: the proof is none, or is
            about another statement.
        IntegrityError: ``audit.*``, ``merkle.inclusion``: the proof does not hold.
    """
    try:
        value = strict_json.loads(data) if len(data) <= MAX_FILE else None
    except ValueError as error:
        raise malformed("file", str(error)[:200]) from None
    if not isinstance(value, dict) or value.keys() != {"envelope", "proof", "continues"}:
        raise malformed("file", "other members, or too long", f"envelope, proof, continues; {MAX_FILE} bytes at most")
    envelope, publisher, measurements = _opened(value["envelope"], publishers)
    try:
        proof = parse_proof(_spelled(value["proof"]) + b"\n", publisher)
        continues = _continues(value["continues"])
    except InputError as error:
        raise malformed("proof", error.found or error.problem) from None
    if not isinstance(proof, InclusionProof):
        raise malformed("proof", "a proof about heads, and not about an entry")
    file = PublishedFile(envelope, proof, continues, publisher, measurements)
    _check_entry(file)
    if file.to_bytes() != data:
        raise malformed("file", "another spelling", "canonical JSON and a newline")
    return file


def open_envelope(
    data: bytes, publishers: Sequence[Ed25519PublicKey]
) -> tuple[Envelope, Ed25519PublicKey, Measurements]:
    """Read an envelope, find out which of the publishers signed it, and only then read what is in it.

    Raises:
        EvidenceError: ``published.envelope``, ``published.signature``, ``published.statement``.
    """
    try:
        value = strict_json.loads(data)
    except ValueError as error:
        raise malformed("envelope", str(error)[:200]) from None
    return _opened(value, publishers)


def _opened(value: object, publishers: Sequence[Ed25519PublicKey]) -> tuple[Envelope, Ed25519PublicKey, Measurements]:
    envelope = read_model(Envelope, value, "envelope")
    try:
        body = envelope.body()
    except ValueError as error:
        raise malformed("envelope", str(error)[:200]) from None
    publisher = envelope.signer(publishers)
    trusted = ", ".join(key_name(key) for key in publishers)
    if publisher is None:
        raise EvidenceError(
            "published.signature",
            "no publisher whom you trust has signed this",
            found=", ".join(_hint(each.keyid) for each in envelope.signatures)[:200],
            rule=f"signed by {trusted[:400] or 'nobody'}",
            remedy="get it again from its publisher, and the publisher's key from a source that you trust",
        )
    held("published.signature", "publisher", found=key_name(publisher), rule=f"one of {trusted}")
    return envelope, publisher, parse_statement(body)


def _continues(value: object) -> tuple[ConsistencyProof, ...]:
    if not isinstance(value, list) or len(value) > MAX_CONTINUES:
        raise malformed("proof", "continues", f"a list of at most {MAX_CONTINUES}")
    return tuple(parse_consistency(_spelled(each)) for each in value)


def _check_entry(file: PublishedFile) -> None:
    entry, head = file.proof.entry, file.proof.head
    found = (entry.event, entry.fields.get("serial"), entry.fields.get("sha256"))
    rule = (EVENT, file.measurements.serial, file.sha256)
    if found != rule:
        raise EvidenceError(
            "published.proof",
            "the proof is about another entry of the log than this statement's",
            found=" ".join(map(ascii, found))[:200],
            rule=" ".join(map(ascii, rule)),
            remedy="get the file again from its publisher",
        )
    held("published.proof", "entry in the publisher's log", found=f"{entry.seq} of {head.size}", rule=file.sha256)


def _spelled(value: object) -> bytes:
    try:
        return canonical(value)
    except RecursionError:
        raise malformed("file", "it is nested too deeply") from None


def _hint(keyid: str) -> str:
    return ascii(keyid)[1:-1][:80] or "a key without a name"
