"""AWS KMS as what opens a keystore, against moto's server."""

from __future__ import annotations

import base64
import builtins
import importlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.keys import FolderPlace, SealedKeystore, SecretBuffer, new_key_file
from ensconce.keys.aws_kms import AwsKms

ROOT = bytes(range(32))
BINDING = {"ensconce:deployment": "d.test", "ensconce:keystore": "00"}
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "do-not-print",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def client(endpoint: str) -> Any:
    return boto3.client("kms", region_name=REGION, endpoint_url=endpoint)


@pytest.fixture
def kms(client: Any, endpoint: str) -> AwsKms:
    return AwsKms(client.create_key()["KeyMetadata"]["KeyId"], REGION, endpoint)


def root() -> SecretBuffer:
    return SecretBuffer.of(ROOT)


def refused(act: Callable[[], object], kind: type[EnsconceError], check: str) -> EnsconceError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.check == check, caught.value
    assert "do-not-print" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def test_what_was_wrapped_unwraps_and_for_nothing_else(kms: AwsKms) -> None:
    wrapped = kms.wrap(root(), BINDING)
    with kms.unwrap(wrapped, BINDING) as again:
        assert bytes(again.view) == ROOT
    other = BINDING | {"ensconce:keystore": "01"}
    refused(lambda: kms.unwrap(wrapped, other), IntegrityError, "kms.ciphertext")


def test_a_keystore_through_its_life(kms: AwsKms, tmp_path: Path) -> None:
    file = new_key_file(tmp_path / "key")
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), file)
    keystore.put("a", b"x", kind="secret")
    keystore.rewrap(kms, deployment="d.test")
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), kms).get("a") == b"x"
    keystore.rewrap(kms, deployment="d.test")
    assert keystore.get("a") == b"x"
    refused(lambda: SealedKeystore.open(FolderPlace(tmp_path / "k"), file), InputError, "keystore.unlock")


def test_another_key_does_not_unwrap(kms: AwsKms, client: Any, endpoint: str) -> None:
    wrapped = kms.wrap(root(), BINDING)
    other = AwsKms(client.create_key()["KeyMetadata"]["KeyId"], REGION, endpoint)
    # KMS itself says IncorrectKeyException (below); moto denies.
    refused(lambda: other.unwrap(wrapped, BINDING), InputError, "kms.permission")


def test_damaged(kms: AwsKms) -> None:
    refused(lambda: kms.unwrap("!!!!", BINDING), IntegrityError, "kms.ciphertext")
    refused(lambda: kms.unwrap("AAAA", BINDING), IntegrityError, "kms.ciphertext")
    # Whoever guesses at a key of somebody else's learns nothing: KMS says this to both.
    unknown = base64.b64encode(bytes(120)).decode()
    refused(lambda: kms.unwrap(unknown, BINDING), InputError, "kms.permission")


def test_a_key_that_is_not_there_or_switched_off(kms: AwsKms, client: Any, endpoint: str) -> None:
    missing = AwsKms("11111111-2222-3333-4444-555555555555", REGION, endpoint)
    refused(lambda: missing.wrap(root(), BINDING), InputError, "kms.key")


class _Scripted(BaseHTTPRequestHandler):
    """Answers as KMS does (API reference, "Common Errors"), with what moto cannot be made to say."""

    status, code, body = 400, "", b"{}"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        cls = type(self)
        body = json.dumps({"__type": cls.code, "message": "as KMS says"}).encode() if cls.code else cls.body
        self.send_response(cls.status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Callable[..., AwsKms]]:
    class Handler(_Scripted):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def script(status: int, code: str = "", body: bytes = b"{}") -> AwsKms:
        Handler.status, Handler.code, Handler.body = status, code, body
        return AwsKms("k", REGION, f"http://127.0.0.1:{server.server_address[1]}")

    yield script
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "kind", "check"),
    [
        (400, "InvalidCiphertextException", IntegrityError, "kms.ciphertext"),
        (400, "IncorrectKeyException", IntegrityError, "kms.ciphertext"),
        (400, "NotFoundException", InputError, "kms.key"),
        (400, "DisabledException", InputError, "kms.key"),
        (400, "KMSInvalidStateException", InputError, "kms.key"),
        (400, "InvalidKeyUsageException", InputError, "kms.key"),
        (400, "AccessDeniedException", InputError, "kms.permission"),
        (400, "UnrecognizedClientException", InputError, "kms.credentials"),
        (400, "ExpiredTokenException", InputError, "kms.credentials"),
        (403, "InvalidSignatureException", InputError, "kms.credentials"),
        (400, "ValidationException", InputError, "kms.request"),
    ],
)
def test_each_of_kms_refusals_has_a_name(
    scripted: Callable[..., AwsKms], status: int, code: str, kind: type[EnsconceError], check: str
) -> None:
    error = refused(lambda: scripted(status, code).unwrap("AAAA", BINDING), kind, check)
    assert code in (error.found or "")


@pytest.mark.parametrize(("status", "code"), [(400, "ThrottlingException"), (500, "KMSInternalException"), (503, "x")])
def test_what_another_try_may_change(
    scripted: Callable[..., AwsKms], status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    refused(lambda: scripted(status, code).unwrap("AAAA", BINDING), UnreachableError, "kms.busy")


@pytest.mark.parametrize("body", [b"{}", b'{"Plaintext":"AAAA"}'])
def test_an_answer_without_a_root_key(scripted: Callable[..., AwsKms], body: bytes) -> None:
    kms = scripted(200, body=body)
    refused(lambda: kms.unwrap("AAAA", BINDING), UnreachableError, "kms.answer")
    refused(lambda: kms.wrap(root(), BINDING), UnreachableError, "kms.answer")


def test_no_credentials(kms: AwsKms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(lambda: kms.wrap(root(), BINDING), InputError, "kms.credentials")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    refused(lambda: kms.wrap(root(), BINDING), InputError, "kms.credentials")


def test_no_detail_of_the_conversation_is_logged(
    kms: AwsKms, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-of-hers")
    with caplog.at_level(logging.DEBUG):  # `ensconce -v -v`
        kms.unwrap(kms.wrap(root(), BINDING), BINDING)
    for secret in (base64.b64encode(ROOT).decode(), repr(ROOT), "a-session-of-hers", "do-not-print"):
        assert secret not in caplog.text


@pytest.mark.parametrize("url", ["http://kms.test", "ftp://127.0.0.1", "http://[::1", "http://127.0.0.1.test", "x"])
def test_the_root_key_goes_nowhere_in_the_clear(kms: AwsKms, url: str) -> None:
    refused(lambda: AwsKms(kms.key_id, REGION, url).wrap(root(), BINDING), InputError, "kms.endpoint")


def test_an_endpoint_of_the_environment_is_not_asked(
    kms: AwsKms, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{other.getsockname()[1]}")
        monkeypatch.setattr("socket.getaddrinfo", _nowhere)
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
        refused(lambda: AwsKms(kms.key_id, REGION).wrap(root(), BINDING), UnreachableError, "kms.unreachable")
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()


def _nowhere(*arguments: object, **named: object) -> object:
    raise socket.gaierror("no names here")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, find_port: Callable[[], int]) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    kms = AwsKms("k", REGION, f"http://127.0.0.1:{find_port()}")
    refused(lambda: kms.wrap(root(), BINDING), UnreachableError, "kms.unreachable")


@pytest.mark.parametrize(("region", "url"), [("no region", None), ("eu-central-1", "https://not a host")])
def test_regions_and_endpoints_that_are_none(region: str, url: str | None) -> None:
    refused(lambda: AwsKms("k", region, url).wrap(root(), BINDING), InputError, "kms.request")


def test_without_boto3(kms: AwsKms, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("boto"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    error = refused(lambda: kms.wrap(root(), BINDING), InputError, "kms.missing")
    assert "ensconce[aws]" in (error.remedy or "")
    assert builtins.__import__("ensconce.keys.aws_kms")
