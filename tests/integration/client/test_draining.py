"""Replicas that end while there are calls, by agreement or at once: none of the calls fails."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ensconce.addresses import Address
from ensconce.client.channel import AttestedChannel, open_channel
from ensconce.client.channel_aio import open_async_channel
from ensconce.client.codec import PREDICT, encode_request
from ensconce.client.predict import Client
from ensconce.serving.fronts import FrontOptions
from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ACK, END_STREAM, ErrorCode, Setting, Type
from ensconce.serving.manager import ModelManager
from ensconce.serving.server import ModelServer
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.signatures import DEFAULT_SIGNATURE, PREDICT_METHOD, Signature, TensorSpec

FLOATS = TensorSpec("x:0", dtype_named("DT_FLOAT"), None)
CALLERS = 6
# Longer than what gRPC holds of a request by itself in order to make it again.
IMAGES = {"images": np.ones((1, 224, 224, 3), np.float32)}


class Load:
    """Callers that call without end, until they are told.

    Args:
        call: one call; what it raises is kept.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._over = threading.Event()
        self._numbers = itertools.count()
        self.done = 0
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._call()
            except BaseException as error:
                self.failures.append(error)
            self.done = next(self._numbers)


def goes_on(load: Load, wait_for, calls: int = 40) -> None:
    """Until so many more calls have ended."""
    before = load.done
    wait_for(lambda: load.done >= before + calls or load.failures, "more calls")
    assert load.failures == []


class Doubling:
    """A model that counts what it is asked."""

    signatures: Mapping[str, Signature] = {
        DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, PREDICT_METHOD, {"images": FLOATS}, {"images": FLOATS})
    }

    def __init__(self) -> None:
        self.served = 0

    def predict(self, _name: str, inputs: Mapping[str, Any], _filter: Sequence[str] = ()) -> dict[str, Any]:
        self.served += 1
        return {"images": inputs["images"] * 2}


class Replica:
    """A model server of ours, which ends as it does in an enclave that is told to."""

    def __init__(self, who: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.model, self._loop = Doubling(), loop
        manager = ModelManager()
        manager.add("digits", 1, self.model)

        async def start() -> None:
            self._server = ModelServer(
                manager,
                grpc_address="127.0.0.1:0",
                rest_address="127.0.0.1:0",
                private_key_pem=who.key_pem,
                certificate_chain_pem=who.chain_pem,
                options=FrontOptions(merge=False),
            )
            ports = await self._server.start()
            self.grpc, self.rest = (Address("127.0.0.1", port) for port in (ports.grpc, ports.rest))

        asyncio.run_coroutine_threadsafe(start(), loop).result(30)

    @property
    def served(self) -> int:
        return self.model.served

    def stop(self, grace: float) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(grace), self._loop).result(60)


@pytest.fixture
def replicas(world) -> Iterator[list[Replica]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = [Replica(world.replica(), loop) for _ in range(2)]
    yield made
    for each in made:
        each.stop(0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def channel(world, replicas) -> Iterator[AttestedChannel]:
    with open_channel(world.service(*(each.grpc for each in replicas))) as channel:
        yield channel


def test_plain_stubs_lose_no_call_to_a_replica_that_drains(replicas, channel, wait_for) -> None:
    predict, request = channel.unary_unary(PREDICT), encode_request("digits", IMAGES)
    with Load(lambda: predict(request, timeout=30)) as load:
        goes_on(load, wait_for)
        replicas[0].stop(30)
        goes_on(load, wait_for)
    assert load.failures == []
    assert all(replica.served for replica in replicas)


def test_futures_lose_none_either(replicas, channel, wait_for) -> None:
    predict, request = channel.unary_unary(PREDICT), encode_request("digits", IMAGES)
    with Load(lambda: predict.future(request, timeout=30).result()) as load:
        goes_on(load, wait_for)
        replicas[0].stop(30)
        goes_on(load, wait_for)
    assert load.failures == []


async def test_nor_does_an_asyncio_channel(world, replicas) -> None:
    request, failures, done, over = encode_request("digits", IMAGES), [], [0], asyncio.Event()
    async with await open_async_channel(world.service(*(each.grpc for each in replicas))) as channel:
        predict = channel.unary_unary(PREDICT)

        async def call() -> None:
            while not over.is_set():
                try:
                    await predict(request, timeout=30)
                except BaseException as error:
                    failures.append(error)
                done[0] += 1

        async def goes_on() -> None:
            async with asyncio.timeout(30):
                before = done[0]
                while done[0] < before + 40:
                    await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(call())
            await goes_on()
            await asyncio.to_thread(replicas[0].stop, 30)
            await goes_on()
            over.set()
    assert failures == []


def test_a_call_that_a_replica_has_not_looked_at_goes_elsewhere(world, recorder, grpc_replica) -> None:
    """It was sent whole; only what gRPC knows of HTTP/2 tells that it may be made again."""
    took: list[int] = []

    def talk(tls: ssl.SSLSocket) -> None:
        file = tls.makefile("rb")
        file.read(len(frames.PREFACE))
        tls.sendall(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20}) + frames.window_update(0, 1 << 20))
        size = 0
        while header := file.read(9):
            payload = file.read(int.from_bytes(header[:3]))
            size += len(payload) if header[3] == Type.DATA else 0
            if header[3] == Type.DATA and header[4] & END_STREAM:
                took.append(size)
                leaving.stop_listening()
                tls.sendall(frames.go_away(0, ErrorCode.NO_ERROR))
            elif header[3] == Type.PING and not header[4] & ACK:
                tls.sendall(frames.ping(payload, ack=True))

    leaving, good = recorder(world.replica(), alpn=["h2"], talk=talk), grpc_replica(world.replica())
    request = encode_request("digits", IMAGES)
    with open_channel(world.service(leaving.target, good.target)) as channel:
        predict = channel.unary_unary(PREDICT)
        assert all(predict(request, timeout=30) for _ in range(2))
    assert len(took) == 1
    assert took[0] > len(request)
    assert good.served == 2


def test_a_client_loses_none_to_a_replica_that_is_killed(replicas, channel, wait_for) -> None:
    client = Client(channel)
    with Load(lambda: client.predict("digits", IMAGES)) as load:
        goes_on(load, wait_for)
        replicas[0].stop(0)
        goes_on(load, wait_for)
    assert load.failures == []
    assert len(client.calls) == 2
