"""One measurement from the first connection to the last answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc

from ensconce.bench.alarm import precise_sleep
from ensconce.bench.run import Outcome, run
from ensconce.bench.schedule import Plan
from ensconce.bench.tally import AnswerError, Tally
from ensconce.bench.targets.carrier import Carrier
from ensconce.bench.targets.dialect import Answer, Ask, Dialect
from ensconce.client.codec import Array
from ensconce.client.signatures import InputSpec
from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["Measured", "measure"]

Arrays = Callable[[Mapping[str, InputSpec]], list[dict[str, Array]]]

_AWAY: Final = {
    "http connection",
    "http protocol",
    "http timeout",
    *(f"grpc {code.name}" for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)),
}
_UNTOLD: Final = {"grpc UNIMPLEMENTED", "http 404", "http 501"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What was sent, and what came of it.

    Attributes:
        inputs: element type and shape of each, of the first batch.
        batches: how many different ones were sent in turn.
        request_bytes: of the first request's body.
        answer_bytes: of the first answer's.
        outcome: what was counted.
    """

    inputs: dict[str, InputSpec]
    batches: int
    request_bytes: int
    answer_bytes: int
    outcome: Outcome


async def measure(
    dialect: Dialect,
    carrier: Carrier,
    arrays: Arrays,
    plan: Plan,
    *,
    timeout: float,
    chance: random.Random,
    tell: Callable[[Tally, float], object] = lambda _tally, _seconds: None,
) -> Measured:
    """Learn what the model takes, ask once and look at the answer, then send what the plan says.

    Args:
        dialect: what is said.
        carrier: takes it there.
        arrays: the batches to send, for what the server says that the model takes; nothing where it does not say.
        plan: how much, and when.
        timeout: for each request, in seconds.
        chance: for arrivals.
        tell: see :func:`ensconce.bench.run.run`.

    Raises:
        EnsconceError: why the first requests were not answered; InputError for a request that was refused,
            UnreachableError for no answer, and what the connection's checks raise.
    """
    given = arrays(await _learn(dialect, carrier, timeout))
    asks = [dialect.request(each) for each in given]
    answer = await _first(carrier, asks[0], timeout)
    dialect.check(answer)

    async def send(number: int) -> str | None:
        return (await carrier.ask(asks[number % len(asks)], timeout)).replica_id

    try:
        async with precise_sleep() as sleep:
            outcome = await run(send, plan, chance, tell=tell, sleep=sleep)
    except AnswerError as failure:
        raise _as_error(failure) from failure
    inputs = {name: InputSpec(array.dtype, array.shape) for name, array in given[0].items()}
    return Measured(inputs, len(asks), len(asks[0].body or b""), len(answer.body), outcome)


async def _learn(dialect: Dialect, carrier: Carrier, timeout: float) -> dict[str, InputSpec]:
    try:
        answer = await carrier.ask(dialect.metadata(), timeout)
    except AnswerError as failure:
        # A server without metadata can be asked with arrays from a file; whether the model is there shows then.
        if failure.kind in _UNTOLD:
            return {}
        raise _as_error(failure) from failure
    return dialect.inputs(answer.body)


async def _first(carrier: Carrier, ask: Ask, timeout: float) -> Answer:
    try:
        return await carrier.ask(ask, timeout)
    except AnswerError as failure:
        raise _as_error(failure) from failure


def _as_error(failure: AnswerError) -> EnsconceError:
    if isinstance(failure.__cause__, EnsconceError):
        return failure.__cause__
    if failure.kind in _AWAY:
        return UnreachableError(
            "bench.unanswered",
            "a request before the measurement was not answered",
            found=f"{failure.kind}: {failure.text}",
        )
    return InputError("bench.refused", "the server refuses such requests", found=f"{failure.kind}: {failure.text}")
