"""TLS for a model server outside any enclave: key, certificate, and TensorFlow Serving's ``ssl.cfg``.

Nothing here is evidence of anything. A replica in an enclave makes its own key and shows evidence with it; these files
are for ``ensconce-model-server``, and for TensorFlow Serving itself, whose ``--ssl_config_file`` takes the same form
(tensorflow_serving/config/ssl_config.proto).
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf import text_format

from ensconce.errors import InputError
from ensconce.files import sync_folder, write_aside
from ensconce.tfserving.messages import SSLConfig

__all__ = ["MAX_DAYS", "issue_files", "write_files"]

MAX_DAYS: Final = 825
"""Longest life of a certificate in days; what platforms' verifiers allow of a private authority's."""
_BACKDATE: Final = dt.timedelta(minutes=5)
_MAX_COMMON_NAME: Final = 64
_SECRET: Final = (".key", ".cfg")

Key = ec.EllipticCurvePrivateKey


def issue_files(domain: str, *, days: int, mutual: bool, now: dt.datetime) -> dict[str, bytes]:
    """The files, by name.

    ``server.crt`` (PEM) is what clients trust: self-signed, or with ``mutual`` signed by ``ca.crt``, which then is what
    clients trust and what signed ``client.crt``. ``ssl.cfg`` holds the server's key and certificate in text format.

    Args:
        domain: DNS name that clients connect to.
        days: of validity.
        mutual: whether clients must show a certificate.
        now: in UTC.

    Raises:
        InputError: ``tls.days``.
    """
    if not 1 <= days <= MAX_DAYS:
        raise InputError(
            "tls.days", "a certificate cannot be valid for so long", found=str(days), rule=f"1 to {MAX_DAYS} days"
        )
    server, until = ec.generate_private_key(ec.SECP256R1()), now + dt.timedelta(days=days)
    config = SSLConfig(server_key=_key_pem(server), client_verify=mutual)
    files: dict[str, bytes] = {}
    if mutual:
        authority = ec.generate_private_key(ec.SECP256R1())
        root = _certificate(f"{domain} clients and server", authority, now, until)
        client = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(domain, server, now, until, issuer=(root, authority), domain=domain)
        shown = _certificate("client", client, now, until, issuer=(root, authority))
        config.custom_ca = _pem(root)
        files |= {
            "ca.crt": _pem(root).encode(),
            "ca.key": _key_pem(authority).encode(),
            "client.crt": _pem(shown).encode(),
            "client.key": _key_pem(client).encode(),
        }
    else:
        certificate = _certificate(domain, server, now, until, domain=domain)
    config.server_cert = _pem(certificate)
    files |= {
        "server.crt": config.server_cert.encode(),
        "server.key": config.server_key.encode(),
        "ssl.cfg": text_format.MessageToString(config).encode(),
    }
    return files


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into a folder that is new or empty: all of them or none. Keys are the owner's alone to read.

    Raises:
        InputError: ``tls.folder``, it is there and not empty, or cannot be made.
    """
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.absolute().parent))
        try:
            for name, content in files.items():
                write_aside(aside / name, content, mode=0o600 if name.endswith(_SECRET) else 0o644)
            aside.chmod(0o755)
            sync_folder(aside)
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(folder.absolute().parent)
    except OSError as error:
        raise InputError(
            "tls.folder",
            f"cannot write {folder}: {os.strerror(error.errno) if error.errno else error}",
            rule="a folder that is new, or empty",
            remedy="name another folder with --output",
        ) from error


def _certificate(
    name: str,
    key: Key,
    now: dt.datetime,
    until: dt.datetime,
    *,
    issuer: tuple[x509.Certificate, Key] | None = None,
    domain: str | None = None,
) -> x509.Certificate:
    """A certificate: of a server where ``domain`` is given, else of an authority, or of a client where it has one."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])])
    is_authority = issuer is None and domain is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(until)
        # A self-signed server's is its own trust anchor, which some verifiers want to be an authority's.
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if domain is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
    if not is_authority:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if domain is not None else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if issuer is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(key if issuer is None else issuer[1], hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: Key) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
