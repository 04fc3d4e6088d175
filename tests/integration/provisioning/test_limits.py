"""Rates, places and the address of the status: what the server does when there is too much of something."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import PlatformKind
from ensconce.appraisal.dcap import verify_quote
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.evidence.quote import parse_quote
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.provisioning.frames import write_frame
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.messages import ModelVersion, Request, encode
from ensconce.ratls.async_stream import ALLOWANCE, MAX_RECORDS
from ensconce.ratls.context import client_context
from ensconce.ratls.request import make_key_container
from ensconce.ratls.stream import TlsStream

WaitFor = Callable[[Callable[[], object], str], None]


def connect(owner: Any, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", owner.server.port), 30, source_address=(host, 0))


def hung_up(sock: socket.socket) -> bool:
    """Whether the server has ended the connection."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


class TestRates:
    def test_an_address_that_asks_too_often_is_told_so(
        self, owners: Callable[..., Any], enclave: Any, wait_for: WaitFor
    ) -> None:
        owner = owners(limits=Limits(address_rate=0.001, address_burst=2, closing_time=0.5))
        for _ in range(2):
            assert owner.provision(enclave).secrets
        quoted = len(enclave.quoted)
        with pytest.raises(UnreachableError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "provisioning.rate"
        # Before its evidence was asked for: one quote, for its own certificate request.
        assert len(enclave.quoted) == quoted + 1
        with pytest.raises(UnreachableError):
            owner.provision(enclave)
        # Whoever still goes on is not even shaken hands with.
        with connect(owner) as sock:
            wait_for(lambda: hung_up(sock), "the server to hang up")
        # And nobody else pays for it.
        with connect(owner, "127.0.0.2") as sock:
            assert not select.select([sock], [], [], 0.2)[0]
        events = [(event, fields.get("check")) for event, fields in owner.log()]
        assert events == [("key.released", None)] * 2 + [("key.refused", "provisioning.rate")] * 2

    def test_an_identity_that_asks_too_often_is_told_so_before_it_costs_anything(
        self, owners: Callable[..., Any], enclave: Any
    ) -> None:
        verified: list[bytes] = []

        def verify(quote: bytes, *arguments: Any, **named: Any) -> Any:
            verified.append(quote)
            return verify_quote(quote, *arguments, **named)

        owner = owners(limits=Limits(identity_rate=0.001, identity_burst=2, closing_time=0.5), verify=verify)
        for _ in range(2):
            assert owner.provision(enclave).secrets
        assert len(verified) == 4
        with pytest.raises(UnreachableError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "provisioning.rate"
        assert len(verified) == 4
        event, fields = owner.log()[-1]
        assert (event, fields["check"]) == ("key.refused", "provisioning.rate")
        assert "'digits replica'" in fields["found"]
        # What was not verified is nobody's yet.
        assert "identity" not in fields

    def test_those_who_asked_at_once_are_counted_when_they_are_known(
        self, owners: Callable[..., Any], enclave: Any
    ) -> None:
        together = threading.Barrier(2)

        def verify(*arguments: Any, **named: Any) -> Any:
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(20)
            return verify_quote(*arguments, **named)

        owner = owners(limits=Limits(identity_rate=0.001, identity_burst=1, closing_time=0.5), verify=verify)
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(owner.provision, enclave) for _ in range(2)]
            failed = [type(each.exception(30)) for each in asked]
        assert sorted(failed, key=str) == sorted([UnreachableError, type(None)], key=str)
        refused = next(fields for event, fields in owner.log() if event == "key.refused")
        assert (refused["check"], refused["identity"]) == ("provisioning.rate", "digits replica")

    def test_who_lies_about_its_identity_takes_nothing_from_it(self, owners: Callable[..., Any], enclave: Any) -> None:
        owner = owners(limits=Limits(identity_rate=0.001, identity_burst=2, closing_time=0.5))

        def forge(report_data: bytes) -> bytes:
            genuine = enclave.quote(bytes(64))
            return bytes(genuine[: 48 + 320] + report_data + genuine[48 + 384 :])

        for _ in range(5):
            with pytest.raises(EvidenceError, match=r"quote\.signature"):
                owner.provision(enclave, quote=forge)
        for _ in range(2):
            assert owner.provision(enclave).secrets

    def test_an_ipv6_host_is_its_network(self) -> None:
        from ensconce.provisioning.connection import _network

        assert _network("2001:db8:1:2:3:4:5:6") == _network("2001:db8:1:2::1") == "2001:db8:1:2::/64"
        assert _network("2001:db8:1:3::1") != _network("2001:db8:1:2::1")
        assert _network("::ffff:192.0.2.1") == _network("192.0.2.1") == "192.0.2.1"
        assert _network("fe80::1%eth0") == "fe80::/64"


class TestPlaces:
    # Where a place comes free with its time alone, it does not come free within the test.

    def test_one_address_cannot_take_the_places_of_others(
        self, owners: Callable[..., Any], enclave: Any, wait_for: WaitFor
    ) -> None:
        limits = Limits(connections=8, connections_per_address=6, handshake_time=3600.0, grace=0.1, closing_time=0.5)
        owner = owners(limits=limits)
        with contextlib.ExitStack() as held:
            crowd = [held.enter_context(connect(owner, "127.0.0.9")) for _ in range(20)]
            assert owner.provision(enclave).secrets
            wait_for(lambda: sum(hung_up(sock) for sock in crowd) >= 14, "14 of the crowd to be sent away")

    def test_strangers_who_finish_their_handshakes_give_way_as_well(
        self, owners: Callable[..., Any], enclave: Any
    ) -> None:
        owner = owners(limits=Limits(connections=4, exchange_time=3600.0, grace=0.1, closing_time=0.5))
        key = ec.generate_private_key(ec.SECP256R1())
        context = client_context(key, make_key_container(key), owner.authority.certificate)
        idle = []
        for number in range(12):
            sock = connect(owner, f"127.0.1.{1 + number}")
            stream = TlsStream(context, sock, deadline=time.monotonic() + 30, server_name="provisioning.x")
            stream.handshake()
            idle.append(stream)
        assert owner.provision(enclave).secrets
        for stream in idle:
            stream.close()

    def test_a_crowd_before_the_door_keeps_nobody_else_waiting(self, owners: Callable[..., Any], enclave: Any) -> None:
        # All places are within their grace, and whoever came later stayed behind the crowd in the kernel's queue: for
        # fifteen graces and more, where it ought to be one.
        owner = owners(limits=Limits(connections=8, handshake_time=3600.0, grace=2.0, closing_time=0.5))
        with contextlib.ExitStack() as held:
            for number in range(160):
                held.enter_context(connect(owner, f"127.0.3.{1 + number % 4}"))
            assert owner.provision(enclave, timeout=15.0).secrets

    def test_strangers_see_to_no_line_of_the_servers_own_log(
        self, owner: Any, raw: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "ensconce")
        for _ in range(5):
            client = raw(hello=False)
            client.stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.stream._socket.close()
        owner.wait_for_log(5)
        assert {record.message for record in caplog.records} <= {"key.refused"}

    def test_more_than_any_conversation_takes_is_not_read(self, owner: Any, raw: Any) -> None:
        client = raw()

        def flood() -> None:
            for _ in range(ALLOWANCE):
                client.stream.write(b"x")  # a record for each byte

        client.stream.write((65536).to_bytes(4, "big"))
        with pytest.raises(UnreachableError):
            flood()
        [(_, fields)] = owner.wait_for_log(1)
        # A record costs what a key update costs, which has no bytes at all: 256 kB of them took 0.3 s of the loop.
        assert (fields["check"], fields["found"]) == ("tls.excess", f"{MAX_RECORDS + 1} TLS records")

    def test_a_request_in_many_records_is_read(self, owner: Any, raw: Any, enclave: Any) -> None:
        client = raw()
        request = client.request(enclave)
        models = (ModelVersion(name="digits", version=1),)
        quote = enclave.quote(client.binding(request))
        message = encode(Request(quote=quote, certificate_request=request, models=models))
        framed = len(message).to_bytes(4, "big") + message
        for start in range(0, len(framed), 100):
            client.stream.write(framed[start : start + 100])
        assert client.answer().secrets

    def test_a_reset_during_anything_harms_nobody(self, owner: Any, raw: Any, enclave: Any) -> None:
        for _ in range(3):
            client = raw()
            client.stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.stream._socket.close()
        with connect(owner) as sock:
            sock.sendall(b"\x16\x03\x01")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert owner.provision(enclave).secrets


class TestOutages:
    class Hanging:
        """Collateral that does not come before the end of the test."""

        def __init__(self) -> None:
            self.asked = threading.Semaphore(0)
            self.over = threading.Event()

        def get_for(self, quote: bytes) -> Any:
            self.asked.release()
            self.over.wait()
            raise UnreachableError("collateral.unreachable", "it did not come")

    @pytest.fixture
    def hanging(self) -> Iterator[Hanging]:
        source = self.Hanging()
        yield source
        source.over.set()

    def start(self, owners: Callable[..., Any], policy: Any, hanging: Hanging, exchange_time: float) -> Any:
        return owners(
            appraiser=Appraiser(policy, hanging, lambda: int(time.time())),  # type: ignore[arg-type]
            limits=Limits(exchange_time=exchange_time, closing_time=0.2),
        )

    def test_evidence_that_cannot_be_appraised_in_time_is_refused(
        self, owners: Callable[..., Any], policy: Any, enclave: Any, hanging: Hanging
    ) -> None:
        owner = self.start(owners, policy, hanging, 2.0)
        with pytest.raises(UnreachableError) as caught:
            owner.provision(enclave)
        assert caught.value.check == "provisioning.timeout"
        [(event, fields)] = owner.wait_for_log(1)
        assert (event, fields["check"]) == ("key.refused", "provisioning.timeout")

    def test_those_who_wait_for_collateral_hold_up_nobody_else(
        self, owners: Callable[..., Any], policy: Any, enclave: Any, hanging: Hanging, raw: Any
    ) -> None:
        owner = self.start(owners, policy, hanging, 3600.0)
        waiting = []
        for _ in range(24):
            client = raw(owner=owner)
            request = client.request(enclave)
            models = (ModelVersion(name="digits", version=1),)
            message = encode(
                Request(quote=enclave.quote(client.binding(request)), certificate_request=request, models=models)
            )
            write_frame(client.stream, message)
            waiting.append(client)
        assert hanging.asked.acquire(timeout=30)
        other = raw(owner=owner)
        with pytest.raises(EvidenceError):
            other.ask(b"no quote at all", other.request(enclave))
        # Nor do they hold up the server's end.
        owner.server.shutdown()

    def test_a_kind_whose_collateral_does_not_come_leaves_the_places_to_others(
        self, owners: Callable[..., Any], policy: Any, enclave: Any, hanging: Hanging, raw: Any
    ) -> None:
        class OtherKind(SimulatedVendor):
            FMSPC = bytes.fromhex("00906ED50000")

        vendor = enclave.vendor
        stranger = type(enclave)(OtherKind(bytes(32), vendor.created), enclave.report)

        class Source:
            def get_for(self, quote: bytes) -> Any:
                kind = PlatformKind.of(parse_quote(quote))
                return (
                    vendor.collateral(vendor.created)
                    if kind.fmspc == vendor.FMSPC.hex().upper()
                    else (hanging.get_for(quote))
                )

        owner = owners(
            appraiser=Appraiser(policy, Source(), lambda: int(time.time())),  # type: ignore[arg-type]
            limits=Limits(connections=16, exchange_time=3600.0, closing_time=0.2),
        )
        assert owner.provision(enclave).secrets
        for _ in range(16):
            client = raw(owner=owner)
            request = client.request(stranger)
            models = (ModelVersion(name="digits", version=1),)
            quote = stranger.quote(client.binding(request))
            write_frame(client.stream, encode(Request(quote=quote, certificate_request=request, models=models)))
        assert owner.provision(enclave).secrets
        with pytest.raises(UnreachableError) as caught:
            owner.provision(stranger)
        assert caught.value.check == "provisioning.busy"
        assert {fields["check"] for event, fields in owner.log() if event == "key.refused"} == {"provisioning.busy"}

    def test_nor_the_end_of_the_server(
        self, owners: Callable[..., Any], policy: Any, enclave: Any, hanging: Hanging
    ) -> None:
        owner = self.start(owners, policy, hanging, 3600.0)
        client = threading.Thread(target=self.ask_in_vain, args=(owner, enclave))
        client.start()
        assert hanging.asked.acquire(timeout=30)
        owner.server.shutdown()
        client.join(30)
        assert not client.is_alive()
        assert owner.log() == []

    def ask_in_vain(self, owner: Any, enclave: Any) -> None:
        with pytest.raises(UnreachableError):
            owner.provision(enclave)


class TestStatus:
    def get(self, owner: Any, request: bytes) -> tuple[int, bytes]:
        with socket.create_connection(("127.0.0.1", owner.server.status_port), 30) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while data := sock.recv(65536):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head else 0, body

    @pytest.fixture
    def owner(self, owners: Callable[..., Any]) -> Any:
        return owners(status=Address("127.0.0.1", 0))

    def test_what_it_tells(self, owner: Any, enclave: Any) -> None:
        def get(path: str) -> tuple[int, bytes]:
            return self.get(owner, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

        owner.provision(enclave)
        assert get("/healthz") == (200, b"{}\n")
        assert get("/readyz")[0] == 200
        status, text = get("/metrics")
        assert status == 200
        for line in (
            'ensconce_provisioning_releases_total{wire="v2"} 1.0',
            'ensconce_provisioning_handshakes_total{outcome="done"} 1.0',
            "ensconce_provisioning_log_entries 1.0",
            "ensconce_provisioning_policy_serial 1.0",
        ):
            assert line in text.decode()
        head = json.loads(get("/log/head")[1])
        assert head["size"] == 1
        assert json.loads(get("/log/consistency?first=1&second=1")[1])["path"] == []
        assert b"wrap key" not in text + get("/log/head")[1]

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"GET /healthz/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
            (b"GET /log/consistency?first=2&second=9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /log/consistency?first=1&first=1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /log/consistency?first=-1&second=1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /log/consistency?a&b&c&d HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
            (os.urandom(200) + b"\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\n", 0),
            (b"", 0),
        ],
    )
    def test_what_it_refuses(self, owner: Any, request_: bytes, status: int) -> None:
        assert self.get(owner, request_)[0] == status
        assert self.get(owner, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200

    def test_those_who_dawdle_keep_nobody_out(self, owner: Any) -> None:
        with contextlib.ExitStack() as held:
            for number in range(64):
                sock = socket.create_connection(
                    ("127.0.0.1", owner.server.status_port), 5, source_address=(f"127.0.4.{1 + number % 2}", 0)
                )
                held.enter_context(sock).sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
            for _ in range(5):
                assert self.get(owner, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200

    def test_it_has_places_of_its_own(self, owner: Any, enclave: Any, wait_for: WaitFor) -> None:
        address = ("127.0.0.1", owner.server.status_port)
        with contextlib.ExitStack() as held:
            crowd = [held.enter_context(socket.create_connection(address, 30)) for _ in range(80)]
            assert owner.provision(enclave).secrets
            wait_for(lambda: len(select.select(crowd, [], [], 0)[0]) >= 16, "16 to give way")
            assert len(select.select(crowd, [], [], 0)[0]) == 16

    def test_a_log_that_cannot_be_read_is_not_ready(self, owners: Callable[..., Any]) -> None:
        class Broken:
            def head(self) -> Any:
                raise InputError("audit.read", "cannot read /secret/place")

        owner = owners(status=Address("127.0.0.1", 0), audit=Broken())
        request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
        assert self.get(owner, request % b"/healthz")[0] == 200
        for path in (b"/readyz", b"/log/head"):
            status, body = self.get(owner, request % path)
            assert status == 503
            assert json.loads(body) == {"error": {"check": "audit.read"}}
        assert self.get(owner, request % b"/metrics")[0] == 200

    def test_a_state_is_logged_when_it_changes(self, owners: Callable[..., Any], caplog: Any) -> None:
        class Flapping:
            broken = True

            def head(self) -> Any:
                if self.broken:
                    raise InputError("audit.read", "cannot read /secret/place")
                return type("Head", (), {"size": 1})

        audit = Flapping()
        owner = owners(status=Address("127.0.0.1", 0), audit=audit)
        caplog.set_level("INFO", "ensconce")
        for broken in (True, False, True):
            audit.broken = broken
            for _ in range(3):
                status, _ = self.get(owner, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert status == (503 if broken else 200)
        assert [record.message for record in caplog.records] == ["not ready", "ready again", "not ready"]

    def test_a_taken_port_is_an_input_error(self, owner: Any, owners: Callable[..., Any]) -> None:
        with pytest.raises(InputError) as caught:
            owners(status=Address("127.0.0.1", owner.server.status_port))
        assert caught.value.check == "provisioning.status"
