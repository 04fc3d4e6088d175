"""Frames: what is read as a message, and what those cost who send too little, too slowly or too often."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.addresses import Address
from ensconce.errors import RefusedError, UnreachableError
from ensconce.provisioning.frames import MAX_FRAME, read_frame
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.messages import parse_answer
from ensconce.ratls.context import client_context
from ensconce.ratls.request import make_key_container
from ensconce.ratls.stream import TlsStream

SERVER_NAME = "provisioning.digits.example.test"


def drain(sock: socket.socket) -> None:
    """Read until the other side hangs up, politely or not."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(4096):
            pass


class TestFrames:
    @pytest.mark.parametrize(
        ("frame", "check"),
        [
            (b"\x00\x00\x00\x00", "provisioning.frame"),
            ((MAX_FRAME + 1).to_bytes(4, "big"), "provisioning.frame"),
            (b"\xff\xff\xff\xff" + b"x" * 100_000, "provisioning.frame"),
            (b"\x00\x00\x00\x02{]", "provisioning.message"),
            (b"\x00\x00\x00\x04null", "provisioning.message"),
            (b"\x00\x00\x00\x02[]", "provisioning.message"),
            (b"\x00\x00\x00\x08\xff\xfe\x00\x01\x02\x03\x04\x05", "provisioning.message"),
            (b"\x00\x00\x80\x00" + b"[" * 0x8000, "provisioning.message"),
            (b"\x00\x01\x00\x00" + b"9" * 0x10000, "provisioning.message"),
        ],
    )
    def test_frames_that_are_none_are_refused(self, owner: Any, raw: Any, frame: bytes, check: str) -> None:
        client = raw()
        client.stream.write(frame)
        with pytest.raises(UnreachableError) as caught:
            client.answer()
        assert caught.value.check == check
        [(event, fields)] = owner.wait_for_log(1)
        assert (event, fields["check"]) == ("key.refused", check)

    @pytest.mark.parametrize(
        "changes",
        [
            {"extra": 1},
            {"type": "grant"},
            {"type": "challenge"},
            {"type": None},
            {"quote": 5},
            {"quote": "AAA"},
            {"quote": "AA==\n"},
            {"quote": "AB=="},
            {"quote": ""},
            {"quote": "A" * 4 * 6000},
            {"certificate_request": None},
            {"models": None},
            {"models": {}},
            {"models": [{"name": "digits", "version": "1"}]},
            {"models": [{"name": "digits", "version": 1.0}]},
            {"models": [{"name": "digits", "version": True}]},
            {"models": [{"name": "digits", "version": -1}]},
            {"models": [{"name": "digits", "version": 2**63}]},
            {"models": [{"name": "../digits", "version": 1}]},
            {"models": [{"name": "digits", "version": 1, "x": 1}]},
            {"models": [{"name": "digits", "version": 1}, {"name": "digits", "version": 1}]},
            {"models": [{"name": "digits", "version": v} for v in range(65)]},
        ],
    )
    def test_fields_that_are_none_are_refused(self, raw: Any, changes: dict[str, Any]) -> None:
        sound = {"type": "request", "quote": "AAAA", "certificate_request": "AAAA", "models": []}
        client = raw()
        message = json.dumps(sound | changes).encode()
        client.stream.write(len(message).to_bytes(4, "big") + message)
        with pytest.raises(UnreachableError) as caught:
            client.answer()
        assert caught.value.check == "provisioning.message"

    def test_a_field_that_is_there_twice_is_refused(self, raw: Any) -> None:
        message = b'{"type":"request","quote":"AAAA","quote":"AAAA","certificate_request":"AAAA","models":[]}'
        client = raw()
        client.stream.write(len(message).to_bytes(4, "big") + message)
        with pytest.raises(UnreachableError) as caught:
            client.answer()
        assert "twice" in str(caught.value) or caught.value.check == "provisioning.message"

    @pytest.mark.parametrize("part", [b"", b"\x00\x00", b"\x00\x00\x10\x00", b"\x00\x00\x10\x00{"])
    def test_a_frame_that_ends_early_is_recorded(self, owner: Any, raw: Any, part: bytes) -> None:
        client = raw()
        client.stream.write(part)
        client.stream.close()
        [(_, fields)] = owner.wait_for_log(1)
        assert fields["check"] == "tls.closed"


class TestBounds:
    def test_silent_connections_end_and_others_are_served(self, owners: Callable[..., Any], enclave: Any) -> None:
        owner = owners(limits=Limits(connections=2, handshake_time=2.0, closing_time=0.5))
        silent = [socket.create_connection(Address("127.0.0.1", owner.server.port), 30) for _ in range(6)]
        assert owner.provision(enclave).secrets
        for sock in silent:
            assert sock.recv(1) == b""
            sock.close()

    def test_a_client_that_dawdles_after_the_handshake_is_cut_off(self, owners: Callable[..., Any]) -> None:
        owner = owners(limits=Limits(handshake_time=3600.0, exchange_time=1.0, closing_time=0.5))
        key = ec.generate_private_key(ec.SECP256R1())
        context = client_context(key, make_key_container(key), owner.authority.certificate)
        sock = socket.create_connection(Address("127.0.0.1", owner.server.port), 30)
        with TlsStream(context, sock, deadline=time.monotonic() + 30, server_name=SERVER_NAME) as stream:
            stream.handshake()
            read_frame(stream)

            def dawdle() -> None:
                stream.write(b"\x00\x00\x10\x00{")
                # The refusal may still arrive, or the connection be gone.
                parse_answer(read_frame(stream))

            with pytest.raises(UnreachableError) as caught:
                dawdle()
        assert caught.value.check in ("tls.timeout", "tls.closed")
        [(_, fields)] = owner.wait_for_log(1)
        assert fields["check"] == "tls.timeout"

    def test_a_handshake_that_dawdles_is_cut_off(self, owners: Callable[..., Any]) -> None:
        owner = owners(limits=Limits(handshake_time=0.3, closing_time=0.5))
        with socket.create_connection(Address("127.0.0.1", owner.server.port), 30) as sock:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")
            assert sock.recv(1) == b""
        [(_, fields)] = owner.wait_for_log(1)
        assert fields["check"] == "tls.timeout"

    def test_refusals_of_strangers_do_not_flood_the_log(self, owner: Any, enclave: Any) -> None:
        # 100 at once and one a second; these come faster.
        for _ in range(150):
            with socket.create_connection(Address("127.0.0.1", owner.server.port), 30) as sock:
                sock.sendall(b"x" * 11)
                drain(sock)
        # None of this noise keeps an enclave's refusal out of the log.
        with pytest.raises(RefusedError):
            owner.provision(enclave.but(mr_enclave=b"\x99" * 32))
        *noise, (_, refusal) = owner.log()
        assert refusal["check"] == "policy.mr_enclave"
        assert 100 <= len(noise) < 150
        # A second later the next one is recorded, and tells how many are missing since the one before.
        deadline = time.monotonic() + 30
        made, recorded = 150, len(owner.log())
        while len(owner.log()) == recorded:
            assert time.monotonic() < deadline
            with socket.create_connection(Address("127.0.0.1", owner.server.port), 30) as sock:
                sock.sendall(b"x" * 11)
                drain(sock)
            made += 1
        told = sum(int(fields.get("suppressed", 0)) for _, fields in owner.log())
        assert told > 0
        assert len(owner.log()) - 1 + told == made

    def test_many_clients_at_once_are_served(self, owners: Callable[..., Any], enclave: Any) -> None:
        owner = owners(limits=Limits(connections=4, closing_time=0.5))
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(owner.provision(enclave))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(results) == 16
        assert [event for event, _ in owner.log()] == ["key.released"] * 16
