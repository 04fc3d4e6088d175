"""Vault twice: a small server that follows the documented API, and a real one where there is one.

The small one (``FakeVault``) has what the client and these tests use: transit keys with versions, tokens with policies,
sealing; with the statuses and error texts that a real server was seen to give. ``ENSCONCE_VAULT`` names a ``vault`` or
``bao`` program; without it, one on PATH is taken; without that, the real half is skipped.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ensconce.errors import EnsconceError
from ensconce.keys.vault import VaultTransit

POLICY = "".join(f'path "transit/{do}/ensconce" {{ capabilities = ["update"] }}\n' for do in ("encrypt", "decrypt"))


@dataclass
class Vault:
    """A running server with a transit key ``ensconce``, and the root token's powers over it."""

    address: str
    ca_file: Path
    root_token: str
    unseal_key: str
    folder: Path

    def admin(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = httpx.request(
            method,
            f"{self.address}/v1/{path}",
            json=body or None,
            headers={"X-Vault-Token": self.root_token},
            verify=ssl.create_default_context(cafile=str(self.ca_file)),
            trust_env=False,
            timeout=10,
        )
        assert answer.status_code in (200, 204), (path, answer.status_code, answer.text)
        return answer.json() if answer.content else {}

    def token(self, policy: str = POLICY, **options: Any) -> Path:
        """A file with a fresh token that may do what ``policy`` says."""
        name = f"p{secrets.token_hex(4)}"
        self.admin("POST", f"sys/policies/acl/{name}", policy=policy)
        made = self.admin("POST", "auth/token/create", policies=[name], **({"ttl": "1h"} | options))
        path = self.folder / f"token-{name}"
        path.write_text(made["auth"]["client_token"] + "\n")
        path.chmod(0o600)
        return path

    def transit(self, **changes: Any) -> VaultTransit:
        """The client, with a token for the key ``ensconce`` unless told otherwise."""
        if "token_file" not in changes:
            changes["token_file"] = self.token()
        return VaultTransit(**({"address": self.address, "key": "ensconce", "ca_file": self.ca_file} | changes))

    @contextlib.contextmanager
    def sealed(self) -> Iterator[None]:
        self.admin("PUT", "sys/seal")
        try:
            yield
        finally:
            self.admin("PUT", "sys/unseal", key=self.unseal_key)


@dataclass
class _Key:
    derived: bool = False
    aead: bool = True
    minimum: int = 1
    versions: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)])


@dataclass
class _Token:
    policies: list[str]
    creation_ttl: int
    ttl: int
    renewable: bool


class FakeVault(ThreadingHTTPServer):
    """Enough of Vault's HTTP API; ``answers`` replaces the next answers, ``asked`` records what was asked."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.keys: dict[str, _Key] = {}
        self.policies: dict[str, str] = {}
        self.tokens = {"root": _Token(["root"], 0, 0, False)}
        self.is_sealed = False
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.namespaces: list[str | None] = []
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that does not trust the certificate

    def answer(self, method: str, path: str, token: str | None, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "sys/unseal":
            self.is_sealed = False
            return 200, {"sealed": False}
        if self.is_sealed:
            return 503, {"errors": ["Vault is sealed"]}
        holder = self.tokens.get(token or "")
        if holder is None or not self._allowed(holder, path):
            return 403, {"errors": ["permission denied"]}
        match [method, *path.split("/")]:
            case ["PUT", "sys", "seal"]:
                self.is_sealed = True
                return 204, None
            case ["POST", "sys", "policies", "acl", name]:
                self.policies[name] = body["policy"]
                return 204, None
            case ["POST", "auth", "token", "create"]:
                made = f"s.{secrets.token_hex(12)}"
                life = (
                    int(body["ttl"].rstrip("h")) * 3600 if body["ttl"].endswith("h") else int(body["ttl"].rstrip("s"))
                )
                self.tokens[made] = _Token(["default", *body["policies"]], life, life, body.get("renewable", True))
                return 200, {"data": None, "auth": {"client_token": made}}
            case ["POST", "auth", "token", "revoke"]:
                del self.tokens[body["token"]]
                return 204, None
            case ["GET", "auth", "token", "lookup-self"]:
                return 200, {"data": dict(vars(holder))}
            case ["POST", "auth", "token", "renew-self"]:
                if not holder.renewable:
                    return 400, {"errors": ["lease is not renewable"]}
                holder.ttl = holder.creation_ttl
                return 200, {"data": None, "auth": {"client_token": token}}
            case ["POST", "transit", "keys", name]:
                self.keys[name] = _Key(body.get("derived", False), not body.get("type", "aes").startswith("rsa"))
                return 200, {"data": {"name": name}}
            case ["POST", "transit", "keys", name, "rotate"]:
                self.keys[name].versions.append(secrets.token_bytes(32))
                return 200, {"data": {"name": name}}
            case ["POST", "transit", "keys", name, "config"]:
                self.keys[name].minimum = body["min_decryption_version"]
                return 200, {"data": {"name": name}}
            case ["POST", "transit", "encrypt" | "decrypt" as do, name]:
                return self._transit(do, name, body)
        return 404, {"errors": [f'no handler for route "{path}". route entry not found.']}

    def _allowed(self, token: _Token, path: str) -> bool:
        own = path.startswith("auth/token/") and path.endswith("-self")
        rules = re.findall(r'path "([^"]+)"', "".join(self.policies.get(name, "") for name in token.policies))
        return (
            "root" in token.policies
            or own
            or any(path == rule or (rule.endswith("*") and path.startswith(rule[:-1])) for rule in rules)
        )

    def _transit(self, do: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        def wrong(text: str) -> tuple[int, Any]:
            return 400, {"errors": [text]}

        if name not in self.keys:
            if do == "decrypt":
                return wrong("encryption key not found")
            self.keys[name] = _Key()  # the documented upsert
        key = self.keys[name]
        associated = body.get("associated_data", "")
        if associated and not key.aead:
            return wrong("'[0].associated_data' provided for non-AEAD cipher suite rsa-2048")
        if key.derived:
            return wrong("missing 'context' for key derivation; the key was created using a derived key, which means ")
        aad = base64.b64decode(associated)
        if do == "encrypt":
            nonce = secrets.token_bytes(12)
            sealed = nonce + AESGCM(key.versions[-1]).encrypt(nonce, base64.b64decode(body["plaintext"]), aad)
            text = f"vault:v{len(key.versions)}:{base64.b64encode(sealed).decode()}"
            return 200, {"data": {"ciphertext": text, "key_version": len(key.versions)}}
        parts = re.fullmatch(r"vault:v([0-9]+):(.*)", body["ciphertext"])
        if parts is None:
            return wrong("invalid ciphertext: no prefix")
        version = int(parts[1])
        if version > len(key.versions):
            return wrong("invalid ciphertext: version is too new")
        if version < key.minimum:
            return wrong("ciphertext or signature version is disallowed by policy (too old)")
        try:
            sealed = base64.b64decode(parts[2], validate=True)
        except ValueError:
            return wrong("invalid ciphertext: could not decode base64")
        if len(sealed) < 12:
            return wrong("invalid ciphertext length")
        try:
            plain = AESGCM(key.versions[version - 1]).decrypt(sealed[:12], sealed[12:], aad)
        except InvalidTag:
            return wrong("cipher: message authentication failed")
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}


class _Handler(BaseHTTPRequestHandler):
    server: FakeVault
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else {}
        path = self.path.removeprefix("/v1/")
        with self.server.lock:
            self.server.asked.append((self.command, path, body))
            self.server.namespaces.append(self.headers.get("X-Vault-Namespace"))
            if self.server.answers:
                status, data = self.server.answers.pop(0)
            else:
                status, said = self.server.answer(self.command, path, self.headers.get("X-Vault-Token"), body)
                data = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """An authority's certificate, and a server's context under it for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a Vault's authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file, key_file = folder / "vault-ca.pem", folder / "vault.key"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca_file, key_file)
    return ca_file, context


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeVault]:
    context = _certificates(tmp_path)[1]
    server = FakeVault(context)
    server.keys["ensconce"] = _Key()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fake_vault(fake: FakeVault, tmp_path: Path) -> Vault:
    port = fake.server_address[1]
    return Vault(f"https://127.0.0.1:{port}", tmp_path / "vault-ca.pem", "root", "key", tmp_path)


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory, find_port: Callable[[], int]) -> Iterator[Vault]:
    """A development server of Vault or OpenBao: in memory, over TLS, on a port of this machine."""
    named = os.environ.get("ENSCONCE_VAULT")
    program = named or shutil.which("vault") or shutil.which("bao")
    if program is None:
        pytest.skip("no Vault or OpenBao: put `vault` or `bao` on PATH, or name one in ENSCONCE_VAULT")
    folder = tmp_path_factory.mktemp("vault")
    port = find_port()
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(program, "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-root-token-id=root"),
                *(f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token"),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    try:
        deadline = time.monotonic() + 30
        while (unseal := re.search(r"Unseal Key: (\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        (ca_file,) = folder.glob("*-ca.pem")
        vault = Vault(f"https://127.0.0.1:{port}", ca_file, "root", unseal[1], folder)
        vault.admin("POST", "sys/mounts/transit", type="transit")
        yield vault
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def refused() -> Callable[..., EnsconceError]:
    """The error of an act: of this kind and check, with a remedy, and without a token."""

    def refused(act: Callable[[], object], kind: type[EnsconceError], check: str) -> EnsconceError:
        with pytest.raises(kind) as caught:
            act()
        assert caught.value.check == check, caught.value
        assert caught.value.remedy
        assert "s." not in str(caught.value.found or "").split()
        return caught.value

    return refused


@pytest.fixture(params=["fake", "real"])
def vault(request: pytest.FixtureRequest) -> Vault:
    """Each test that asks for it runs against both; the key ``ensconce`` is new."""
    if request.param == "fake":
        found: Vault = request.getfixturevalue("fake_vault")
        return found
    real: Vault = request.getfixturevalue("real_server")
    with contextlib.suppress(AssertionError):
        real.admin("POST", "transit/keys/ensconce/config", deletion_allowed=True)
        real.admin("DELETE", "transit/keys/ensconce")
    real.admin("POST", "transit/keys/ensconce", type="aes256-gcm96")
    return real
