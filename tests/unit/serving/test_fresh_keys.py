from __future__ import annotations

import asyncio
import os
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.errors import EnsconceError
from ensconce.evidence.spki import spki_of
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.binding import sealing_binding
from ensconce.ratls.sealing import MOST_NONCES
from ensconce.serving.fresh_keys import FreshKeys
from ensconce.serving.quotes import Quotes
from ensconce.serving.sealing import Sealing
from ensconce.tfserving.refusal import Code, RequestError

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def sealing() -> Sealing:
    made = Sealing()
    chain = CertificateAuthority.create("owner", 1_700_000_000).issue_server(
        KEY.public_key(), "a.example", now=1_700_000_000
    )
    made.present(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), chain)
    return made


class Platform:
    """Makes quotes when it is told to; they are what they were asked over."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.go = threading.Semaphore(0)

    def quote(self, report_data: bytes) -> bytes:
        self.asked.append(report_data)
        assert self.go.acquire(timeout=20)
        return report_data


class Clock:
    now = 100.0

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_all_who_wait_share_the_next_quote(sealing: Sealing) -> None:
    platform, clock = Platform(), Clock()
    quotes = Quotes(platform.quote)
    keys = FreshKeys(sealing, quotes, clock=clock, sleep=clock.sleep)
    first = asyncio.create_task(keys.statement(os.urandom(32)))
    await until(lambda: platform.asked)
    nonces = [os.urandom(32) for _ in range(50)]
    others = [asyncio.create_task(keys.statement(nonce)) for nonce in nonces]
    others += [asyncio.create_task(keys.statement(nonces[0]))]
    gone = asyncio.create_task(keys.statement(os.urandom(32)))
    await until(lambda: len(keys._gathering) == 51)
    gone.cancel()
    assert len(platform.asked) == 1
    platform.go.release(2)
    answers = await asyncio.gather(*others)
    assert (await first).nonces != answers[0].nonces
    [statement] = set(answers)
    assert len(platform.asked) == 2
    assert clock.slept == [1.0]
    assert statement.nonces.startswith(b"".join(nonces))
    assert statement.quote == sealing_binding(
        nonces=statement.nonces, key=sealing.statement.key, server_spki=spki_of(KEY.public_key())
    )
    quotes.close()


async def test_refusals(sealing: Sealing) -> None:
    async def code(keys: FreshKeys, nonce: bytes) -> Code:
        with pytest.raises(RequestError) as error:
            await keys.statement(nonce)
        return error.value.code

    none = FreshKeys(sealing, None)
    assert await none.statement(b"") == sealing.statement
    assert await code(none, bytes(32)) is Code.UNIMPLEMENTED
    platform = Platform()
    quotes = Quotes(platform.quote)
    keys = FreshKeys(sealing, quotes)
    assert await code(keys, bytes(31)) is Code.INVALID_ARGUMENT
    first = asyncio.create_task(keys.statement(os.urandom(32)))
    await until(lambda: platform.asked)
    waiting = [asyncio.create_task(keys.statement(number.to_bytes(32))) for number in range(MOST_NONCES)]
    await until(lambda: len(keys._gathering) == MOST_NONCES)
    assert await code(keys, b"\xff" * 32) is Code.RESOURCE_EXHAUSTED
    for each in (first, *waiting):
        each.cancel()
    platform.go.release(2)
    quotes.close()


async def test_one_that_fails_fails_for_those_who_waited_and_for_nobody_else(sealing: Sealing) -> None:
    answers: list[bytes | EnsconceError] = [EnsconceError("platform.quote", "none now"), b"quote"]

    def quote(_report_data: bytes) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, EnsconceError):
            raise answer
        return answer

    clock, quotes = Clock(), Quotes(quote)
    keys = FreshKeys(sealing, quotes, clock=clock, sleep=clock.sleep)
    with pytest.raises(RequestError) as error:
        await keys.statement(bytes(32))
    assert error.value.code is Code.UNAVAILABLE
    assert (await keys.statement(bytes(32))).quote == b"quote"
    quotes.close()
