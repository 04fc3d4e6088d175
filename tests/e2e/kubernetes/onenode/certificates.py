"""A cluster's certificates and its clients' kubeconfigs, made for one run."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """A certificate authority that writes what it signs into ``folder``: ``NAME.crt`` and ``NAME.key``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "onenode")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
        self.certificate = folder / f"{name}.crt"
        signed = builder.sign(self._key, hashes.SHA256())
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(self, file: str, name: str, groups: Sequence[str] = (), served: Sequence[str] = ()) -> tuple[Path, Path]:
        """A certificate and its key for user ``name`` in ``groups``, or for a server at the names ``served``."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if served else [])]
        builder = self._builder(subject, key.public_key()).add_extension(x509.ExtendedKeyUsage(usages), False)
        if served:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(each) for each in served]), False
            )
        signed = builder.sign(self._key, hashes.SHA256())
        paths = (self.folder / f"{file}.crt", self.folder / f"{file}.key")
        paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        write_key(paths[1], key)
        return paths

    def kubeconfig(self, file: str, server: str, name: str, groups: Sequence[str] = ()) -> Path:
        """A client's kubeconfig with a certificate of its own in it. (JSON is YAML.)"""
        certificate, key = self.issue(file, name, groups)
        cluster = {"server": server, "certificate-authority-data": _base64(self.certificate)}
        user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        path = self.folder / f"{file}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "onenode", "cluster": cluster}],
                    "users": [{"name": name, "user": user}],
                    "contexts": [{"name": "onenode", "context": {"cluster": "onenode", "user": name}}],
                    "current-context": "onenode",
                }
            )
        )
        return path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        begin, end = now - dt.timedelta(minutes=5), now + dt.timedelta(days=1)
        return x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number(), begin, end)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key in PEM."""
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))


def write_service_account_keys(folder: Path) -> tuple[Path, Path]:
    """The key pair for service accounts' tokens: ``(public, private)``."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, private = folder / "service-accounts.pub", folder / "service-accounts.key"
    encoding = serialization.Encoding.PEM
    public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    write_key(private, key)
    return public, private


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
