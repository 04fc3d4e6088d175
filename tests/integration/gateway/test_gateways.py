"""What both gateways must do, with real processes and real TLS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.gateway.backends import Backend, Gateway
from ensconce.gateway.choice import open_gateway

DOMAIN = "digits.example.test"


def test_passes_both_ways_and_to_both_apis(gateway: Gateway, replicas, connect) -> None:
    (replica,) = replicas(1)
    gateway.start([replica.backend])
    assert gateway.running
    assert set(gateway.addresses) == {"grpc", "rest"}
    for api in ("grpc", "rest"):
        tls, name = connect(gateway, api=api)
        assert name == "replica-1"
        tls.sendall(b"ping")
        assert tls.recv(100) == b"ping"


def test_server_name_in_any_case(gateway: Gateway, replicas, connect) -> None:
    gateway.start([replicas(1)[0].backend])
    assert connect(gateway, DOMAIN.upper())[1] == "replica-1"


@pytest.mark.parametrize("name", ["other.example.test", "sub." + DOMAIN, None])
def test_other_names_are_closed(gateway: Gateway, replicas, connect, name: str | None) -> None:
    (replica,) = replicas(1)
    gateway.start([replica.backend])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gateway, name)
    assert connect(gateway)[1] == "replica-1"
    assert replica.accepted == 1


def test_what_is_not_tls_is_closed(gateway: Gateway, replicas) -> None:
    (replica,) = replicas(1)
    gateway.start([replica.backend])
    with socket.create_connection(gateway.addresses["rest"], timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: digits.example.test\r\n\r\n")
        assert plain.recv(100) == b""
    assert replica.accepted == 0


def test_large_transfer_arrives_whole(gateway: Gateway, replicas, connect) -> None:
    gateway.start([replicas(1)[0].backend])
    tls, _ = connect(gateway)
    block = os.urandom(1 << 20)
    for _ in range(8):
        tls.sendall(block[: 1 << 16])
        got = b""
        while len(got) < 1 << 16:
            got += tls.recv(1 << 16)
        assert got == block[: 1 << 16]


def test_connections_spread_evenly(gateway: Gateway, replicas, connect) -> None:
    gateway.start([replica.backend for replica in replicas(3)])
    names = Counter(connect(gateway)[1] for _ in range(12))
    assert names == {"replica-1": 4, "replica-2": 4, "replica-3": 4}


def test_a_new_replica_gets_its_share_at_once(gateway: Gateway, replicas, connect) -> None:
    old = replicas(2)
    gateway.start([replica.backend for replica in old])
    first, _ = connect(gateway)
    (new,) = replicas(1)
    gateway.reload([replica.backend for replica in [*old, new]])
    assert "replica-3" in {connect(gateway)[1] for _ in range(3)}
    first.sendall(b"still here")
    assert first.recv(100) == b"still here"


def test_a_replica_taken_out_gets_no_new_connection(gateway: Gateway, replicas, connect) -> None:
    both = replicas(2)
    gateway.start([replica.backend for replica in both])
    kept = [connect(gateway) for _ in range(2)]
    gateway.reload([both[0].backend])
    assert {connect(gateway)[1] for _ in range(6)} == {"replica-1"}
    for tls, _ in kept:
        tls.sendall(b"drain")
        assert tls.recv(100) == b"drain"


def test_a_replica_that_is_down_is_passed_over(gateway: Gateway, replicas, connect) -> None:
    both = replicas(2)
    gateway.start([replica.backend for replica in both])
    both[0].stop()
    assert {connect(gateway)[1] for _ in range(6)} == {"replica-2"}


def test_from_none_to_one_to_none(gateway: Gateway, replicas, connect) -> None:
    (replica,) = replicas(1)
    gateway.start([])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gateway)
    gateway.reload([replica.backend])
    assert connect(gateway)[1] == "replica-1"
    gateway.reload([])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gateway)


def test_all_replicas_down_closes_the_connection(gateway: Gateway, connect, find_port) -> None:
    port = find_port()
    gateway.start([Backend("gone", "127.0.0.1", port, port)])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gateway)


def test_access_log_has_sizes_and_names_and_no_content(
    gateway: Gateway, replicas, connect, tmp_path: Path, wait_for
) -> None:
    (replica,) = replicas(1)
    gateway.start([replica.backend])
    log = tmp_path / "gate way" / "access.log"
    tls, _ = connect(gateway)
    tls.sendall(b"secret pixels")
    tls.recv(100)
    tls.close()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gateway, "other.example.test")
    wait_for(lambda: log.read_text().count("\n") == 2, "two lines in the access log")
    passed, refused = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda e: e["status"])
    assert set(passed) == {"time", "sni", "upstream", "bytes_in", "bytes_out", "seconds", "status"}
    assert (passed["sni"], passed["upstream"], passed["status"]) == (DOMAIN, f"127.0.0.1:{replica.port}", 200)
    # nginx does not count the ClientHello, which it reads before it has a session with the replica.
    assert passed["bytes_in"] > 50
    assert passed["bytes_out"] > 500
    assert (refused["sni"], refused["upstream"], refused["bytes_out"]) == ("other.example.test", "", 0)
    assert refused["status"] >= 400
    assert b"secret" not in b"".join(file.read_bytes() for file in log.parent.iterdir())


def test_port_in_use(gateway: Gateway, tmp_path: Path, replicas) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname()[:2])
        second = open_gateway(
            gateway.kind, tmp_path / "second", grpc=Address("127.0.0.1", 0), rest=address, domain=DOMAIN
        )
        with pytest.raises(InputError, match="in use") as refused:
            second.start([replicas(1)[0].backend])
        second.stop()
    assert refused.value.check == "gateway.address"
    assert refused.value.found == f"127.0.0.1:{address[1]}"
    assert "ss -ltnp" in (refused.value.remedy or "")
    assert not second.running


def test_the_port_is_free_after_stop_and_a_restart_works(
    gateway: Gateway, replicas, connect, tmp_path: Path, find_port
) -> None:
    (replica,) = replicas(1)
    addresses = {api: Address("127.0.0.1", find_port()) for api in ("grpc", "rest")}
    first, again = (open_gateway(gateway.kind, tmp_path / "twice", **addresses, domain=DOMAIN) for _ in range(2))
    try:
        first.start([replica.backend])
        assert first.addresses == addresses
        first.stop()
        first.stop()
        assert not first.running
        again.start([replica.backend])
        assert again.addresses == addresses
        tls, name = connect(again)
        assert name == "replica-1"
        tls.close()
    finally:
        first.stop()
        again.stop()


def test_ipv6(gateway: Gateway, replicas, connect, tmp_path: Path) -> None:
    try:
        socket.create_server(Address("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    second = open_gateway(gateway.kind, tmp_path / "six", grpc=Address("::1", 0), rest=Address("::1", 0), domain=DOMAIN)
    try:
        second.start([replicas(1)[0].backend])
        tls, name = connect(second)
        assert name == "replica-1"
        tls.close()
    finally:
        second.stop()


def test_stop_leaves_no_process_even_with_an_open_connection(
    gateway: Gateway, replicas, connect, tmp_path: Path, processes_in
) -> None:
    gateway.start([replicas(1)[0].backend])
    connect(gateway)
    assert processes_in(tmp_path / "gate way")
    gateway.stop()
    assert processes_in(tmp_path / "gate way") == set()


def test_reload_after_its_process_was_killed(gateway: Gateway, tmp_path: Path, processes_in, wait_for) -> None:
    gateway.start([])
    for number in processes_in(tmp_path / "gate way"):
        with contextlib.suppress(ProcessLookupError):  # its workers end with nginx's first process
            os.kill(number, signal.SIGKILL)
    wait_for(lambda: not gateway.running, "the gateway to be gone")
    with pytest.raises(InputError) as refused:
        gateway.reload([])
    assert refused.value.check == f"gateway.{gateway.kind}"
    gateway.stop()


SUPERVISOR = """
import pathlib, sys
from ensconce.addresses import Address
from ensconce.gateway import open_gateway
any_port = Address("127.0.0.1", 0)
gateway = open_gateway(sys.argv[1], pathlib.Path(sys.argv[2]), grpc=any_port, rest=any_port, domain="a.test")
gateway.start([])
print("up", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_survive_its_supervisor(
    gateway: Gateway, tmp_path: Path, processes_in, wait_for, number: signal.Signals
) -> None:
    folder = tmp_path / "orphan"
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, gateway.kind, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"up\n"
        assert processes_in(folder)
    finally:
        supervisor.send_signal(number)
        supervisor.communicate()
    wait_for(lambda: not processes_in(folder), "every process of the gateway to be gone")


def test_a_slow_reader_does_not_fill_the_gateways_memory(
    gateway: Gateway, connect, tmp_path: Path, processes_in
) -> None:
    """A backend that never reads: the sender must be stopped long before 256 MiB have gone into the gateway."""
    with socket.create_server(Address("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        gateway.start([Backend("deaf", "127.0.0.1", port, port)])
        hello = ssl.MemoryBIO()
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=DOMAIN).do_handshake()
        with socket.create_connection(gateway.addresses["grpc"], timeout=0.5) as client:
            client.sendall(hello.read())
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 256 << 20:
                    sent += client.send(bytes(1 << 20))
    assert sent < 64 << 20


def test_half_closed_connections_still_deliver(gateway: Gateway) -> None:
    """The client ends its direction right after its last byte; what the replica still sends must arrive."""
    if gateway.kind == "nginx":
        pytest.skip("nginx has proxy_half_close from 1.21.4 only, and TLS closes both directions at once")
    with socket.create_server(Address("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        gateway.start([Backend("half", "127.0.0.1", port, port)])
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=DOMAIN).do_handshake()
        with socket.create_connection(gateway.addresses["grpc"], timeout=10) as client:
            client.sendall(hello.read())
            client.shutdown(socket.SHUT_WR)
            replica, _ = server.accept()
            with replica:
                while replica.recv(65536):
                    pass
                replica.sendall(b"after the end")
            assert client.recv(100) == b"after the end"
            assert client.recv(100) == b""
