"""The PCCS client and the cache, against a real HTTP server on the loopback interface that can misbehave."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.pccs import _member_text, fetch_collateral, parse_fmspc
from ensconce.appraisal.root import SimulatedRoot
from ensconce.errors import InputError, UnreachableError
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000
FMSPC = SimulatedVendor.FMSPC.hex().upper()
V4 = "/sgx/certification/v4/"


@dataclass
class Answer:
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass
class Server:
    """What each path answers, and what was asked."""

    answers: dict[str, Answer]
    asked: list[str] = field(default_factory=list)
    url: str = ""


def answers_of(collateral: Collateral) -> dict[str, Answer]:
    def signed(member: str, text: str, signature: bytes) -> bytes:
        return f'{{"{member}":{text},"signature":"{signature.hex()}"}}'.encode()

    quoted = urllib.parse.quote
    return {
        "pckcrl": Answer(collateral.pck_crl, {"SGX-PCK-CRL-Issuer-Chain": quoted(collateral.pck_crl_issuer_chain)}),
        "tcb": Answer(
            signed("tcbInfo", collateral.tcb_info, collateral.tcb_info_signature),
            {"TCB-Info-Issuer-Chain": quoted(collateral.tcb_info_issuer_chain)},
        ),
        "qe/identity": Answer(
            signed("enclaveIdentity", collateral.qe_identity, collateral.qe_identity_signature),
            {"SGX-Enclave-Identity-Issuer-Chain": quoted(collateral.qe_identity_issuer_chain)},
        ),
        "rootcacrl": Answer(collateral.root_ca_crl.hex().encode()),
    }


@pytest.fixture
def sound(vendor: SimulatedVendor) -> Collateral:
    return vendor.collateral(NOW)


def serve(state: Server, context: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one segment: two would wait for a delayed acknowledgement

        def do_GET(self) -> None:
            state.asked.append(self.path)
            path, _, _ = self.path.partition("?")
            answer = state.answers.get(path.removeprefix(V4), Answer(b"No cache data", status=404))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture
def pccs(sound: Collateral) -> Iterator[Server]:
    state = Server(answers_of(sound))
    server = serve(state)
    yield state
    server.shutdown()
    server.server_close()


def fetch(pccs: Server, **options: Any) -> Collateral:
    return fetch_collateral(pccs.url, fmspc=FMSPC, ca="platform", **options)


def refused(pccs: Server) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        fetch(pccs)
    assert caught.value.remedy
    assert pccs.url in str(caught.value)
    return caught.value


def test_what_is_fetched_is_what_was_signed(
    pccs: Server, sound: Collateral, vendor: SimulatedVendor, quote: Callable[..., bytes]
) -> None:
    fetched = fetch(pccs)
    assert fetched == sound
    root = SimulatedRoot(vendor.root_certificate_der)
    assert verify_quote(quote(), fetched, at=NOW, root=root).root == vendor.root_name
    assert [urllib.parse.unquote(path) for path in pccs.asked] == [
        f"{V4}pckcrl?ca=platform&encoding=der",
        f"{V4}tcb?fmspc={FMSPC}&update=standard",
        f"{V4}qe/identity?update=standard",
        f"{V4}rootcacrl",
    ]


def test_dialects(pccs: Server, sound: Collateral) -> None:
    pccs.answers["pckcrl"].body = sound.pck_crl.hex().upper().encode() + b"\n"
    pccs.answers["rootcacrl"].body = sound.root_ca_crl
    tcb = pccs.answers["tcb"]
    tcb.headers = {"SGX-TCB-Info-Issuer-Chain": tcb.headers["TCB-Info-Issuer-Chain"], "Content-Encoding": "gzip"}
    tcb.body = gzip.compress(tcb.body)
    identity = pccs.answers["qe/identity"]
    identity.body = b' {\n"signature" : "%s" , "enclaveIdentity" : %s }\r\n' % (
        sound.qe_identity_signature.hex().encode(),
        sound.qe_identity.encode(),
    )
    assert fetch(pccs) == sound


@pytest.mark.parametrize("path", ["pckcrl", "tcb", "qe/identity", "rootcacrl"])
@pytest.mark.parametrize("status", [302, 401, 404, 460, 461, 462, 500, 502, 599])
def test_refusals_name_the_status(pccs: Server, path: str, status: int) -> None:
    pccs.answers[path].status = status
    error = refused(pccs)
    assert error.check == "pccs.status"
    assert error.found == f"HTTP status {status}"
    assert path in error.problem


@pytest.mark.parametrize("path", ["pckcrl", "tcb", "qe/identity"])
def test_issuer_chains_are_needed(pccs: Server, path: str) -> None:
    headers = pccs.answers[path].headers
    (name,) = headers
    headers.clear()
    assert refused(pccs).check == "pccs.issuer_chain"
    headers[name] = "x" * 40_000
    assert refused(pccs).check == "pccs.issuer_chain"


@pytest.mark.parametrize("path", ["pckcrl", "rootcacrl"])
@pytest.mark.parametrize("body", [b"<html>", b"308", b"\xff\xfe"])
def test_revocation_lists_that_are_none(pccs: Server, path: str, body: bytes) -> None:
    pccs.answers[path].body = body
    assert refused(pccs).check == "pccs.crl"


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"{}",
            b"[]",
            b"null",
            b"\xff",
            b"{",
            b'{"tcbInfo":{}}',
            b'{"tcbInfo":{},"signature":1}',
            b"[" * 100_000,
        ),
        *(b'{"tcbInfo":[],"signature":"00"}', b'{"tcbInfo":{},"tcbInfo":{},"signature":"00"}'),
        *(b'{"tcbInfo":{},"signature":"0g"}', b'{"tcbInfo":{},"signature":"00"}{}', b'{"tcbInfo":{} "signature":"00"}'),
    ],
)
def test_documents_that_are_none(pccs: Server, body: bytes) -> None:
    pccs.answers["tcb"].body = body
    assert refused(pccs).check == "pccs.document"


@pytest.mark.parametrize("path", ["pckcrl", "tcb", "rootcacrl"])
def test_answers_have_a_bound(pccs: Server, path: str) -> None:
    pccs.answers[path].body = bytes(1024 * 1024 + 1)
    assert refused(pccs).check == "pccs.size"


def test_so_do_compressed_ones(pccs: Server) -> None:
    pccs.answers["tcb"] = Answer(gzip.compress(bytes(64 * 1024 * 1024)), {"Content-Encoding": "gzip"})
    assert refused(pccs).check == "pccs.size"


def test_nobody_there(pccs: Server) -> None:
    with pytest.raises(UnreachableError) as caught:
        fetch_collateral("http://127.0.0.1:1", fmspc=FMSPC, ca="platform")
    assert caught.value.check == "pccs.connect"


@pytest.mark.parametrize("url", ["", "localhost:8081", "ftp://localhost", "file:///etc", "http://"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InputError) as caught:
        fetch_collateral(url, fmspc=FMSPC, ca="platform")
    assert caught.value.check == "pccs.url"


@pytest.mark.parametrize(
    "fmspc", ["", "00606A00000", "00606A0000000", "../../../../x", "00606A00000g", "00606A000000\n"]
)
def test_platforms_that_are_none(fmspc: str) -> None:
    with pytest.raises(InputError):
        fetch_collateral("http://127.0.0.1:1", fmspc=fmspc, ca="platform")
    assert parse_fmspc("00606a000000") == "00606A000000"


def test_a_proxy_in_the_environment_is_not_asked(
    pccs: Server, sound: Collateral, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(pccs) == sound


def test_tls_is_verified(sound: Collateral, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pccs")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(certificate.public_bytes(Encoding.PEM))
    both = tmp_path / "both.pem"
    both.write_bytes(trusted.read_bytes() + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    state = Server(answers_of(sound))
    server = serve(state, context)
    try:
        assert fetch(state, ca_certificate=trusted) == sound
        assert refused(state).check == "pccs.connect"
        for path in (tmp_path / "missing.pem", tmp_path):
            with pytest.raises(InputError) as caught:
                fetch(state, ca_certificate=path)
            assert caught.value.check == "pccs.ca_certificate"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":{}}', "{}"),
        (' { "b" : "}" , "a" : { "x" : [1, {"a": {}}] } , "c":null}\n', '{ "x" : [1, {"a": {}}] }'),
        ('{"a":{"\\u0061":"\\""}}', '{"\\u0061":"\\""}'),
        ('{"x":"\\"a\\":{}","a":{"y":1.50e3}}', '{"y":1.50e3}'),
    ],
)
def test_members_are_cut_out_as_they_stand(text: str, value: str) -> None:
    assert _member_text(text, "a") == value
    assert json.loads(text)["a"] == json.loads(value)
