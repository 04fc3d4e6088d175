"""Fresh quotes over the client's nonce and its very channel: asked before the first byte, and by call."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import time

import httpx
import pytest
from OpenSSL import SSL

from ensconce.addresses import Address
from ensconce.client.attested import AttestedSocket, connect_tls
from ensconce.client.channel import open_channel
from ensconce.client.freshness import judge_fresh
from ensconce.client.rest import http_client
from ensconce.client.transport import open_transport
from ensconce.errors import EnsconceError, EvidenceError, RefusedError, UnreachableError
from ensconce.gateway import Backend, open_gateway
from ensconce.ratls.freshness import FRESH, client_report_data
from ensconce.ratls.stream import TlsStream
from ensconce.serving.quotes import Quotes
from ensconce.serving.tls import ServingCertificate
from ensconce.tfserving.messages import QuoteRequest, QuoteResponse

DOMAIN = "digits.example.test"
OTHER_CODE = bytes(32)
QUOTE = "/ensconce.Attestation/Quote"


def ask(world, target: Address, *, alpn="h2", **options) -> AttestedSocket:
    return connect_tls(
        target, DOMAIN, world.appraiser(), authority=world.authority.certificate, alpn=alpn, freshness=True, **options
    )


@pytest.mark.parametrize("number", [0, 1], ids=["gRPC", "REST"])
def test_a_fresh_quote_before_the_first_byte(world, serve, number) -> None:
    asked: list[bytes] = []

    def quote(report_data: bytes) -> bytes:
        asked.append(report_data)
        return world.quote(report_data)

    targets = serve(world.replica(), quote)
    for count in (1, 2):
        with ask(world, targets[number], alpn=("h2", "http/1.1")[number]) as attested:
            assert attested.fresh is not None
            assert attested.fresh.report.report_data == asked[-1]
            assert len(set(asked)) == count
            if number:
                attested.tls.write(b"GET /v1/models/digits HTTP/1.1\r\nhost: x\r\n\r\n")
                assert attested.tls.read(12) == b"HTTP/1.1 404"


def test_without_it_nothing_is_asked(world, serve) -> None:
    targets = serve(world.replica(), lambda _: pytest.fail("nobody asked"))
    with connect_tls(
        targets[0], DOMAIN, world.appraiser(), authority=world.authority.certificate, alpn="h2"
    ) as attested:
        assert attested.fresh is None


@pytest.mark.parametrize(
    ("quote", "kind", "check"),
    [
        (lambda world: lambda _: world.quote(bytes(64)), EvidenceError, "fresh.report_data"),
        (lambda world: lambda data: world.quote(data)[:-1], EvidenceError, None),
        (lambda world: lambda data: world.quote(data, OTHER_CODE), RefusedError, "policy.mr_enclave"),
        (lambda world: lambda data: world.quote(data, debug=True), RefusedError, "policy.debug"),
        (lambda world: lambda data: bytes(17_000), EvidenceError, "fresh.size"),
    ],
    ids=["another channel's", "cut off", "another enclave's", "of a debug enclave", "too long"],
)
def test_a_quote_that_is_not_right(world, serve, quote, kind, check) -> None:
    target, _ = serve(world.replica(), quote(world))
    with pytest.raises(kind) as refused:
        ask(world, target)
    assert check is None or refused.value.check == check


def test_a_platform_that_makes_none(world, serve) -> None:
    def quote(_report_data: bytes) -> bytes:
        raise UnreachableError("platform.daemon", "gone")

    target, _ = serve(world.replica(), quote)
    with pytest.raises(UnreachableError) as failed:
        ask(world, target)
    assert failed.value.check == "fresh.none"


def test_a_server_that_knows_nothing_of_it(world, grpc_replica, recorder) -> None:
    silent = recorder(world.replica(), alpn=["h2"])
    for target in (grpc_replica(world.replica()).target, silent.target):
        with pytest.raises(UnreachableError) as failed:
            ask(world, target)
        assert failed.value.check in {"tls.alpn", "tls.handshake"}
    assert silent.received == b""


class Middleman:
    """A host that ends TLS with a key that leaked from a replica, and passes on what it is asked to the replica."""

    def __init__(self, who, target: Address, listen) -> None:
        self._contexts = ServingCertificate(who.key_pem, who.chain_pem, quotes=Quotes(bytes))
        self._target = target
        self.overheard = b""
        self._listener = listen(self._talk)

    @property
    def address(self) -> Address:
        return self._listener.address

    def _talk(self, connection: socket.socket) -> None:
        context = self._contexts.http2_context._context
        assert context is not None
        with contextlib.suppress(EnsconceError), TlsStream(context, connection, deadline=time.monotonic() + 20) as ours:
            ours.handshake()
            nonce = ours.read(32)
            with TlsStream(
                _context(), socket.create_connection(self._target), deadline=time.monotonic() + 20, server_name=DOMAIN
            ) as theirs:
                theirs.handshake()
                theirs.write(nonce)
                size = theirs.read(4)
                ours.write(size + theirs.read(int.from_bytes(size, "big")))
            while True:
                self.overheard += ours.read(1)


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([FRESH["h2"].encode()])
    return context


def test_a_host_that_has_the_key_and_passes_the_question_on_is_refused(world, serve, listen) -> None:
    replica = world.replica()
    target, _ = serve(replica)
    middleman = Middleman(replica, target, listen)
    # Its certificate and key are the replica's own, so nothing but the channel tells them apart.
    with ask(world, target):
        pass
    with pytest.raises(EvidenceError) as refused:
        ask(world, middleman.address)
    assert refused.value.check == "fresh.report_data"
    assert middleman.overheard == b""


def test_a_fresh_quote_of_another_accepted_enclave_is_refused(world, serve) -> None:
    """Both are accepted, but the certificate's key belongs to one of them."""
    target, _ = serve(world.replica())
    with ask(world, target) as attested:
        nonce = os.urandom(32)
        report_data = client_report_data(attested.tls.connection, nonce)
        other = world.appraiser(mr_enclave=OTHER_CODE)
        with pytest.raises(EvidenceError) as refused:
            judge_fresh(world.quote(report_data, OTHER_CODE), report_data, attested.acceptance, other)
        assert refused.value.check == "fresh.identity"
        assert judge_fresh(world.quote(report_data), report_data, attested.acceptance, world.appraiser())


def test_who_speaks_before_the_answer_is_cut_off(world, serve) -> None:
    target, _ = serve(world.replica())
    stream = TlsStream(_context(), socket.create_connection(target), deadline=time.monotonic() + 20, server_name=DOMAIN)
    with stream:
        stream.handshake()
        stream.write(bytes(33))
        with pytest.raises(UnreachableError):
            stream.read(1)


def test_on_every_connection_of_a_pool_through_a_gateway(world, serve, tmp_path) -> None:
    asked: list[bytes] = []

    def quote(report_data: bytes) -> bytes:
        asked.append(report_data)
        return world.quote(report_data)

    grpc_target, rest_target = serve(world.replica(), quote)
    gateway = open_gateway(
        "embedded", tmp_path / "gateway", grpc=Address("127.0.0.1", 0), rest=Address("127.0.0.1", 0), domain=DOMAIN
    )
    gateway.start([Backend("replica", "127.0.0.1", grpc_target.port, rest_target.port)])
    try:
        addresses = {name: Address(*address) for name, address in gateway.addresses.items()}
        with open_channel(world.service(addresses["grpc"], freshness=True), connections=2) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert [check(b"", timeout=30) for _ in range(4)] == [b"\x08\x01"] * 4
            assert len(asked) == sum(channel.pool.opened.values()) == 2
        transport = open_transport(world.service(addresses["rest"], freshness=True), connections=1)
        with httpx.Client(transport=transport, base_url=f"http://{DOMAIN}", trust_env=False) as client:
            assert client.get("/openapi.json").status_code == 200
            assert len(set(asked)) == 3
    finally:
        gateway.stop()


def test_by_call_over_grpc(world, serve) -> None:
    target, _ = serve(world.replica())
    with open_channel(world.service(target), connections=1) as channel:
        quote = channel.unary_unary(QUOTE, QuoteRequest.SerializeToString, QuoteResponse.FromString)
        assert quote(QuoteRequest(nonce=bytes(32)), timeout=30).quote
        with pytest.raises(Exception, match="one quote in 10 seconds"):
            quote(QuoteRequest(nonce=bytes(32)), timeout=30)
        with pytest.raises(Exception, match="32 bytes"):
            quote(QuoteRequest(nonce=bytes(31)), timeout=30)


def test_by_call_over_rest(world, serve) -> None:
    _, target = serve(world.replica())
    with http_client(target, DOMAIN, world.appraiser(), authority=world.authority.certificate) as client:
        nonce = base64.b64encode(bytes(32)).decode()
        answer = client.post("/ensconce/attestation:quote", json={"nonce": nonce})
        assert base64.b64decode(answer.json()["quote"])
        assert client.post("/ensconce/attestation:quote", json={"nonce": nonce}).status_code == 429
        for wrong in ({"nonce": "AAAA"}, {"nonce": 1}, {}, {"nonce": "!"}, {"nonce": nonce, "more": 1}):
            assert client.post("/ensconce/attestation:quote", json=wrong).status_code == 400
