"""The owner's certificate authority: one key, one root certificate, short-lived certificates for servers.

It vouches for names only. What runs behind a name is said by the evidence inside the certificate, which it copies
and which clients appraise by themselves.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ensconce.errors import InputError, IntegrityError
from ensconce.times import utc_text

__all__ = ["BACKDATE", "DEFAULT_LIFETIME", "CertificateAuthority"]

DEFAULT_LIFETIME = 24 * 3600
"""Seconds that a serving certificate lives."""

BACKDATE = 300
"""Seconds that certificates are valid before they were made, for clocks that are behind."""

_ROOT_LIFETIME = 10 * 365 * 24 * 3600
_MAX_COMMON_NAME = 64  # RFC 5280, ub-common-name


@dataclass(frozen=True, repr=False)
class CertificateAuthority:
    """A root certificate and its key. The key is a secret of the owner: keystore id ``ca/root``.

    Attributes:
        key: ECDSA P-256.
        certificate: self-signed, may sign certificates of servers but no other authorities.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str, now: int) -> CertificateAuthority:
        """A fresh authority, valid for ten years.

        Args:
            name: common name; what is beyond 64 characters is cut off.
            now: seconds since 1970.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now - BACKDATE))
            .not_valid_after(_time(now + _ROOT_LIFETIME))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, key: ec.EllipticCurvePrivateKey, certificate_pem: bytes) -> CertificateAuthority:
        """The authority from its key and its certificate.

        Raises:
            IntegrityError: the certificate cannot be read, or they do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
        except ValueError:
            raise _damaged("its certificate cannot be read") from None
        if key.public_key() != certificate.public_key():
            raise _damaged("the certificate belongs to another key")
        return cls(key, certificate)

    @property
    def certificate_pem(self) -> bytes:
        """The root certificate, public: ``ca.pem``."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def end(self) -> int:
        """When the root certificate ends, seconds since 1970."""
        return int(self.certificate.not_valid_after_utc.timestamp())

    def check_end(self, now: int) -> None:
        """Check that certificates can still be issued.

        Args:
            now: seconds since 1970.

        Raises:
            InputError: ``authority.expired``.
        """
        if now >= self.end:
            raise InputError(
                "authority.expired",
                "the owner's certificate authority has expired",
                found=f"{utc_text(self.end)}; it is {utc_text(now)}",
                remedy="check this machine's clock, or make a new authority; replicas and clients need its certificate",
            )

    def issue_server(
        self,
        public_key: ec.EllipticCurvePublicKey,
        domain: str,
        *,
        now: int,
        evidence: x509.UnrecognizedExtension | None = None,
        lifetime: int = DEFAULT_LIFETIME,
    ) -> bytes:
        """A certificate for a TLS server.

        Args:
            public_key: the server's key.
            domain: its DNS name, the only subject alternative name.
            now: seconds since 1970; the certificate is valid from five minutes before.
            evidence: extension to copy in, after its evidence was appraised.
            lifetime: seconds from ``now``; never beyond the root's own end.

        Returns:
            The chain that the server sends, PEM: the leaf. The root, which clients have, is not in it.

        Raises:
            InputError: as :meth:`check_end`.
        """
        self.check_end(now)
        end = min(_time(now + lifetime), self.certificate.not_valid_after_utc)
        names = [x509.NameAttribute(NameOID.COMMON_NAME, domain)] if len(domain) <= _MAX_COMMON_NAME else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now - BACKDATE))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            # RFC 5280 section 4.2.1.6: critical when the subject is empty.
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=not names)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if evidence is not None:
            builder = builder.add_extension(evidence, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _usage(*, ca: bool) -> x509.KeyUsage:
    """What a key may do: sign certificates and revocation lists, or sign in handshakes."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def _damaged(problem: str) -> IntegrityError:
    return IntegrityError(
        "authority.key",
        f"the owner's certificate authority is damaged: {problem}",
        remedy="restore ca.pem and the keystore from the same backup",
    )
