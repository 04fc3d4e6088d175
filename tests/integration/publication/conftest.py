"""A Sigstore instance of the tests: a certificate authority, a certificate log and a transparency log, with real keys.

What it makes is verified, and asked for, by the real library; only the service is ours. Its log is of Rekor's first
version, as the public instance's is.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import http.server
import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ensconce.audit.entry import canonical
from ensconce.publication.dsse import PAYLOAD_TYPE, pae

IDENTITY, ISSUER = "releases@example.test", "https://issuer.example.test"
NOW = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
_ISSUER_OID = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SCT_LIST_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_NOBODY_ELSE = hashlib.sha256(b"\0an entry of somebody else").digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Instance:
    """Everything of an instance; its keys can be exchanged for others'."""

    authority: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    url: str = "http://127.0.0.1:1"

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "an instance of the tests")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key())
        self.root = (
            x509.CertificateBuilder(name, name, self.authority.public_key(), 1)
            .not_valid_before(NOW - dt.timedelta(days=365))
            .not_valid_after(NOW + dt.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(True, 0), True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), True)
            .add_extension(identifier, False)
            .sign(self.authority, hashes.SHA256())
        )

    def certify(
        self,
        key: ec.EllipticCurvePublicKey,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        *,
        at: dt.datetime = NOW,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
    ) -> x509.Certificate:
        """A certificate of ten minutes, with a timestamp of the certificate log (RFC 6962, section 3)."""
        name = x509.UniformResourceIdentifier(identity) if "://" in identity else x509.RFC822Name(identity)
        builder = (
            x509.CertificateBuilder(self.root.subject, x509.Name([]), key, x509.random_serial_number())
            .not_valid_before(at)
            .not_valid_after(at + dt.timedelta(minutes=10))
            .add_extension(_usage(digital_signature=True), True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), False)
            .add_extension(x509.SubjectAlternativeName([name]), True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_OID, issuer.encode()), False)
        )
        tbs = builder.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes
        issuer_key = hashlib.sha256(spki(self.authority)).digest()
        when = struct.pack("!Q", int(at.timestamp() * 1000))
        entry = b"\0\0" + when + b"\0\1" + issuer_key + len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = sign(self.certificate_log, entry)
        log_id = hashlib.sha256(spki(self.certificate_log)).digest()
        sct = b"\0" + log_id + when + b"\0\0" + b"\4\3" + struct.pack("!H", len(signature)) + signature
        scts = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        octets = b"\x04" + (bytes([len(scts)]) if len(scts) < 128 else b"\x81" + bytes([len(scts)])) + scts
        extension = x509.UnrecognizedExtension(_SCT_LIST_OID, octets)
        return builder.add_extension(extension, False).sign(self.authority, hashes.SHA256())

    def record(self, payload: bytes, signature: bytes, pem: bytes, at: dt.datetime = NOW) -> dict[str, Any]:
        """What the log answers (Rekor's API, version 1): an entry, its inclusion proof, checkpoint and promise."""
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(payload + signature).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": b64(signature), "verifier": b64(pem)}],
        }
        body = canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        log_id = hashlib.sha256(spki(self.log)).digest()
        leaf = hashlib.sha256(b"\0" + body).digest()
        root = hashlib.sha256(b"\1" + _NOBODY_ELSE + leaf).digest()
        note = f"log.example.test\n2\n{b64(root)}\n"
        checkpoint = f"{note}\n— log.example.test {b64(log_id[:4] + sign(self.log, note.encode()))}\n"
        entry = {"body": b64(body), "integratedTime": int(at.timestamp()), "logID": log_id.hex(), "logIndex": 1}
        proof = {"logIndex": 1, "rootHash": root.hex(), "treeSize": 2, "hashes": [_NOBODY_ELSE.hex()]}
        verification = {
            "inclusionProof": proof | {"checkpoint": checkpoint},
            "signedEntryTimestamp": b64(sign(self.log, canonical(entry))),
        }
        return entry | {"verification": verification}

    def bundle(self, payload: bytes, *names: str, recorded_at: dt.datetime = NOW, **options: Any) -> dict[str, Any]:
        """A bundle as the library makes it: of ``payload``, by this identity and issuer."""
        key = new_key()
        certificate = self.certify(key.public_key(), *names, **options)
        signature = sign(key, pae(PAYLOAD_TYPE.encode(), payload))
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        entry = self.record(payload, signature, pem, recorded_at)
        proof = entry["verification"]["inclusionProof"]
        tlog_entry = {
            "logIndex": str(entry["logIndex"]),
            "logId": {"keyId": b64(bytes.fromhex(entry["logID"]))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(entry["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]},
            "inclusionProof": {
                "logIndex": str(proof["logIndex"]),
                "rootHash": b64(bytes.fromhex(proof["rootHash"])),
                "treeSize": str(proof["treeSize"]),
                "hashes": [b64(bytes.fromhex(each)) for each in proof["hashes"]],
                "checkpoint": {"envelope": proof["checkpoint"]},
            },
            "canonicalizedBody": entry["body"],
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))},
                "tlogEntries": [tlog_entry],
            },
            "dsseEnvelope": {
                "payload": b64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": b64(signature)}],
            },
        }

    def trusted_root(self) -> dict[str, Any]:
        """The public keys of all of it, in the library's format."""
        since = {"start": (NOW - dt.timedelta(days=365)).isoformat()}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            details = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            log_id = {"keyId": b64(hashlib.sha256(spki(key)).digest())}
            return {"baseUrl": self.url, "hashAlgorithm": "SHA2_256", "publicKey": details, "logId": log_id}

        chain = {"certificates": [{"rawBytes": b64(self.root.public_bytes(serialization.Encoding.DER))}]}
        subject = {"organization": "an instance of the tests", "commonName": "a root"}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log)],
            "certificateAuthorities": [{"subject": subject, "uri": self.url, "certChain": chain, "validFor": since}],
            "ctlogs": [log(self.certificate_log)],
        }

    def trust_config(self) -> dict[str, Any]:
        """With it, where the services are."""
        since = {"start": (NOW - dt.timedelta(days=365)).isoformat()}
        service = {"url": self.url, "majorApiVersion": 1, "validFor": since, "operator": "tests"}
        config = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service],
            "oidcUrls": [service],
            "rekorTlogUrls": [service],
            "rekorTlogConfig": {"selector": "ANY"},
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root(),
            "signingConfig": config,
        }


def _usage(**wanted: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


@pytest.fixture
def instance() -> Instance:
    return Instance()


@pytest.fixture
def root_file(instance: Instance, tmp_path: Path) -> Path:
    """The instance's trusted root."""
    path = tmp_path / "trusted_root.json"
    path.write_text(json.dumps(instance.trusted_root()))
    return path


@pytest.fixture
def running(instance: Instance) -> Iterator[Any]:
    """The instance's services, with ``refuses`` for those that are to refuse, ``speaks`` set while they answer at all.

    What they were asked is in ``asked``.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.asked.append(self.path)
            server.speaks.wait()
            if self.path in server.refuses:
                self._answer(403, {"code": 16, "message": "there was an error processing the identity token"})
            elif self.path == "/api/v2/signingCert":
                self._answer(200, self._certificate(body))
            else:
                self._answer(201, {"ab" * 32: self._entry(body)})

        def _certificate(self, body: Any) -> Any:
            token = self.headers["authorization"].removeprefix("Bearer ").split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            request = x509.load_pem_x509_csr(base64.b64decode(body["certificateSigningRequest"]))
            assert request.is_signature_valid
            now = dt.datetime.now(dt.UTC).replace(microsecond=0)
            found = instance.certify(request.public_key(), claims["sub"], claims["iss"], at=now)
            chain = [each.public_bytes(serialization.Encoding.PEM).decode() for each in (found, instance.root)]
            return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

        def _entry(self, body: Any) -> Any:
            content = body["spec"]["proposedContent"]
            envelope = json.loads(content["envelope"])
            payload, signature = (
                base64.b64decode(each) for each in (envelope["payload"], envelope["signatures"][0]["sig"])
            )
            return instance.record(
                payload, signature, base64.b64decode(content["verifiers"][0]), dt.datetime.now(dt.UTC)
            )

        def _answer(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    server: Any = Server(("127.0.0.1", 0), Handler)
    server.asked, server.refuses, server.speaks = [], set(), threading.Event()
    server.speaks.set()
    instance.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.speaks.set()
    server.shutdown()
    server.server_close()
