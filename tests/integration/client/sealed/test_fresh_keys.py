"""Fresh quotes over sealing keys: made for whoever asks, and believed by nobody who did not."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Any

import httpx
import pytest

from ensconce.addresses import Address
from ensconce.client import AsyncClient, Client, async_sealed_channel, sealed_channel, sealed_transport
from ensconce.client.sealed import Sealer, judge_statement
from ensconce.errors import EvidenceError, RefusedError, UnreachableError
from ensconce.evidence.spki import spki_of
from ensconce.ratls.binding import sealing_binding
from ensconce.ratls.sealing import Statement

NOWHERE = Address("127.0.0.1", 1)


def of(world: Any) -> Any:
    return world.service(NOWHERE, freshness=True)


async def test_on_a_loop(world, replica) -> None:
    running = await asyncio.to_thread(replica, quote=world.quote)
    async with AsyncClient(await async_sealed_channel(running.async_channel(), of(world), routes=1)) as client:
        assert (await client.predict("doubling", {"x": [1.0]}))["y"].tolist() == [2]


def test_a_client_that_asks_gets_one(world, replica) -> None:
    made: list[bytes] = []

    def quote(report_data: bytes) -> bytes:
        made.append(report_data)
        return world.quote(report_data)

    running = replica(quote=quote)
    with Client(sealed_channel(running.channel(), of(world), routes=1)) as client:
        assert client.predict("doubling", {"x": [1.0]})["y"].tolist() == [2]
    assert len(made) == 1
    running = replica(quote=quote)
    base = f"https://{running.rest}"
    transport = sealed_transport(httpx.HTTPTransport(verify=False), of(world), base, routes=1)
    with httpx.Client(transport=transport, base_url=base, timeout=20) as client:
        assert client.post("/v1/models/doubling:predict", json={"instances": [1.0]}).json() == {"predictions": [2.0]}
    assert len(made) == 2
    # Who does not ask costs nothing.
    sealed_channel(running.channel(), world.service(NOWHERE)).close()
    assert len(made) == 2


def test_a_server_without_quotes(world, replica) -> None:
    running = replica()
    with running.channel() as raw, pytest.raises(UnreachableError) as error:
        sealed_channel(raw, of(world))
    assert error.value.check == "sealed.none"
    assert "UNIMPLEMENTED" in (error.value.found or "")
    with httpx.Client(verify=False, base_url=f"https://{running.rest}") as client:
        for query in ("nonce=", "nonce=00", f"other={'0' * 64}", f"nonce={'0' * 64}&nonce={'0' * 64}"):
            assert client.get(f"/ensconce/sealing-key?{query}").status_code in (400, 501)


def fresh(world: Any, running: Any, nonces: bytes, **changes: Any) -> Statement:
    true = running.sealing.statement
    spki = running.who.key.public_key()
    data = sealing_binding(nonces=nonces, key=true.key, server_spki=spki_of(spki))
    return dataclasses.replace(true, quote=changes.get("quote") or world.quote(data), nonces=nonces)


def test_what_is_not_fresh(world, replica) -> None:
    running, nonce, other = replica(), os.urandom(32), os.urandom(32)
    service = of(world)
    for nonces in (nonce, other + nonce, nonce + other):
        assert judge_statement(fresh(world, running, nonces), service, nonce).key == running.sealing.statement.key

    def refused(check: str, statement: Statement, asked: bytes = nonce) -> None:
        with pytest.raises((EvidenceError, RefusedError)) as error:
            judge_statement(statement, service, asked)
        assert error.value.check == check

    old = fresh(world, running, other)
    refused("sealed.nonce", old)
    refused("sealed.nonce", running.sealing.statement)
    refused("sealed.nonce", fresh(world, running, b""))
    refused("sealed.nonce", fresh(world, running, b""), b"")
    # Not at an edge of 32 bytes, too many, cut.
    refused("sealed.nonce", fresh(world, running, other[:1] + nonce + other[1:]))
    refused("sealed.nonce", fresh(world, running, nonce * 1025))
    refused("sealed.nonce", fresh(world, running, nonce + b"\0"))
    # Somebody put ours into an old quote's list, or has the quote for another key, or of other code, or made up.
    refused("fresh.report_data", dataclasses.replace(old, nonces=other + nonce))
    another = replica()
    moved = dataclasses.replace(running.sealing.statement, quote=fresh(world, another, nonce).quote, nonces=nonce)
    refused("fresh.report_data", moved)
    refused("fresh.size", fresh(world, running, nonce, quote=bytes(1 << 15)))
    refused("policy.mr_enclave", fresh(world, running, nonce, quote=world.quote(bytes(64), mr_enclave=bytes(32))))
    with pytest.raises(EvidenceError):
        judge_statement(fresh(world, running, nonce, quote=b"\1"), service, nonce)


def test_a_new_question_is_another(world) -> None:
    sealer = Sealer(of(world))
    assert len({sealer.question() for _ in range(8)}) == 8
    assert Sealer(world.service(NOWHERE)).question() == b""
