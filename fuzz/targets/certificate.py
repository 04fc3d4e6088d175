"""Evidence in certificates and in certificate requests, and the proof that it belongs to their key.

The first byte says what the rest is: a certificate, a request, or the value of an extension that is put, signed, into
one of these. Whatever is accepted as bound to a key must hold that key's hash, computed here once more.
"""

from __future__ import annotations

import hashlib
import random

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ensconce.errors import EvidenceError
from ensconce.evidence.certificate import (
    OID_LEGACY_GRAMINE,
    OID_LEGACY_MEANT,
    OID_TCG,
    CertificateEvidence,
    read_certificate,
    read_request,
)
from ensconce.evidence.claims import encode_claims, encode_evidence, parse_evidence
from ensconce.evidence.quote import parse_quote
from ensconce.evidence.spki import spki_of
from ensconce.ratls.gramine import read_gramine_client
from ensconce.ratls.verify import evidence_of, key_in_container, read_signed_request
from fuzz import world
from fuzz.mutation import by_parts
from fuzz.target import Havoc, Refused, Target, attempt, holds
from fuzz.targets import quote as quotes

__all__ = ["TARGET", "check"]

_OIDS = (OID_TCG, OID_LEGACY_GRAMINE, OID_LEGACY_MEANT)
_CERTIFICATE, _REQUEST, _IN_CERTIFICATE, _IN_REQUEST = 0, 1, 2, 5


def check(data: bytes) -> bool:
    """Read what the first byte says; see the module."""
    sort, rest = (data[0] if data else 0), data[1:]
    if sort == _REQUEST:
        return _check_request(rest)
    if sort < _IN_CERTIFICATE:
        return _check_certificate(rest)
    extension = x509.UnrecognizedExtension(_OIDS[(sort - _IN_CERTIFICATE) % 3], rest)
    if sort < _IN_REQUEST:
        return _check_certificate(world.certificate(extension))
    return _check_request(world.request(extension))


def _check_certificate(der: bytes) -> bool:
    attempt(lambda: key_in_container(der), EvidenceError)
    client = attempt(lambda: read_gramine_client(der, world.NOW), EvidenceError)
    evidence = attempt(lambda: read_certificate(der), EvidenceError)
    bound = attempt(lambda: evidence_of(der), EvidenceError)
    if isinstance(evidence, Refused):
        holds(isinstance(bound, Refused) and isinstance(client, Refused), "bound without evidence")
        return False
    key = x509.load_der_x509_certificate(der).public_key()
    _check_evidence(evidence, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    if isinstance(bound, Refused):
        holds(isinstance(client, Refused), "a client of Gramine's whose quote is for something else")
        return False
    if not isinstance(client, Refused):
        holds((client.quote, client.spki_der) == (bound, evidence.spki_der), "another client")
    _check_bound(evidence, parse_quote(bound).body.report_data)
    return True


def _check_request(der: bytes) -> bool:
    evidence = attempt(lambda: read_request(der), EvidenceError)
    signed = attempt(lambda: read_signed_request(der), EvidenceError)
    if isinstance(signed, Refused):
        return False
    assert not isinstance(evidence, Refused)
    holds(signed.evidence == evidence, "two readings of one request")
    _check_evidence(evidence, signed.spki_der)
    request = x509.load_der_x509_csr(der)
    holds(request.is_signature_valid, "the request is not signed")
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    holds(list(names) == [x509.DNSName(signed.domain)], "another name than the one asked for")
    holds(
        signed.extension == x509.UnrecognizedExtension(OID_TCG, encode_evidence(evidence.quote, _encoded(evidence))), ""
    )
    return True


def _encoded(evidence: CertificateEvidence) -> bytes:
    assert evidence.claims is not None
    return evidence.claims.encoded


def _check_evidence(evidence: CertificateEvidence, spki: bytes) -> None:
    holds(evidence.spki_der == spki, "another key than the certificate's")
    holds((evidence.claims is None) == (evidence.form == "legacy"), "claims and form disagree")


def _check_bound(evidence: CertificateEvidence, report_data: bytes) -> None:
    if evidence.claims is None:
        covered = evidence.spki_der
    else:
        name = {1: "sha256", 7: "sha384", 8: "sha512"}[evidence.claims.hash_algorithm]
        holds(evidence.claims.pubkey_hash == hashlib.new(name, evidence.spki_der).digest(), "claims of another key")
        covered = evidence.claims.encoded
    holds(report_data == hashlib.sha256(covered).digest() + bytes(32), "a quote for something else")


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Keep the first byte, mostly; bend evidence by its parts."""
    if not data or rng.random() < 0.05:
        return havoc(data)
    if data[0] < _IN_CERTIFICATE:
        return data[:1] + havoc(data[1:])
    return data[:1] + _by_parts(data[1:], rng, havoc)


def _split(data: bytes) -> list[bytes] | None:
    try:
        return list(parse_evidence(data))
    except EvidenceError:
        return None


def _join(parts: list[bytes]) -> bytes:
    """Evidence whose quote says that it was made for its claims, as anybody can write it who need not sign it."""
    quote, claims = parts
    said = quotes.split(quote)
    if said is None:
        return encode_evidence(quote, claims)
    said[1] = said[1][:-64] + hashlib.sha256(claims).digest() + bytes(32)
    return encode_evidence(quotes.join(said), claims)


_by_parts = by_parts(_split, _join)


def seeds() -> dict[str, bytes]:
    """Certificates and requests with evidence in every form, bound and not."""
    spki = spki_of(world.LEAF.public_key())
    claims = encode_claims(spki)
    sound = encode_evidence(world.quote(hashlib.sha256(claims).digest() + bytes(32)), claims)
    nonce = encode_claims(spki, b"nonce")
    legacy = world.quote(hashlib.sha256(spki).digest() + bytes(32))
    return {
        "good-certificate": b"\x00" + world.certificate(),
        "good-request": b"\x01" + world.request(),
        "good-tcg": b"\x02" + sound,
        "good-legacy-gramine": b"\x03" + legacy,
        "good-legacy-meant": b"\x04" + legacy,
        "good-tcg-in-request": b"\x05" + sound,
        "legacy-in-request": b"\x06" + legacy,
        "of-another-key": b"\x02" + _join([world.quote(), encode_claims(b"another key")]),
        "unbound": b"\x02" + encode_evidence(world.quote(), claims),
        "nonce": b"\x02" + encode_evidence(world.quote(hashlib.sha256(nonce).digest() + bytes(32)), nonce),
        "vendor": b"\x00" + world.VENDOR.root.der,
        "no-certificate": b"\x00" + world.collateral().pck_crl,
    }


TARGET = Target("certificate", check, seeds, _mutate)
