"""Fetching collateral from real HTTP servers on the loopback interface, of Intel's shapes and of others."""

from __future__ import annotations

import functools
import json
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.http import Pace
from ensconce.appraisal.pccs import _member_text, fetch_collateral
from ensconce.appraisal.root import SimulatedRoot
from ensconce.errors import InputError, UnreachableError
from ensconce.platform.simulated.certificates import Party, issue
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000
FMSPC = SimulatedVendor.FMSPC.hex().upper()
V4 = "/sgx/certification/v4/"
TDX_V4 = "/tdx/certification/v4/"
KIND = PlatformKind("sgx", FMSPC, "platform")


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
    pauses: list[float] = field(default_factory=list)
    url: str = ""

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


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


def serve(state: Server) -> ThreadingHTTPServer:
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
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture
def pccs(sound: Collateral) -> Iterator[Server]:
    state = Server(answers_of(sound))
    server = serve(state)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def roots(vendor: SimulatedVendor) -> tuple[str, ...]:
    return ("intel", vendor.root_name)


def fetch(pccs: Server, kind: PlatformKind = KIND, **options: Any) -> Collateral:
    pace = Pace(total_s=10, pause_s=1, jitter=lambda: 0.5, sleep=pccs.pause)
    return fetch_collateral(pccs.url, kind, **({"roots": ("intel",), "pace": pace} | options))


def refused(pccs: Server, **options: Any) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        fetch(pccs, **options)
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
    pccs.url += "/sgx/certification/v4/"  # as sgx_default_qcnl.conf has it
    assert fetch(pccs) == sound


def test_trust_domains_have_documents_of_their_own_and_the_same_revocation_lists(
    pccs: Server, vendor: SimulatedVendor
) -> None:
    tdx = vendor.collateral(NOW, CollateralRecipe(tee="tdx", ca="processor"))
    for path, answer in answers_of(tdx).items():
        pccs.answers[path if path.endswith("crl") else TDX_V4 + path] = answer
    assert fetch(pccs, PlatformKind("tdx", FMSPC, "processor")) == tdx
    assert [urllib.parse.unquote(path) for path in pccs.asked] == [
        f"{V4}pckcrl?ca=processor&encoding=der",
        f"{TDX_V4}tcb?fmspc={FMSPC}&update=standard",
        f"{TDX_V4}qe/identity?update=standard",
        f"{V4}rootcacrl",
    ]


def test_dialects(pccs: Server, sound: Collateral) -> None:
    pccs.answers["pckcrl"].body = sound.pck_crl.hex().upper().encode() + b"\n"
    pccs.answers["rootcacrl"].body = sound.root_ca_crl
    tcb = pccs.answers["tcb"]
    tcb.headers = {"SGX-TCB-Info-Issuer-Chain": tcb.headers["TCB-Info-Issuer-Chain"]}
    identity = pccs.answers["qe/identity"]
    identity.body = b' {\n"signature" : "%s" , "enclaveIdentity" : %s }\r\n' % (
        sound.qe_identity_signature.hex().encode(),
        sound.qe_identity.encode(),
    )
    assert fetch(pccs) == sound


@pytest.mark.parametrize("path", ["pckcrl", "tcb", "qe/identity", "rootcacrl"])
@pytest.mark.parametrize("status", [302, 404, 461, 503])
def test_refusals_name_the_status(pccs: Server, path: str, status: int) -> None:
    pccs.answers[path].status = status
    error = refused(pccs)
    if (path, status) == ("rootcacrl", 404):
        assert error.check == "pccs.root_ca_crl"
    else:
        assert error.check == "pccs.status"
        assert error.found == f"HTTP status {status}"
    assert path in error.problem
    assert len(pccs.pauses) == (2 if status == 503 else 0)


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


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
def test_a_server_that_trickles_is_left_in_the_end(listen: Callable[..., Any], said: bytes) -> None:
    left = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)
        while not left.wait(0.02):
            connection.sendall(b"X: y\r\n" if said and not said.endswith(b"\r\n\r\n") else b"")

    listener = listen(talk)
    try:
        state = Server({}, url=f"http://{listener.address}")
        assert refused(state, pace=Pace(total_s=0.4)).check == "pccs.time"
    finally:
        left.set()
        listener.stop()


@pytest.mark.parametrize(
    "fmspc", ["", "00606A00000", "00606A0000000", "../../../../x", "00606A00000g", "00606A000000\n"]
)
def test_platforms_that_are_none(fmspc: str) -> None:
    with pytest.raises(InputError):
        PlatformKind("sgx", fmspc, "platform")
    assert PlatformKind("sgx", "00606a000000", "platform").fmspc == "00606A000000"


class PointingVendor(SimulatedVendor):
    """A vendor whose root certificate says that its revocation list is somewhere else."""

    points_to = ""

    @functools.cached_property
    def root(self) -> Party:
        arguments = {"validity": self.validity(30), "crl_url": self.points_to, "path_length": 1}
        return issue("Intel SGX Root CA", self.key("root"), None, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def pcs(vendor: SimulatedVendor) -> Iterator[tuple[Server, PointingVendor]]:
    """A server without /rootcacrl, as Intel's own is, and with what the root points to."""
    state = Server({})
    server = serve(state)
    kind = type("Pointing", (PointingVendor,), {"points_to": f"{state.url}/IntelSGXRootCA.der"})
    pointing: PointingVendor = kind(b"\x05" * 32, vendor.created)
    state.answers = answers_of(pointing.collateral(NOW))
    del state.answers["rootcacrl"]
    state.answers["/IntelSGXRootCA.der"] = Answer(pointing.collateral(NOW).root_ca_crl)
    yield state, pointing
    server.shutdown()
    server.server_close()


def test_without_rootcacrl_the_root_says_where_its_list_is(pcs: tuple[Server, PointingVendor]) -> None:
    state, pointing = pcs
    assert fetch(state, roots=(pointing.root_name,)) == pointing.collateral(NOW)
    assert state.asked[-1] == "/IntelSGXRootCA.der"


def test_but_only_a_root_that_is_accepted(pcs: tuple[Server, PointingVendor]) -> None:
    """Otherwise whoever speaks for the server could make this machine ask any other."""
    state, pointing = pcs
    error = refused(state, roots=("intel",))
    assert error.check == "pccs.root_ca_crl"
    assert error.found == pointing.root_name
    assert state.asked[-1] == f"{V4}rootcacrl"
    # A certificate that only looks like the accepted one is another.
    chain = urllib.parse.quote(replace(pointing.collateral(NOW), tcb_info="").pck_crl_issuer_chain)
    state.answers["pckcrl"].headers["SGX-PCK-CRL-Issuer-Chain"] = chain[: len(chain) // 2]
    assert refused(state, roots=(pointing.root_name,)).check == "pccs.root_ca_crl"


@pytest.mark.parametrize("where", ["ftp://127.0.0.1/x.der", "ldap://x/y", "file:///etc/passwd", "http:/x"])
def test_and_only_to_the_web(vendor: SimulatedVendor, pccs: Server, where: str) -> None:
    pointing = type("Pointing", (PointingVendor,), {"points_to": where})(b"\x05" * 32, vendor.created)
    pccs.answers = answers_of(pointing.collateral(NOW))
    del pccs.answers["rootcacrl"]
    assert refused(pccs, roots=(pointing.root_name,)).check == "pccs.root_ca_crl"


def test_a_list_elsewhere_is_bounded_too(pcs: tuple[Server, PointingVendor]) -> None:
    state, pointing = pcs
    state.answers["/IntelSGXRootCA.der"] = Answer(bytes(1024 * 1024 + 1))
    assert refused(state, roots=(pointing.root_name,)).check == "pccs.size"
    state.answers["/IntelSGXRootCA.der"] = Answer(b"", {"Location": f"{state.url}{V4}pckcrl"}, 302)
    assert refused(state, roots=(pointing.root_name,)).check == "pccs.status"


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        fetch_collateral("https://127.0.0.1:1", KIND, roots=(), ca_file=tmp_path / "missing.pem")
    assert caught.value.check == "pccs.ca_file"


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
