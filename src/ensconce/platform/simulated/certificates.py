"""The building blocks of a DCAP certificate hierarchy: keys from a seed, certificates, revocation lists.

Subject CNs, extensions and chain shapes are those of Intel's own hierarchy (Intel SGX PCK Certificate and Certificate
Revocation List Profile Specification, 1.5), so that every check that a verifier makes on Intel's certificates applies
to these as well. What tells them apart is the organisation, in every certificate, and the root, which is made anew on
every machine.

Signatures are deterministic (RFC 6979): the same seed and the same times give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

__all__ = [
    "SIMULATED_ORGANISATION",
    "Party",
    "Validity",
    "certify",
    "derive_key",
    "issue",
    "label_bytes",
    "point",
    "revocation_list",
    "sign_raw",
]

SIMULATED_ORGANISATION = "Ensconce simulated platform, not Intel"

_ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Validity:
    """A window of time, both ends included, in Unix seconds."""

    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who can sign: a certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Party({self.certificate.subject.rfc4514_string()!r})"

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        """The certificate in PEM, with a final newline."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def serial(self) -> int:
        """The certificate's serial number, by which a revocation list names it."""
        return self.certificate.serial_number


def derive_key(seed: bytes, label: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 key that ``seed`` yields for ``label`` (HKDF-SHA-256; a different label, an unrelated key)."""
    wide = HKDF(hashes.SHA256(), 48, salt=None, info=b"ensconce simulated vendor key: " + label.encode()).derive(seed)
    # 48 bytes reduced modulo a 32-byte order: the bias is below 2^-128 (FIPS 186-5, A.2.1).
    return ec.derive_private_key(int.from_bytes(wide, "big") % (_ORDER_P256 - 1) + 1, ec.SECP256R1())


def label_bytes(label: str, size: int) -> bytes:
    """Bytes that stand for a name: the head of its SHA-256. They show at a glance in no register of Intel's."""
    return hashlib.sha256(b"ensconce simulated: " + label.encode()).digest()[:size]


def issue(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: Party | None,
    *,
    validity: Validity,
    crl_url: str,
    path_length: int | None,
    extension: x509.UnrecognizedExtension | None = None,
) -> Party:
    """Issue a certificate of Intel's shape.

    Args:
        common_name: subject CN, for example ``Intel SGX PCK Platform CA``.
        key: the subject's key.
        issuer: who signs; None makes a self-signed root.
        validity: the certificate's window.
        crl_url: the CRL distribution point; Intel's verification library wants one in every certificate.
        path_length: how many CAs may follow; None makes a leaf.
        extension: the SGX extension of a PCK certificate.
    """
    certificate = certify(
        common_name,
        key.public_key(),
        issuer.certificate if issuer else None,
        issuer.key if issuer else key,
        validity=validity,
        crl_url=crl_url,
        path_length=path_length,
        extension=extension,
    )
    return Party(certificate, key)


def certify(
    common_name: str,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    signing_key: ec.EllipticCurvePrivateKey,
    *,
    validity: Validity,
    crl_url: str,
    path_length: int | None,
    extension: x509.UnrecognizedExtension | None = None,
) -> x509.Certificate:
    """The certificate alone, for a subject whose key is elsewhere; arguments as :func:`issue` has them."""
    subject = _name(common_name)
    is_ca = path_length is not None
    authority = issuer.public_key() if issuer else public
    assert isinstance(authority, ec.EllipticCurvePublicKey)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public)
        # Like Intel's, the serial number repeats the key identifier; RFC 5280 wants it positive in 20 bytes.
        .serial_number(int.from_bytes(identifier.digest, "big") & ((1 << 159) - 1))
        .not_valid_before(_moment(validity.not_before))
        .not_valid_after(_moment(validity.not_after))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
        .add_extension(
            x509.CRLDistributionPoints(
                [x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)]
            ),
            critical=False,
        )
        .add_extension(identifier, critical=False)
        .add_extension(_key_usage(is_ca), critical=True)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    )
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signing_key, hashes.SHA256(), ecdsa_deterministic=True)


def revocation_list(issuer: Party, *, issued: int, next_update: int, revoked: Iterable[int] = ()) -> bytes:
    """A certificate revocation list in DER, with the CRL number 1 that all of Intel's carry.

    Args:
        issuer: the CA whose certificates are revoked.
        issued: thisUpdate, Unix seconds.
        next_update: nextUpdate, Unix seconds.
        revoked: serial numbers.
    """
    authority = issuer.certificate.public_key()
    assert isinstance(authority, ec.EllipticCurvePublicKey)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_moment(issued))
        .next_update(_moment(next_update))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )
    for serial in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(serial)
            .revocation_date(_moment(issued))
            .add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
            .build()
        )
    signed = builder.sign(issuer.key, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(serialization.Encoding.DER)


def sign_raw(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA over SHA-256 of ``data`` as DCAP writes it: 64 bytes, r and s big-endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as DCAP writes it: 64 bytes, x and y big-endian."""
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _name(common_name: str) -> x509.Name:
    parts = (
        (NameOID.COMMON_NAME, common_name),
        (NameOID.ORGANIZATION_NAME, SIMULATED_ORGANISATION),
        (NameOID.LOCALITY_NAME, "Santa Clara"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.COUNTRY_NAME, "US"),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _key_usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=not is_ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
