"""``ensconce provision serve`` as a process, under fire."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ensconce.errors import UnreachableError
from ensconce.provisioning.frames import read_frame
from ensconce.ratls.context import client_context
from ensconce.ratls.request import make_key_container
from ensconce.ratls.stream import TlsStream

SERVER_NAME = "provisioning.digits.example.test"


class Crowd:
    """Strangers from a thousand addresses, each of whom behaves badly in one way."""

    def __init__(self, server: Any, size: int) -> None:
        self._server = server
        self._key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(server.owner.ca_file.read_bytes())
        self._context = client_context(self._key, make_key_container(self._key), authority)
        self._hello = self._first_words()
        self.sockets: list[socket.socket] = []
        self._streams: list[TlsStream] = []
        self._slow: list[tuple[socket.socket, int]] = []
        self._came = 0
        self.add(size)

    def add(self, count: int) -> None:
        ways = (self.silent, self.half_a_hello, self.slowly, self.noise, self.idle, self.half_a_frame, self.deaf)
        for number in range(self._came, self._came + count):
            self._address = f"127.{1 + number % 4}.{number // 250}.{1 + number % 250}"
            ways[number % len(ways)]()
        self._came += count

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._server.port), 30, source_address=(self._address, 0))
        self.sockets.append(sock)
        return sock

    def shaken(self) -> TlsStream:
        stream = TlsStream(self._context, self.connect(), deadline=time.monotonic() + 30, server_name=SERVER_NAME)
        self._streams.append(stream)
        with contextlib.suppress(UnreachableError):
            stream.handshake()
            read_frame(stream)
        return stream

    def silent(self) -> None:
        self.connect()

    def half_a_hello(self) -> None:
        self.connect().sendall(self._hello[:100])

    def slowly(self) -> None:
        self._slow.append((self.connect(), 0))

    def noise(self) -> None:
        self.connect().sendall(os.urandom(2000))

    def idle(self) -> None:
        self.shaken()

    def half_a_frame(self) -> None:
        with contextlib.suppress(UnreachableError):
            self.shaken().write((65536).to_bytes(4, "big") + b"x" * 65000)

    def deaf(self) -> None:
        """Sends what is too long again and again, and never reads."""
        stream = self.shaken()
        with contextlib.suppress(UnreachableError):
            stream.write(b"\xff" * 50_000)

    def drip(self) -> None:
        """Another byte of each slow hello."""
        for number, (sock, sent) in enumerate(self._slow):
            with contextlib.suppress(OSError):
                sock.send(self._hello[sent : sent + 1])
            self._slow[number] = (sock, sent + 1)

    def _first_words(self) -> bytes:
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(SERVER_NAME.encode())
        connection.set_connect_state()
        with contextlib.suppress(SSL.WantReadError):
            connection.do_handshake()
        return connection.bio_read(4096)

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if wanted < 1200:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_honest_client_is_served_among_a_thousand_others(
    server: Any, many_files: None, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    def answered() -> float:
        """Seconds that an honest client waits for its keys."""
        began = time.monotonic()
        assert server.ask(("digits", 1)).secrets
        return time.monotonic() - began

    def here() -> float:
        found: float = server.metric("ensconce_provisioning_connections")
        return found

    server.start()
    alone = [answered() for _ in range(3)]
    before = server.memory()
    crowd = Crowd(server, 1000)
    try:
        times = []
        for _ in range(5):
            while here() < 500:  # on a slow machine the first have been sent away before the last come
                crowd.add(100)
            crowd.drip()
            times.append(answered())
        assert server.get("/readyz")[0] == 200
        assert here() >= 500
        grown = server.memory() - before
        # A connection in its handshake, OpenSSL's buffers included, takes some 60 kB; a frame that is not whole 64.
        assert grown < 150_000_000, grown
        # None of them is left out of the log for good, and none of them grew it beyond its budget.
        _, entries = server.owner.verified_log()
        assert len(entries) < 250
    finally:
        crowd.close()
    # Two seconds, unless the machine is so busy with other things that it takes long without any crowd.
    wait_for(lambda: here() == 0, "the crowd to be gone")
    alone += [answered() for _ in range(3)]
    assert max(times) < max(2, 20 * max(alone)), (times, alone)
    assert server.end() == 0
