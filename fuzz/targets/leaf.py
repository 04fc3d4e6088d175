"""The certificate of a server, as a client judges it before it sends a byte.

The first byte says what the rest is: a certificate, judged under the owner's authority and without one; or a name,
which is put into a certificate of the right key and evidence as its issuer, where anybody may write anything. Under the
authority nothing is accepted but what the authority issued.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import random

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.client.leaf import judge_leaf
from ensconce.errors import EvidenceError, RefusedError
from ensconce.evidence.certificate import evidence_extension
from ensconce.evidence.claims import encode_claims
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.certificates import issue
from fuzz import world
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_GIVEN = 0
_PLACE = b"issuer of a certificate that is longer than most names are"
_AUTHORITY = issue(
    "owner", world.VENDOR.key("owner"), None, validity=world.VENDOR.validity(2), crl_url="http://a.test", path_length=0
)


class _Source:
    """Collateral straight from the vendor."""

    def get_for(self, quote: bytes) -> Collateral:
        return world.collateral("tdx" if quote[4:8] == b"\x81\0\0\0" else "sgx")

    def doubt(self, quote: bytes) -> None:
        pass


def check(data: bytes) -> bool:
    """Judge what the first byte says; see the module."""
    sort, rest = (data[0] if data else 0), data[1:]
    der = rest if sort == _GIVEN else _named(rest)
    issued = attempt(
        lambda: judge_leaf(der, world.DOMAIN, _appraiser(), _AUTHORITY.certificate), EvidenceError, RefusedError
    )
    anyone = attempt(lambda: judge_leaf(der, world.DOMAIN, _appraiser(), None), EvidenceError, RefusedError)
    if not isinstance(issued, Refused):
        tbs = x509.load_der_x509_certificate(_leaf()).tbs_certificate_bytes
        holds(issued.certificate.tbs_certificate_bytes == tbs, "a certificate that the authority did not issue")
        holds(not isinstance(anyone, Refused), "accepted under an authority, and not without")
    if isinstance(anyone, Refused):
        return False
    # Only one key has evidence that is signed, and only one enclave is accepted.
    holds(spki_of(anyone.certificate.public_key()) == spki_of(world.LEAF.public_key()), "another key")
    holds(anyone.acceptance.verdict.report.report_data[:32] == hashlib.sha256(_claims()).digest(), "another quote")
    begin, end = anyone.certificate.not_valid_before_utc, anyone.certificate.not_valid_after_utc
    holds(begin.timestamp() <= world.NOW <= end.timestamp() and anyone.valid_until >= world.NOW, "not valid now")
    return True


@functools.cache
def _appraiser() -> Appraiser:
    identity = Identity(name="digits", mr_enclave=world.report().mr_enclave, receives=())
    policy = Policy(roots=(world.ROOT.name,), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(identity,))
    return Appraiser(policy, _Source(), lambda: world.NOW)


@functools.cache
def _claims() -> bytes:
    return encode_claims(spki_of(world.LEAF.public_key()))


@functools.cache
def _leaf() -> bytes:
    """The certificate that the authority issued."""
    return _signed(_AUTHORITY.certificate.subject)


def _signed(issuer: x509.Name) -> bytes:
    evidence = world.quote(hashlib.sha256(_claims()).digest() + bytes(32))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(world.LEAF.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime.fromtimestamp(world.NOW - 3600, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(world.NOW + 3600, dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(world.DOMAIN)]), critical=True)
        .add_extension(evidence_extension(evidence, _claims()), critical=False)
        .sign(_AUTHORITY.key, hashes.SHA256(), ecdsa_deterministic=True)
        .public_bytes(Encoding.DER)
    )


@functools.cache
def _template() -> bytes:
    return _signed(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _PLACE.decode())]))


def _named(name: bytes) -> bytes:
    """The certificate with so much of this as its issuer's name as fits: in the place of type, length and value."""
    template = _template()
    at = template.index(_PLACE)
    size = len(_PLACE) + 2
    # A tag and a length that are its own, filled up with zeros.
    return template[: at - 2] + name[:size].ljust(size, b"\0") + template[at + len(_PLACE) :]


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Bend a little in one place: most of a certificate is evidence, which other targets bend."""
    if len(data) < 64 or rng.random() < 0.2:
        return havoc(data)
    at = 1 + rng.choice((rng.randrange(64), rng.randrange(len(data) - 1), rng.randrange(400)))
    end = at + rng.choice((1, 4, 16))
    return data[:at] + havoc(data[at:end])[: end - at].ljust(end - at, b"\0") + data[end:]


def seeds() -> dict[str, bytes]:
    """The certificate that the authority issued, one that it did not, and names."""
    value = len(_PLACE).to_bytes(1)
    return {
        "good-issued": b"\x00" + _leaf(),
        "good-name": b"\x01\x0c" + value + _PLACE,
    }


TARGET = Target("leaf", check, seeds, _mutate, max_size=8192)
