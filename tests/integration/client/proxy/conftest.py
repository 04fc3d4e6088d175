"""Proxies that run in a thread of the test, in front of the replicas of the world."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import httpx
import pytest

from ensconce.addresses import Address
from ensconce.proxy.program import Proxy, Running, Side

FREE = Address("127.0.0.1", 0)


class Started:
    """A proxy that runs; ``at`` says where each of its listeners is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
        self._loop = loop
        self.at: dict[str, str] = {}
        asyncio.run_coroutine_threadsafe(self._start(proxy), loop).result(10)

    async def _start(self, proxy: Proxy) -> None:
        self.running = Running(proxy)
        await self.running.start(self.at.__setitem__)

    @property
    def replicas(self) -> list[str]:
        """Of gRPC, as /readyz tells."""
        return sorted(self.status("/readyz").json()["grpc"]["replicas"])

    def status(self, path: str) -> httpx.Response:
        return httpx.get(f"http://{self.at['status']}{path}", trust_env=False)

    def stop(self, grace: float = 0) -> None:
        asyncio.run_coroutine_threadsafe(self.running.stop(grace), self._loop).result(10)


@pytest.fixture
def proxy(world) -> Iterator[Callable[..., Started]]:
    """Starts proxies to gRPC at some addresses, and REST at others."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made: list[Started] = []

    def make(
        *targets: Address, rest: Address | None = None, place: Any = FREE, certificate: Any = None, **options: Any
    ) -> Started:
        grpc_side = Side(place, world.service(*targets, **options)) if targets else None
        rest_side = Side(FREE, world.service(rest, **options)) if rest else None
        made.append(Started(loop, Proxy(grpc=grpc_side, rest=rest_side, status=FREE, certificate=certificate)))
        return made[-1]

    yield make
    for each in made:
        each.stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Probe:
    """A gRPC server behind TLS for every method there is, which passes bytes only.

    Each message comes back; of "/Many" as often as its number says, of "/Wait" when it is over. Metadata ``ask-...``
    come back as ``told-...`` before, and ``end-...`` as trailers behind.
    """

    def __init__(self, who: Any) -> None:
        self.cancelled = threading.Event()
        self.metadata: dict[str, Any] = {}
        self.time_left = 0.0
        self.served = 0
        unbounded = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(self,), options=unbounded)
        credentials = grpc.ssl_server_credentials([(who.key_pem, who.chain_pem)])
        self.target = Address("127.0.0.1", self._server.add_secure_port("127.0.0.1:0", credentials))
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def service(self, details: Any) -> grpc.RpcMethodHandler:
        self.metadata = dict(details.invocation_metadata)
        self.path = details.method
        self.served += 1
        return grpc.stream_stream_rpc_method_handler(self._talk)

    def _talk(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.time_left = context.time_remaining() or 0.0
        waits = self.path.endswith("/Wait")
        if waits and not context.add_callback(self.cancelled.set):  # before a thread took it
            self.cancelled.set()
        asked = self.metadata
        context.send_initial_metadata(
            tuple(("told-" + name[4:], value) for name, value in asked.items() if name[:4] == "ask-")
        )
        context.set_trailing_metadata(tuple(each for each in asked.items() if each[0][:4] == "end-"))
        if waits:
            self.cancelled.wait(30)
        for message in messages:
            yield from [message] * (int(message[:8]) if self.path.endswith("/Many") else 1)
        if self.path.endswith("/Refuse"):
            context.abort(grpc.StatusCode.DATA_LOSS, "50 % is lost \u2013 so what")


@pytest.fixture
def probe(world) -> Iterator[Callable[..., Probe]]:
    made: list[Probe] = []

    def make(who: Any = None) -> Probe:
        made.append(Probe(who or world.replica()))
        return made[-1]

    yield make
    for each in made:
        each.stop()


class Wire:
    """A TCP connection's way to an address, which can be cut."""

    def __init__(self, target: Address, listen: Callable[..., Any]) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._lock, self._is_cut = threading.Lock(), False
        self._listener = listen(self._talk)
        self.address: Address = self._listener.address

    def cut(self) -> None:
        self._listener.stop()
        with self._lock:
            gone, self._is_cut = self._open, True
        for each in gone:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _talk(self, near: socket.socket) -> None:
        far = socket.create_connection(self._target)
        with self._lock:
            if self._is_cut:
                near.close()
                far.close()
                return
            self._open += [near, far]
        back = threading.Thread(target=self._copy, args=(far, near))
        back.start()
        self._copy(near, far)
        back.join()
        near.close()
        far.close()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def wire(listen) -> Iterator[Callable[[Address], Wire]]:
    made: list[Wire] = []

    def make(target: Address) -> Wire:
        made.append(Wire(target, listen))
        return made[-1]

    yield make
    for each in made:
        each.cut()
