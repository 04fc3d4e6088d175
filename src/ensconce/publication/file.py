"""The published file: a signed statement, where it is in the publisher's audit log, and that the log has merely grown.

Canonical JSON and a newline of ``envelope`` (DSSE), ``proof`` (that the log has the entry ``published`` of this very
statement), ``continues`` (a consistency proof from each head that an earlier file showed to this one's) and perhaps
``sigstore`` (a Sigstore bundle of the same statement). One key signs statement, entry and head. It is one that the
client trusts; or an identity that the client trusts has signed the statement, which names the key. Everything is
checked before any of it is believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ensconce import strict_json
from ensconce.appraisal.policy_owners import key_name, public_key
from ensconce.appraisal.published import Measurements
from ensconce.audit.entry import canonical
from ensconce.audit.proofs import ConsistencyProof, InclusionProof, parse_consistency, parse_proof
from ensconce.errors import EvidenceError, InputError
from ensconce.publication.dsse import Envelope
from ensconce.publication.sigstore import SigstoreIdentity, SigstoreTrust
from ensconce.publication.statement import malformed, parse_statement, read_model
from ensconce.trail import held

__all__ = ["EVENT", "MAX_CONTINUES", "MAX_FILE", "PublishedFile", "open_envelope", "parse_published"]

EVENT = "published"
"""The audit log's event for a statement; fields ``serial`` and ``sha256``."""

MAX_FILE = 1 << 20
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
        bundle: the Sigstore bundle, as JSON; not looked at when a key was enough.
        identity: whose word the publisher's key is taken by; None when the key itself is trusted.
    """

    envelope: Envelope
    proof: InclusionProof
    continues: tuple[ConsistencyProof, ...]
    publisher: Ed25519PublicKey
    measurements: Measurements
    bundle: Mapping[str, Any] | None = None
    identity: SigstoreIdentity | None = None

    @property
    def believed(self) -> str:
        """Name of whom the client trusts: of the identity, else of the key."""
        return key_name(self.publisher) if self.identity is None else str(self.identity)

    @property
    def sha256(self) -> str:
        """SHA-256 of the statement, hexadecimal."""
        return hashlib.sha256(self.envelope.body()).hexdigest()

    def to_bytes(self) -> bytes:
        """The file."""
        value: dict[str, Any] = {
            "envelope": self.envelope.model_dump(mode="json"),
            "proof": self.proof.to_json_object(),
            "continues": [each.to_json_object() for each in self.continues],
        }
        if self.bundle is not None:
            value["sigstore"] = self.bundle
        return canonical(value) + b"\n"


def parse_published(
    data: bytes, publishers: Sequence[Ed25519PublicKey], sigstore: SigstoreTrust | None = None
) -> PublishedFile:
    """Read a published file and check all of it that can be checked with the publishers' names alone.

    Args:
        data: the file.
        publishers: whom the client trusts; one of them must have signed.
        sigstore: identities that the client trusts as well: any one of all these is enough, and keys are tried first.

    Raises:
        EvidenceError: ``published.file``, ``published.envelope``, ``published.statement``: it is none of ours;
            ``published.signature``: none of these publishers signed it; ``published.identity``,
            ``published.sigstore``: nor did an identity; ``published.log_key``: the log is not the one that the
            statement names; ``published.proof``: the proof is none, or is about another statement.
        IntegrityError: ``audit.*``, ``merkle.inclusion``: the proof does not hold.
    """
    try:
        value = strict_json.loads(data) if len(data) <= MAX_FILE else None
    except ValueError as error:
        raise malformed("file", str(error)[:200]) from None
    if not isinstance(value, dict) or value.keys() - {"sigstore"} != {"envelope", "proof", "continues"}:
        rule = f"envelope, proof, continues, perhaps sigstore; {MAX_FILE} bytes at most"
        raise malformed("file", "other members, or too long", rule)
    envelope, bundle, identity = read_model(Envelope, value["envelope"], "envelope"), value.get("sigstore"), None
    if "sigstore" in value and not isinstance(bundle, dict):
        raise malformed("file", "sigstore is no object", "a Sigstore bundle")
    if sigstore is None or bundle is None or envelope.signer(publishers) is not None:
        publisher, measurements = _signed(envelope, publishers, sigstore.identities if sigstore else ())
    else:
        publisher, measurements, identity = _vouched(envelope, bundle, sigstore)
    try:
        proof = parse_proof(_spelled(value["proof"]) + b"\n", publisher)
        continues = _continues(value["continues"])
    except InputError as error:
        raise malformed("proof", error.found or error.problem) from None
    if not isinstance(proof, InclusionProof):
        raise malformed("proof", "a proof about heads, and not about an entry")
    file = PublishedFile(envelope, proof, continues, publisher, measurements, bundle, identity)
    _check_entry(file)
    if file.to_bytes() != data:
        raise malformed("file", "another spelling", "canonical JSON and a newline")
    return file


def open_envelope(value: object, publishers: Sequence[Ed25519PublicKey]) -> tuple[Envelope, Measurements]:
    """Read an envelope, find out that one of the publishers signed it, and only then read what is in it.

    Args:
        value: JSON, as :func:`ensconce.strict_json.loads` gave it.
        publishers: their keys.

    Raises:
        EvidenceError: ``published.envelope``, ``published.signature``, ``published.statement``.
    """
    envelope = read_model(Envelope, value, "envelope")
    return envelope, _signed(envelope, publishers)[1]


def _signed(
    envelope: Envelope, publishers: Sequence[Ed25519PublicKey], identities: Sequence[SigstoreIdentity] = ()
) -> tuple[Ed25519PublicKey, Measurements]:
    """By a key that the client trusts; ``identities`` have not signed it."""
    body = _body(envelope)
    publisher = envelope.signer(publishers)
    trusted = ", ".join([*map(key_name, publishers), *map(str, identities)])
    if publisher is None:
        raise EvidenceError(
            "published.signature",
            "no publisher whom you trust has signed this",
            found=", ".join(_hint(each.keyid) for each in envelope.signatures)[:200],
            rule=f"signed by {trusted[:400] or 'nobody'}",
            remedy="get it again from its publisher, and the publisher's key from a source that you trust",
        )
    held("published.signature", "publisher", found=key_name(publisher), rule=f"one of {trusted}")
    measurements = parse_statement(body)
    if measurements.log_key not in (None, key_name(publisher)):
        raise _another_log(measurements.log_key, key_name(publisher))
    return publisher, measurements


def _vouched(
    envelope: Envelope, bundle: Mapping[str, Any], sigstore: SigstoreTrust
) -> tuple[Ed25519PublicKey, Measurements, SigstoreIdentity]:
    """By an identity that the client trusts; and by the key that the statement names, whose the log is."""
    body = _body(envelope)
    identity = sigstore.signer(bundle, body)
    measurements = parse_statement(body)
    try:
        key = public_key(measurements.log_key or "")
    except InputError:
        raise _another_log(measurements.log_key, "the key of the publisher's log") from None
    if envelope.signer([key]) is None:
        raise _another_log("an envelope that this key has not signed", key_name(key))
    held("published.log_key", "key of the publisher's log", found=key_name(key), rule=f"named by {identity}")
    return key, measurements, identity


def _body(envelope: Envelope) -> bytes:
    try:
        return envelope.body()
    except ValueError as error:
        raise malformed("envelope", str(error)[:200]) from None


def _another_log(found: str | None, rule: str) -> EvidenceError:
    return EvidenceError(
        "published.log_key",
        "the statement and the log do not belong together",
        found=found or "a statement that names no key",
        rule=rule,
        remedy="get the file again from its publisher",
    )


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
    held(
        "published.proof",
        "entry in the publisher's log",
        found=f"{entry.seq} of {head.size}",
        rule=f"about the list with SHA-256 {file.sha256}",
    )


def _spelled(value: object) -> bytes:
    try:
        return canonical(value)
    except RecursionError:
        raise malformed("file", "it is nested too deeply") from None


def _hint(keyid: str) -> str:
    return ascii(keyid)[1:-1][:80] or "a key without a name"
