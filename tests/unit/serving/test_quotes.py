"""Fresh quotes: for whom, how often, how many at once, and what strangers learn when there is none."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.errors import InputError
from ensconce.ratls.freshness import FRESH, server_report_data
from ensconce.serving.quotes import Quotes
from ensconce.serving.tls import ServingCertificate, TlsContext
from ensconce.serving.tls_object import TlsObject
from ensconce.tfserving.refusal import Code, RequestError

NONCE = bytes(32)


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "replica")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def connected(
    context: TlsContext, *, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, offer: str | None = None
) -> TlsObject:
    """The server's end of a TLS connection in memory."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.maximum_version = maximum
    if offer is not None:
        client_context.set_alpn_protocols([offer])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client)
    done: set[object] = set()
    while len(done) < 2:
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    return server


@pytest.fixture
def channel(pair: tuple[bytes, bytes]) -> TlsObject:
    return connected(ServingCertificate(*pair).http2_context)


async def refused(quotes: Quotes, channel: TlsObject | None, nonce: bytes = NONCE) -> tuple[Code, str]:
    with pytest.raises(RequestError) as caught:
        await quotes.over(channel, nonce)
    return caught.value.code, caught.value.problem


async def test_over_the_nonce_and_the_channel(pair: tuple[bytes, bytes], channel: TlsObject) -> None:
    quotes = Quotes(lambda report_data: b"quote over " + report_data)
    assert await quotes.over(channel, NONCE) == b"quote over " + server_report_data(channel.connection, NONCE)
    other = connected(ServingCertificate(*pair).http2_context)
    assert await quotes.over(other, NONCE) != b"quote over " + server_report_data(channel.connection, NONCE)
    quotes.close()


async def test_one_in_ten_seconds_on_a_connection(channel: TlsObject) -> None:
    now = [100.0]
    quotes = Quotes(bytes, clock=lambda: now[0])
    await quotes.over(channel, NONCE)
    now[0] += 9.9
    assert (await refused(quotes, channel))[0] is Code.RESOURCE_EXHAUSTED
    now[0] += 0.2
    await quotes.over(channel, NONCE)
    quotes.close()


async def test_only_on_tls_1_3_and_over_a_whole_nonce(pair: tuple[bytes, bytes], channel: TlsObject) -> None:
    quotes = Quotes(bytes)
    old = connected(ServingCertificate(*pair).http2_context, maximum=ssl.TLSVersion.TLSv1_2)
    for unfit in (None, old):
        assert (await refused(quotes, unfit))[0] is Code.FAILED_PRECONDITION
    for nonce in (b"", bytes(31), bytes(33)):
        assert (await refused(quotes, channel, nonce))[0] is Code.INVALID_ARGUMENT
    quotes.close()


async def test_few_wait(pair: tuple[bytes, bytes]) -> None:
    go, context = threading.Event(), ServingCertificate(*pair).http2_context
    made = []

    def quote(report_data: bytes) -> bytes:
        assert go.wait(30)
        made.append(report_data)
        return b"quote"

    quotes = Quotes(quote)
    waiting = [asyncio.create_task(quotes.over(connected(context), NONCE)) for _ in range(64)]
    await asyncio.sleep(0)
    assert (await refused(quotes, connected(context)))[0] is Code.RESOURCE_EXHAUSTED
    go.set()
    assert await asyncio.gather(*waiting) == [b"quote"] * 64
    assert await quotes.over(connected(context), NONCE) == b"quote"
    assert len(set(made)) == 65
    quotes.close()


async def test_strangers_do_not_learn_why_there_is_none(channel: TlsObject) -> None:
    def quote(_: bytes) -> bytes:
        raise InputError("platform.gramine", "secret of the platform", found="/dev/attestation/quote")

    quotes = Quotes(quote)
    code, text = await refused(quotes, channel)
    assert code is Code.UNAVAILABLE
    assert text == "The platform makes no quote now [platform.gramine]"
    quotes.close()


def test_it_is_agreed_on_only_where_there_are_quotes(pair: tuple[bytes, bytes]) -> None:
    for quotes, expected in ((Quotes(bytes), FRESH["h2"]), (None, "")):
        context = ServingCertificate(*pair, quotes=quotes).http2_context
        assert connected(context, offer=FRESH["h2"]).selected_alpn_protocol() == expected
        assert connected(context, offer="h2").selected_alpn_protocol() == "h2"
        assert connected(context, offer="http/1.1").selected_alpn_protocol() == ""
