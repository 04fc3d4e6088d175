"""Calls that are also made elsewhere, and made again: whose answer won, and what became of the other call."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from ensconce.client.calls import Caller
from ensconce.client.channel import AttestedChannel, open_channel
from ensconce.client.channel_aio import open_async_channel
from ensconce.client.codec import PREDICT, encode_request
from ensconce.client.conduct import Conduct
from ensconce.client.predict import Client
from ensconce.client.predict_aio import AsyncClient
from ensconce.errors import InputError, UnreachableError
from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ACK, Type

IMAGES = {"images": np.arange(6, dtype=np.float32).reshape(2, 3)}
SOON = 0.01


@pytest.fixture
def replicas(world, grpc_replica) -> list[Any]:
    return [grpc_replica(world.replica()) for _ in range(2)]


@pytest.fixture
def channel(world, replicas) -> Iterator[AttestedChannel]:
    with open_channel(world.service(*(each.target for each in replicas))) as channel:
        yield channel


def asked(replicas, wait_for: Callable[..., None]) -> None:
    """The call has been made to both, whoever was asked first."""
    wait_for(lambda: [each.served for each in replicas] == [1, 1], "both to be asked")


def quick_won(client, slow, quick, wait_for: Callable[..., None]) -> None:
    """The answer was the quick one's, and the other call was cancelled at its replica."""
    assert client.calls == {quick.name: 1}
    wait_for(lambda: slow.cancelled == 1, "the slow call to be cancelled")
    assert quick.cancelled == 0
    assert (slow.served, quick.served) == (1, 1)
    wait_for(lambda: not client.channel.pool._roster.calls, "both calls to be over")


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_answer_counts_and_the_other_call_is_cancelled(replicas, channel, wait_for, first) -> None:
    slow, quick = replicas[first], replicas[1 - first]
    slow.holds = quick.holds = True
    client = Client(channel, hedge=SOON)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.predict, "digits", IMAGES)
        asked(replicas, wait_for)
        quick.holds = False
        assert np.array_equal(answer.result(30)["images"], IMAGES["images"] * 2)
    quick_won(client, slow, quick, wait_for)


@pytest.mark.parametrize("first", [0, 1])
async def test_so_it_is_on_an_event_loop(world, replicas, wait_for, first) -> None:
    slow, quick = replicas[first], replicas[1 - first]
    slow.holds = quick.holds = True
    service = world.service(*(each.target for each in replicas))
    async with AsyncClient(await open_async_channel(service), hedge=SOON) as client:
        answer = asyncio.create_task(client.predict("digits", IMAGES))
        await asyncio.to_thread(asked, replicas, wait_for)
        quick.holds = False
        assert np.array_equal((await answer)["images"], IMAGES["images"] * 2)
        assert not client.channel.pool._roster.calls
        await asyncio.to_thread(quick_won, client, slow, quick, wait_for)


def test_the_second_answer_counts_where_the_first_is_a_failure(replicas, channel, wait_for) -> None:
    client = Client(channel, hedge=SOON)
    for each in replicas:
        each.holds = True
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.predict, "digits", IMAGES)
        wait_for(lambda: all(each.served for each in replicas), "both to be asked")
        replicas[0].refuses, replicas[0].holds = 1, False
        wait_for(lambda: channel.pool._roster.calls.total() == 1, "one to have refused")
        replicas[1].holds = False
        assert np.array_equal(answer.result(30)["images"], IMAGES["images"] * 2)
    assert client.calls == {replicas[1].name: 1}
    assert [each.served for each in replicas] == [1, 1]


class Complaints:
    """What an event loop has to complain about."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.heard.append(context))

    async def none(self) -> None:
        """Nothing, and no task but the test's is left."""
        gc.collect()
        await asyncio.sleep(0)
        assert self.heard == []
        # gRPC has tasks of its own.
        assert [each for each in asyncio.all_tasks() if "AsyncCaller" in repr(each.get_coro())] == []


async def test_who_gives_up_leaves_nothing_behind(world, replicas, wait_for) -> None:
    complaints = Complaints()
    for each in replicas:
        each.holds = True
    service = world.service(*(each.target for each in replicas))
    async with AsyncClient(await open_async_channel(service), hedge=SOON) as client:
        asking = asyncio.create_task(client.predict("digits", IMAGES))
        await asyncio.to_thread(wait_for, lambda: all(each.served for each in replicas), "both to be asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not client.channel.pool._roster.calls
        await asyncio.to_thread(wait_for, lambda: all(each.cancelled for each in replicas), "both to be cancelled")
        with pytest.raises(UnreachableError) as late:
            await client.predict("digits", IMAGES, timeout=0.2)
        assert late.value.check == "predict.deadline_exceeded"
    await complaints.none()


async def test_both_fail(world, replicas) -> None:
    complaints = Complaints()
    service = world.service(*(each.target for each in replicas))
    async with AsyncClient(await open_async_channel(service), hedge=1e-6) as client:
        for each in replicas:
            each.refuses = 100
        with pytest.raises(UnreachableError) as failed:
            await client.predict("digits", IMAGES)
        assert failed.value.check == "predict.unavailable"
    await complaints.none()


@pytest.mark.parametrize("hedge", [None, SOON])
async def test_a_client_that_is_closed_says_so_to_who_waits(world, replicas, wait_for, hedge) -> None:
    complaints = Complaints()
    for each in replicas:
        each.holds = True
    service = world.service(*(each.target for each in replicas))
    client = AsyncClient(await open_async_channel(service), hedge=hedge)
    asking = asyncio.create_task(client.predict("digits", IMAGES))
    asked = 1 if hedge is None else 2
    await asyncio.to_thread(wait_for, lambda: sum(each.served for each in replicas) == asked, "the call")
    await client.close()
    # Not a CancelledError, which nobody has asked for.
    with pytest.raises((UnreachableError, InputError)):
        await asking
    with pytest.raises(InputError) as closed:
        await client.predict("digits", IMAGES)
    assert closed.value.check == "client.closed"
    await complaints.none()


def test_another_event_loop_is_refused(world, replicas) -> None:
    service = world.service(*(each.target for each in replicas))
    with asyncio.Runner() as one, asyncio.Runner() as other:
        client = AsyncClient(one.run(open_async_channel(service)))
        one.run(client.predict("digits", IMAGES))
        with pytest.raises(InputError) as refused:
            other.run(client.predict("digits", IMAGES))
        assert refused.value.check == "client.loop"

        async def stub() -> None:
            await client.channel.unary_unary(PREDICT)(encode_request("digits", IMAGES), timeout=30)

        with pytest.raises(InputError):
            other.run(stub())
        one.run(client.predict("digits", IMAGES))
        one.run(client.close())


@pytest.mark.filterwarnings("error")
def test_an_event_loop_that_ends_before_its_client(world, replicas, wait_for) -> None:
    async def use() -> AsyncClient:
        client = AsyncClient(await open_async_channel(world.service(*(each.target for each in replicas))))
        await client.predict("digits", IMAGES)
        return client

    pool = asyncio.run(use()).channel.pool
    pool.close()
    gc.collect()
    wait_for(lambda: not any(each.name.startswith(("pool", "tunnel")) for each in threading.enumerate()), "the end")


def test_what_a_lost_connection_took_with_it_is_asked_again_however_much_it_was(
    world, recorder, grpc_replica, wait_for
) -> None:
    asked: list[bytes] = []

    def talk(tls: Any) -> None:
        file = tls.makefile("rb")
        file.read(len(frames.PREFACE))
        tls.sendall(frames.settings({}))
        while header := file.read(9):
            payload = file.read(int.from_bytes(header[:3]))
            if header[3] == Type.HEADERS:
                asked.append(payload)
            elif header[3] == Type.PING and not header[4] & ACK:
                tls.sendall(frames.ping(payload, ack=True))

    silent, good = recorder(world.replica(), alpn=["h2"], talk=talk), grpc_replica(world.replica(), holds=True)
    request, number = encode_request("digits", IMAGES), 40
    with (
        open_channel(world.service(silent.target, good.target)) as channel,
        ThreadPoolExecutor(number) as threads,
    ):
        caller = Caller(channel, Conduct())
        answers = [threads.submit(caller.call, PREDICT, request, kind="digits", timeout=60.0) for _ in range(number)]
        wait_for(lambda: len(asked) == number // 2, "half of the calls to be at each")
        silent.stop_listening()
        silent.cut()
        good.holds = False
        assert all(answer.result(60) for answer in answers)
    assert good.served == number
