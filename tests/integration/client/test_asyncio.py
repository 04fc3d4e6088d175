"""The same on an event loop: gRPC's asyncio channel, httpx's asynchronous client, and the client for arrays."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest

from ensconce.client.channel_aio import open_async_channel
from ensconce.client.codec import PREDICT, encode_request
from ensconce.client.predict_aio import AsyncClient
from ensconce.client.transport import open_async_transport
from ensconce.errors import InputError, RefusedError, UnreachableError
from ensconce.tfserving.messages import PredictRequest, PredictResponse

DOMAIN = "digits.example.test"
OTHER_CODE = bytes(32)
IMAGES = {"images": np.arange(6, dtype=np.float32).reshape(2, 3)}


async def test_stubs_work_on_the_channel(world, grpc_replica) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    async with await open_async_channel(world.service(*(each.target for each in replicas))) as channel:
        await channel.channel_ready()
        assert isinstance(channel, grpc.aio.Channel)
        predict = channel.unary_unary(
            PREDICT,
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
            _registered_method=True,
        )
        request = PredictRequest.FromString(encode_request("digits", IMAGES))
        answers = await asyncio.gather(*(predict(request, timeout=30) for _ in range(6)))
        assert {tuple(answer.outputs["images"].float_val) for answer in answers} == {(0, 2, 4, 6, 8, 10)}
        assert [replica.served for replica in replicas] == [3, 3]
        call = predict(request, timeout=30)
        await call
        assert await call.code() is grpc.StatusCode.OK
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await predict(PredictRequest.FromString(encode_request("absent", IMAGES)), timeout=30)
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_streams(world, serve) -> None:
    target, _ = await asyncio.to_thread(serve, world.replica())
    async with await open_async_channel(world.service(target, freshness=True), connections=1) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)(b"", timeout=30)
        async for answer in watch:
            assert answer == b"\x08\x01"
            watch.cancel()
            break


async def test_interceptors(world, grpc_replica) -> None:
    seen = []

    class Watch(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, details, request):
            seen.append(details.method)
            return await continuation(details, request)

    service = world.service(grpc_replica(world.replica()).target)
    async with await open_async_channel(service, connections=1, interceptors=[Watch()]) as channel:
        await channel.unary_unary(PREDICT, None, None)(encode_request("digits", IMAGES), timeout=30)
    assert seen in ([PREDICT], [PREDICT.encode()])


async def test_a_replica_that_is_swapped_later_is_refused_with_the_true_reason(world, grpc_replica) -> None:
    honest = grpc_replica(world.replica())
    async with await open_async_channel(world.service(honest.target), connections=1) as channel:
        predict = channel.unary_unary(PREDICT, None, None)
        request = encode_request("digits", IMAGES)
        await predict(request, timeout=30)
        await asyncio.to_thread(honest.stop)
        impostor = grpc_replica(world.replica(mr_enclave=OTHER_CODE), honest.port)
        with pytest.raises(RefusedError) as refused:
            await predict(request, timeout=30)
        assert refused.value.check == "policy.mr_enclave"
        assert impostor.served == 0


async def test_a_refused_replica_gets_no_channel(world, grpc_replica) -> None:
    with pytest.raises(RefusedError):
        await open_async_channel(world.service(grpc_replica(world.replica(debug=True)).target))


async def test_arrays(world, grpc_replica) -> None:
    replicas = [grpc_replica(world.replica(), refuses=1) for _ in range(2)]
    async with AsyncClient(await open_async_channel(world.service(*(each.target for each in replicas)))) as client:
        for _ in range(4):
            outputs = await client.predict("digits", IMAGES)
            assert np.array_equal(outputs["images"], IMAGES["images"] * 2)
        assert sum(client.calls.values()) == 4
        assert set(client.accepted) == set(client.calls)
        with pytest.raises(InputError) as failed:
            await client.predict("absent", IMAGES)
        assert failed.value.check == "predict.not_found"


async def test_http(world, rest_replica) -> None:
    targets = [rest_replica(world.replica()) for _ in range(2)]
    transport = await open_async_transport(world.service(*targets))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{DOMAIN}", trust_env=False) as client:
        answers = await asyncio.gather(*(client.post("/x", content=b"y") for _ in range(4)))
        assert {answer.text for answer in answers} == {f"{DOMAIN} /x y"}
        with pytest.raises(UnreachableError) as refused:
            await client.post("/ends-with-the-connection", content=b"whole?")
        assert refused.value.check == "http.length"
        assert not transport.pool._roster.calls


async def test_http_to_a_replica_that_is_refused_later(world, recorder) -> None:
    server = recorder(world.replica())
    transport = await open_async_transport(world.service(server.target), connections=1)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{DOMAIN}", trust_env=False) as client:
        for seat in transport.pool._roster.seats:
            seat.tunnel._again = lambda: (_ for _ in ()).throw(RefusedError("policy.x", "swapped"))
        server.cut()
        for _ in range(2):
            with pytest.raises((RefusedError, httpx.TransportError)) as failed:
                await client.get("/")
        assert isinstance(failed.value, RefusedError)
