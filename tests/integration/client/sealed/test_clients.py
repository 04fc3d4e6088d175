"""Sealed bodies under all that a client can be: with and without an event loop, bare channels, and arrays."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from base64 import b64encode
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest

from ensconce.addresses import Address
from ensconce.client import AsyncClient, Client, async_sealed_channel, async_sealed_transport, sealed_channel
from ensconce.client.codec import PREDICT, decode_response, encode_request
from ensconce.client.sealed_grpc import SealedCallError, open_sealed
from ensconce.client.sealed_http import sealed_transport
from ensconce.errors import EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.ratls.sealing import ROUTE_HEADER, SEALING_KEY_METHOD
from ensconce.serving.sealing import Sealing

NOWHERE = Address("127.0.0.1", 1)
INPUT = {"x": np.arange(3, dtype=np.float32)}
UNTOLD = InputError("predict.unimplemented", "no metadata here")
REST = "/v1/models/doubling:predict"


def predict(channel: Any, model: str = "doubling") -> Any:
    return channel.unary_unary(PREDICT, None, None)(encode_request(model, INPUT), timeout=20)


def test_arrays(world, replica) -> None:
    running = replica(required=True)
    for hedge in (None, 10.0):
        with Client(sealed_channel(running.channel(), world.service(NOWHERE)), hedge=hedge) as client:
            assert client.signatures("doubling").keys() == {"serving_default"}
            assert client.predict("doubling", INPUT)["y"].tolist() == [0, 2, 4]
            [replica_id] = client.accepted
            assert client.calls == {replica_id: 1}
            with pytest.raises(InputError) as error:
                client.predict("absent", INPUT)
            assert error.value.check == "predict.not_found"
        with pytest.raises(InputError) as closed:
            client.predict("doubling", INPUT)
        assert closed.value.check == "client.closed"


async def test_arrays_on_a_loop(world, replica) -> None:
    running = await asyncio.to_thread(replica, required=True)
    channel = await async_sealed_channel(running.async_channel(), world.service(NOWHERE))
    async with AsyncClient(channel) as client:
        answers = await asyncio.gather(*(client.predict("doubling", INPUT) for _ in range(8)))
        assert {tuple(each["y"]) for each in answers} == {(0, 2, 4)}
        with pytest.raises(InputError) as error:
            await client.predict("absent", INPUT)
        assert error.value.check == "predict.not_found"


async def test_a_channel_on_a_loop(world, replica) -> None:
    running = await asyncio.to_thread(replica, most_requests=3)
    async with await async_sealed_channel(running.async_channel(), world.service(NOWHERE)) as channel:
        for _ in range(7):
            assert decode_response(await predict(channel))["y"].tolist() == [0, 2, 4]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await predict(channel, "absent")
        assert isinstance(error.value, SealedCallError)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(InputError) as kind:
            channel.unary_stream(PREDICT)(b"")
        assert kind.value.check == "sealed.kind"
        large = {"x": np.zeros(1 << 18, np.float32)}
        answer = await channel.unary_unary(PREDICT, None, None)(encode_request("doubling", large), timeout=20)
        assert decode_response(answer)["y"].shape == (1 << 18,)


async def test_rest_on_a_loop(world, replica) -> None:
    running = await asyncio.to_thread(replica, required=True)
    base = f"https://{running.rest}"
    transport = await async_sealed_transport(httpx.AsyncHTTPTransport(verify=False), world.service(NOWHERE), base)
    async with httpx.AsyncClient(transport=transport, base_url=base, timeout=20) as client:
        answers = await asyncio.gather(*(client.post(REST, json={"instances": [float(n)]}) for n in range(8)))
        assert [each.json()["predictions"] for each in answers] == [[2.0 * n] for n in range(8)]
        assert (await client.post(REST, json={"inputs": "no"})).status_code == 400
        with pytest.raises(InputError) as error:
            await client.get("/v1/models/doubling")
        assert error.value.check == "sealed.kind"


def test_the_public_names_are_functions() -> None:
    """Whichever modules were imported before."""
    import ensconce.client as public

    assert all(not inspect.ismodule(getattr(public, name)) for name in public.__all__)


def test_futures(world, replica) -> None:
    with sealed_channel(replica().channel(), world.service(NOWHERE)) as channel:
        call = channel.unary_unary(PREDICT, None, None).future(encode_request("doubling", INPUT), timeout=20)
        assert decode_response(call.result(20))["y"].tolist() == [0, 2, 4]


class Liar(grpc.aio.UnaryUnaryClientInterceptor):
    """A balancer that ends TLS, in the clear; it answers what it likes to all but the question for a key."""

    def __init__(self, *lies: Any) -> None:
        self._lies = list(lies)
        self.bodies: list[bytes] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        method = details.method if isinstance(details.method, str) else details.method.decode()
        if method == SEALING_KEY_METHOD or not self._lies:
            return await continuation(details, request)
        self.bodies.append(request)
        lie = self._lies.pop(0)
        if isinstance(lie, grpc.StatusCode):
            raise grpc.aio.AioRpcError(lie, grpc.aio.Metadata(), grpc.aio.Metadata(), "the balancer says so", None)
        return lie


async def lied_to(world: Any, running: Any, liar: Liar) -> Any:
    channel = grpc.aio.secure_channel(
        str(running.grpc),
        grpc.ssl_channel_credentials(running.who.chain_pem),
        [("grpc.ssl_target_name_override", "digits.example.test")],
        interceptors=[liar],
    )
    return await async_sealed_channel(channel, world.service(NOWHERE), routes=1)


async def test_lies_on_a_loop(world, replica) -> None:
    running = await asyncio.to_thread(replica)
    astray = [grpc.StatusCode.FAILED_PRECONDITION] * 3
    for lies, check, kind in [
        ([b""], "sealed.answer", EvidenceError),
        ([bytes(100)], "sealed.answer", EvidenceError),
        ([grpc.StatusCode.NOT_FOUND], "sealed.refused", UnreachableError),
        ([grpc.StatusCode.UNIMPLEMENTED], "sealed.refused", UnreachableError),
        (astray, "sealed.route", UnreachableError),
    ]:
        liar = Liar(*lies)
        async with await lied_to(world, running, liar) as channel:
            with pytest.raises(kind) as error:
                await predict(channel)
        assert error.value.check == check
        assert len(liar.bodies) == len(lies)
        # Whatever was said, what went out was sealed, and anew each time.
        assert not any(b"doubling" in body for body in liar.bodies)
        assert len({body[:32] for body in liar.bodies}) == len(lies)


async def test_what_is_on_the_way_is_asked_again(world, replica) -> None:
    running = await asyncio.to_thread(replica)
    liar = Liar(*[grpc.StatusCode.UNAVAILABLE] * 2)
    async with AsyncClient(await lied_to(world, running, liar)) as client:
        client._signatures.untold("doubling", None, UNTOLD)
        assert (await client.predict("doubling", INPUT))["y"].tolist() == [0, 2, 4]
    assert len({body[:32] for body in liar.bodies}) == 2
    # Without end is not without bound.
    liar = Liar(*[grpc.StatusCode.UNAVAILABLE] * 100)
    async with AsyncClient(await lied_to(world, running, liar)) as client:
        client._signatures.untold("doubling", None, UNTOLD)
        with pytest.raises(UnreachableError):
            await client.predict("doubling", INPUT)
    assert len(liar.bodies) == 5


def test_routes_share_the_calls(world, replica) -> None:
    running = replica()
    with sealed_channel(running.channel(), world.service(NOWHERE), routes=3) as channel:
        leases = [channel.pool.lease() for _ in range(3)]
        assert len({id(lease.seat) for lease in leases}) == 3
        leases[1].release()
        assert channel.pool.lease().seat is leases[1].seat
    for routes in (0, 65):
        with running.channel() as raw, pytest.raises(InputError) as error:
            sealed_channel(raw, world.service(NOWHERE), routes=routes)
        assert error.value.check == "sealed.routes"


def test_one_balancer(world) -> None:
    with pytest.raises(InputError) as error:
        open_sealed(world.service(NOWHERE, Address("127.0.0.1", 2)))
    assert error.value.check == "sealed.balancer"
    # Nobody is there, and no other way is tried.
    with pytest.raises(UnreachableError) as missing:
        open_sealed(world.service(NOWHERE))
    assert missing.value.check == "sealed.none"


def test_a_route_to_a_refused_replica_becomes_another(world) -> None:
    good, bad = Sealing(), Sealing()
    for sealing, who in ((good, world.replica()), (bad, world.replica(mr_enclave=bytes(32)))):
        sealing.present(who.key_pem, who.chain_pem)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(503)
        asked.append(request.headers[ROUTE_HEADER])
        fields = dataclasses.asdict((bad if len(asked) == 1 else good).statement)
        return httpx.Response(200, json={name: b64encode(value).decode() for name, value in fields.items()})

    transport = sealed_transport(httpx.MockTransport(answer), world.service(NOWHERE), "https://b", routes=2)
    assert len(transport.pool.replicas) == 1
    with httpx.Client(transport=transport, base_url="https://b") as client:
        for _ in range(2):
            with pytest.raises(UnreachableError):
                client.post(REST, json={})
    # The first two at the beginning; the refused one anew when it was its turn.
    assert len(set(asked)) == len(asked) == 3

    def refuse(_request: httpx.Request) -> httpx.Response:
        fields = dataclasses.asdict(bad.statement)
        return httpx.Response(200, json={name: b64encode(value).decode() for name, value in fields.items()})

    with pytest.raises(RefusedError):
        sealed_transport(httpx.MockTransport(refuse), world.service(NOWHERE), "https://b")
