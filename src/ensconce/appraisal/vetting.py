"""Is collateral what it says it is? Every signature, up to an accepted root, before it is kept or learned from.

Verifying a quote checks all of this again, for that quote and for the time then. It is checked here as well because
what is kept, what is remembered of revocations, and what later answers are compared with must not be a forger's to
choose.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ensconce import strict_json
from ensconce.appraisal.chains import certificates_in, common_name, issued_by
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.papers import Papers, read_papers, refused
from ensconce.appraisal.pck import pck_ca
from ensconce.appraisal.root import name_of_root
from ensconce.appraisal.validity import seconds
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import Tee

__all__ = ["Link", "RevocationList", "Vetted", "links_of", "root_of", "tee_of", "vet"]

_MAX_SERIAL_BITS = 20 * 8  # RFC 5280 section 4.1.2.2


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A revocation list whose signature holds.

    Attributes:
        issuer: SHA-256 of the issuer's public key (SubjectPublicKeyInfo, DER), hexadecimal: names are not unique.
        issuer_name: for people.
        issued: ``thisUpdate``, seconds since 1970.
        next_update: ``nextUpdate``, seconds since 1970.
        serials: of the certificates that it revokes, hexadecimal, lower case.
    """

    issuer: str
    issuer_name: str
    issued: int
    next_update: int
    serials: frozenset[str]


class Link(NamedTuple):
    """A certificate as its issuer's revocation list would name it.

    Attributes:
        check: name of the check, without its last part.
        issuer: as :attr:`RevocationList.issuer`.
        serial: as in :attr:`RevocationList.serials`.
        subject: for people.
    """

    check: str
    issuer: str
    serial: str
    subject: str


@dataclass(frozen=True, slots=True)
class Vetted:
    """Collateral that an accepted root stands behind.

    Attributes:
        collateral: itself.
        platform: what it is for.
        root: name of the root.
        papers: what it says.
        lists: of the root, and of the PCK authority.
        links: every certificate that it hangs from, but the root.
        begin: from when on all of it is valid, seconds since 1970.
        end: from when on something of it has expired, seconds since 1970.
    """

    collateral: Collateral
    platform: PlatformKind
    root: str
    papers: Papers
    lists: tuple[RevocationList, RevocationList]
    links: tuple[Link, ...]
    begin: int
    end: int


def vet(collateral: Collateral, roots: Collection[str], platform: PlatformKind | None = None) -> Vetted:
    """Check who signed what, up to a root that is accepted; whether it is valid now is not asked.

    Args:
        collateral: what was received.
        roots: names of the roots that are accepted.
        platform: what it was asked for; nothing in particular when absent.

    Raises:
        EvidenceError: it is not genuine, or for another kind of platform; names of checks as in ``verify_quote``.
    """
    root = root_of(collateral)
    name = name_of_root(root)
    if name not in roots:
        raise EvidenceError(
            "collateral.root",
            "the collateral hangs from a root that is not accepted",
            found=name,
            rule=", ".join(roots),
            remedy="if it is the one that you mean, name it: --root, or roots: in the policy; else ask another PCCS",
        )
    tee = tee_of(collateral.tcb_info)
    papers = read_papers(collateral, tee, hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest())
    for check, chain in papers.chains.items():
        for certificate, issuer in zip(chain, (*chain[1:], root), strict=True):
            if not issued_by(certificate, issuer):
                problem = "a certificate is not signed by the issuer that it names"
                raise refused(f"{check}.signature", problem, common_name(certificate), common_name(issuer))
    for member, text, signature in (
        ("tcb_info", collateral.tcb_info, collateral.tcb_info_signature),
        ("qe_identity", collateral.qe_identity, collateral.qe_identity_signature),
    ):
        signer = papers.chains[f"collateral.{member}.chain"][0]
        if not _signed_by(signer, text.encode(), signature):
            problem = f"the {member} is not what its signer signed"
            raise refused(f"collateral.{member}.signature", problem, signature.hex(), common_name(signer))
    authority = papers.chains["collateral.pck_crl.chain"][0]
    found = PlatformKind(tee, papers.tcb_info.fmspc, pck_ca(authority))
    if platform is not None and found != platform:
        raise _misplaced(found, platform)
    return Vetted(
        collateral=collateral,
        platform=found,
        root=name,
        papers=papers,
        lists=(_list(papers, root, "collateral.root_ca_crl"), _list(papers, authority, "collateral.pck_crl")),
        links=tuple(link for check, chain in papers.chains.items() for link in links_of(chain, check)),
        begin=max(window.begin for window in papers.windows),
        end=min(window.end for window in papers.windows),
    )


def root_of(collateral: Collateral) -> x509.Certificate:
    """The certificate that the PCK revocation list's chain ends in: a claim.

    Raises:
        EvidenceError: ``collateral.pck_crl.chain.format``.
    """
    chain = collateral.pck_crl_issuer_chain.encode(errors="replace")
    return certificates_in(chain, "collateral.pck_crl.chain.format")[-1]


def tee_of(tcb_info: str) -> Tee:
    """Which kind of environment TCB info claims to be for; its reader refuses what is neither, or no JSON."""
    try:
        value = strict_json.loads(tcb_info.encode(errors="replace"))
    except ValueError:
        return "sgx"
    return "tdx" if isinstance(value, dict) and value.get("id") == "TDX" else "sgx"


def links_of(chain: tuple[x509.Certificate, ...], check: str) -> tuple[Link, ...]:
    """The certificates of a chain, leaf first, without the last; that each signed the one before is not looked at."""
    return tuple(
        Link(check, _key_id(issuer), f"{certificate.serial_number:x}", common_name(certificate))
        for certificate, issuer in itertools.pairwise(chain)
    )


def _key_id(certificate: x509.Certificate) -> str:
    """What :attr:`RevocationList.issuer` is for the holder of this certificate."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


def _misplaced(found: PlatformKind, asked: PlatformKind) -> EvidenceError:
    if found.tee != asked.tee:
        check = "collateral.tcb_info.id"
    elif found.fmspc != asked.fmspc:
        check = "collateral.tcb_info.fmspc"
    else:
        check = "collateral.pck_crl.issuer"
    return refused(check, "the collateral is for another kind of platform", str(found), str(asked))


def _list(papers: Papers, issuer: x509.Certificate, check: str) -> RevocationList:
    crl, key = papers.crls[check], issuer.public_key()
    try:
        signed = isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
        serials = [each.serial_number for each in crl] if signed else []
    except Exception as error:  # cryptography has half a dozen kinds for DER that is not right
        raise refused(f"{check}.format", "the revocation list cannot be read", str(error)[:200]) from error
    if not signed:
        problem = "the revocation list is not signed by the issuer that it names"
        raise refused(f"{check}.signature", problem, crl.issuer.rfc4514_string()[:200])
    if any(each < 0 or each.bit_length() > _MAX_SERIAL_BITS for each in serials):
        problem = "a serial number in the revocation list is negative or too long"
        raise refused(f"{check}.format", problem, "not 1 to 20 bytes", "RFC 5280 section 4.1.2.2")
    return RevocationList(
        _key_id(issuer),
        common_name(issuer),
        seconds(crl.last_update_utc),
        seconds(crl.next_update_utc),
        frozenset(f"{each:x}" for each in serials),
    )


def _signed_by(signer: x509.Certificate, text: bytes, signature: bytes) -> bool:
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(der, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
