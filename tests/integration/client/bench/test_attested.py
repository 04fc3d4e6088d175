"""Loads on replicas that prove themselves, and on one that is refused."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from ensconce.bench.run import Outcome
from ensconce.bench.schedule import Plan
from ensconce.bench.session import Measured, measure
from ensconce.bench.targets.dialect import Ask, ModelName
from ensconce.bench.targets.opening import dialect_of, open_attested
from ensconce.client.codec import PREDICT
from ensconce.errors import RefusedError, UnreachableError

ROWS = np.ones((1, 3), np.float32)


async def load(service, model="digits", connections=2, then=None, **plan) -> Measured:
    carrier = await open_attested(service, "grpc", connections)
    try:
        return await measure(
            dialect_of("grpc", ModelName(model)),
            carrier,
            lambda _: [{"images": ROWS}],
            Plan(**plan),
            timeout=5,
            chance=random.Random(7),
            tell=then or (lambda *_: None),
        )
    finally:
        await carrier.close()


async def test_shares_are_those_of_the_replicas(world, grpc_replica) -> None:
    first, second = grpc_replica(world.replica()), grpc_replica(world.replica())
    outcome: Outcome = (await load(world.service(first.target, second.target), concurrency=4, requests=60)).outcome
    assert (outcome.tally.answered, outcome.tally.failed) == (60, 0)
    shares = outcome.tally.replicas
    assert (len(shares), sum(shares.values())) == (2, 60)
    # One more than counted: the first request, whose answer is looked at.
    assert sum(map(abs, np.subtract(sorted(shares.values()), sorted((first.served, second.served))))) == 1


async def test_a_replica_that_dies_is_counted_and_the_load_goes_on(world, grpc_replica) -> None:
    first, second = grpc_replica(world.replica()), grpc_replica(world.replica())

    def kill(tally, _seconds) -> None:
        if tally.answered:
            first.stop()

    found = await load(world.service(first.target, second.target), concurrency=4, duration=0.5, then=kill)
    tally = found.outcome.tally
    assert tally.sent == tally.answered + tally.failed
    assert all(kind.startswith(("grpc ", "check ")) for kind in tally.failures)
    assert second.served > 0


async def test_nothing_is_sent_to_who_is_refused(world, grpc_replica) -> None:
    replica = grpc_replica(world.replica(mr_enclave=bytes(32)))
    with pytest.raises(RefusedError):
        await load(world.service(replica.target), requests=5)
    assert replica.served == 0


async def test_a_model_that_is_not_there_is_no_measurement(world, grpc_replica) -> None:
    replica = grpc_replica(world.replica())
    with pytest.raises(Exception, match="NOT_FOUND") as caught:
        await load(world.service(replica.target), model="absent", requests=5)
    assert caught.value.check == "bench.refused"


async def test_refusals_under_load_are_counted_by_status(world, grpc_replica) -> None:
    replica = grpc_replica(world.replica())

    def refuse(tally, _seconds) -> None:
        if tally.answered and not tally.failed:
            replica.refuses = 3

    tally = (await load(world.service(replica.target), duration=0.4, then=refuse)).outcome.tally
    assert tally.failures == {"grpc UNAVAILABLE": 3}
    assert tally.examples == {"grpc UNAVAILABLE": "too much"}


async def test_nobody_there(world, listen) -> None:
    gone = listen(lambda connection: connection.close())
    gone.stop()
    with pytest.raises(UnreachableError):
        await load(world.service(gone.address), requests=5)


async def test_rest_of_replicas(world, rest_replica) -> None:
    addresses = [rest_replica(world.replica()) for _ in range(2)]
    carrier = await open_attested(world.service(*addresses), "rest", 2)
    try:
        answers = await asyncio.gather(*(carrier.ask(Ask("/v1/models/m:predict", b"{}"), 5) for _ in range(4)))
    finally:
        await carrier.close()
    assert {answer.body for answer in answers} == {b"digits.example.test /v1/models/m:predict {}"}
    assert len({answer.replica_id for answer in answers} - {None, ""}) == 2


def test_the_method_is_tensorflow_servings() -> None:
    assert dialect_of("grpc", ModelName("m")).request({"x": ROWS}).path == PREDICT
