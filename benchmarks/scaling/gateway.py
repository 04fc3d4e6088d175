"""Nginx as the gateway starts it: what connections and megabytes cost, what it holds, how many replicas it takes."""

from __future__ import annotations

import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.scaling.cost import children, memory, processor_seconds

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.gateway.backends import ApiName, Backend
from ensconce.gateway.nginx import NginxGateway
from ensconce.gateway.nginx_program import NoNginx, find_nginx

__all__ = ["measure"]

_DOMAIN = "scaling.example.test"
_CONNECTIONS = 200
_HELD = 500
_BYTES = 64 << 20
_REPLICAS = (10, 100, 300)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All of it.

    Returns:
        ``connection``: processor seconds of Nginx for each connection; ``megabyte``: for each 10^6 bytes that pass;
        both with a value for each round; ``held``: bytes of memory for a connection that is open and silent;
        ``reload``: seconds until new workers have taken over, by replicas; ``replicas``: how many it takes.
    """
    found = find_nginx()
    if isinstance(found, NoNginx):
        raise SystemExit(f"no Nginx to measure: {found.reason}; {found.remedy}")
    nginx = found
    listeners: dict[ApiName, Address] = {"grpc": Address("127.0.0.1", 0)}

    def gateway(name: str) -> NginxGateway:
        return NginxGateway(nginx, folder / name, listeners, _DOMAIN)

    measured: dict[str, Any] = {"connection": [], "megabyte": []}
    with ExitStack() as stack:
        replica = stack.enter_context(_replica())
        front = gateway("gateway")
        front.start([Backend("replica-1", replica.host, replica.port, replica.port)])
        stack.callback(front.stop)
        hello, at = _hello(), front.addresses["grpc"]
        workers = children(int((folder / "gateway" / "nginx.pid").read_text()))

        def spent() -> float:
            return sum(map(processor_seconds, workers))

        for _ in range(rounds):
            before = spent()
            for _ in range(_CONNECTIONS):
                _pass(at, hello, 0)
            connections = spent() - before
            measured["connection"].append(connections / _CONNECTIONS)
            before = spent()
            _pass(at, hello, _BYTES)
            measured["megabyte"].append((spent() - before - measured["connection"][-1]) / (_BYTES / 1e6))
        before_held = sum(memory(worker)["VmRSS"] for worker in workers)
        with ExitStack() as held:
            for _ in range(_HELD):
                held.enter_context(_connected(at, hello))
            measured["held"] = (sum(memory(worker)["VmRSS"] for worker in workers) - before_held) / _HELD
        measured["workers"] = len(workers)
    measured["reload"] = {str(count): _reloads(gateway(f"reload-{count}"), count, rounds) for count in _REPLICAS}
    measured["replicas"] = _most(gateway)
    measured["connections"] = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 16384) - 64
    return measured


@contextmanager
def _replica() -> Iterator[Address]:
    """Answers a ClientHello with a byte, and takes whatever comes until the other side ends."""

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"!")
            while connection.recv(1 << 20):
                pass

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield Address(*listener.getsockname()[:2])
        listener.shutdown(socket.SHUT_RDWR)


def _hello() -> bytes:
    """A ClientHello for the service's name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=_DOMAIN)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody")


@contextmanager
def _connected(at: Address, hello: bytes) -> Iterator[socket.socket]:
    with socket.create_connection((at.host, at.port)) as connection:
        connection.sendall(hello)
        if connection.recv(1) != b"!":
            raise SystemExit("the gateway did not pass a connection on")
        yield connection


def _pass(at: Address, hello: bytes, size: int) -> None:
    part = bytes(1 << 18)
    with _connected(at, hello) as connection:
        for _ in range(size // len(part)):
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def _backends(count: int) -> list[Backend]:
    return [Backend(f"replica-{n}", f"127.{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", 8500, 8501) for n in range(count)]


def _reloads(front: NginxGateway, count: int, rounds: int) -> list[float]:
    found = []
    front.start(_backends(count))
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            front.reload(_backends(count))
            found.append(time.perf_counter() - began)
    finally:
        front.stop()
    return found


def _most(gateway: Any) -> int:
    """The largest number of replicas whose configuration Nginx takes, to within one percent."""
    least, most = 1, 100_000

    def takes(count: int) -> bool:
        front = gateway(f"replicas-{count}")
        try:
            front.start(_backends(count))
        except InputError:
            return False
        front.stop()
        return True

    while most - least > max(1, least // 100):
        middle = (least + most) // 2 if most < 4 * least else 2 * least
        least, most = (middle, most) if takes(middle) else (least, middle)
    return least
