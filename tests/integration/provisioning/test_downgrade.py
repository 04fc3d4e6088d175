"""Somebody in the network who rewrites the first words: whatever is taken away or changed, the handshake fails."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ensconce.appraisal.policy import WireV1
from ensconce.errors import EnsconceError

ALPN, VERSIONS = 16, 43
Change = Callable[[int, bytes], bytes | None]


def rewritten(record: bytes, change: Change) -> bytes:
    """A ClientHello, RFC 8446 section 4.1.2, in its record; each extension replaced by what ``change`` makes of it."""
    hello = record[9:]
    at = 34 + 1 + hello[34]  # version, random, session id
    at += 2 + int.from_bytes(hello[at : at + 2], "big")  # cipher suites
    at += 1 + hello[at]  # compression
    head, rest, kept = hello[:at], hello[at + 2 :], b""
    while rest:
        kind, size = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        data, rest = rest[4 : 4 + size], rest[4 + size :]
        if (data := change(kind, data)) is not None:  # type: ignore[assignment]
            kept += kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
    body = head + len(kept).to_bytes(2, "big") + kept
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return record[:3] + len(message).to_bytes(2, "big") + message


CHANGES: dict[str, Change] = {
    "ALPN taken out": lambda kind, data: None if kind == ALPN else data,
    "another version of the protocol": lambda kind, data: data.replace(b"ensconce/1", b"ensconce/0"),
    "another protocol beside it": lambda kind, data: b"\0\x0e\x0aensconce/1\x02h2" if kind == ALPN else data,
    "TLS 1.2 alone": lambda kind, data: b"\x02\x03\x03" if kind == VERSIONS else data,
    "TLS 1.2 as it used to be asked for": lambda kind, data: None if kind == VERSIONS else data,
    "ALPN and TLS 1.3 taken out": lambda kind, data: None if kind in (ALPN, VERSIONS) else data,
}


@pytest.fixture
def between(listen: Any) -> Iterator[Callable[..., Any]]:
    """Opens a port that passes everything on to an address, with the first record changed."""
    opened: list[Any] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def start(port: int, change: Change) -> Any:
        def talk(client: socket.socket) -> None:
            with client, socket.create_connection(("127.0.0.1", port), 30) as server:
                record = client.recv(5, socket.MSG_WAITALL)
                record += client.recv(int.from_bytes(record[3:5], "big"), socket.MSG_WAITALL)
                server.sendall(rewritten(record, change))
                back = threading.Thread(target=pass_on, args=(server, client))
                back.start()
                pass_on(client, server)
                back.join(10)

        opened.append(listen(talk))
        return opened[-1]

    yield start
    for listener in opened:
        listener.stop()


@pytest.fixture(params=[False, True], ids=["v2 alone", "v1 as well"])
def serving(request: pytest.FixtureRequest, owners: Callable[..., Any], policy: Any) -> Any:
    """An owner whose policy lets no identity, or the very one that asks, use Gramine's protocol too."""
    if not request.param:
        return owners()
    [first, *others] = policy.identities
    lax = dataclasses.replace(first, wire_v1=WireV1(secret="model/digits/1", form="raw"))
    return owners(policy=dataclasses.replace(policy, identities=(lax, *others)))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_hello_fails_the_handshake(serving: Any, enclave: Any, between: Any, change: Change) -> None:
    middle = between(serving.server.port, change)
    with pytest.raises(EnsconceError) as caught:
        serving.provision(enclave, servers=[str(middle.address)])
    assert caught.value.check in ("tls.handshake", "tls.closed")
    # Nothing was quoted for the channel, and nothing released, in any version of the protocol.
    assert len(enclave.quoted) == 1
    assert {event for event, _ in serving.wait_for_log(1)} == {"key.refused"}


def test_an_unchanged_hello_passes(serving: Any, enclave: Any, between: Any) -> None:
    middle = between(serving.server.port, lambda kind, data: data)
    assert serving.provision(enclave, servers=[str(middle.address)]).secrets
