from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ensconce.serving.answers import Prediction
from ensconce.serving.answers_examples import predict_all, read_multi_inference
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.serving.methods import CLASSIFY_METHOD, REGRESS_METHOD
from ensconce.tfserving.refusal import RequestError, invalid
from ensconce.tfserving.tensor import Array


class Slow:
    """Never has done, except with the signatures that it is told to compute in another way."""

    def __init__(self, **others: Callable[[LoadedServable, Mapping[str, Array], Sequence[str]], Any]) -> None:
        self.others = others
        self.begun = self.cancelled = 0

    async def predict(
        self, loaded: LoadedServable, name: str, inputs: Mapping[str, Array], output_filter: Sequence[str]
    ) -> dict[str, Array]:
        self.begun += 1
        if name in self.others:
            return self.others[name](loaded, inputs, output_filter)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError


@pytest.fixture
def asked(manager: ModelManager, multi: Any) -> list[Prediction]:
    request = multi(("m", "", CLASSIFY_METHOD), ("m", "regress", REGRESS_METHOD))
    return [task.prediction for task in read_multi_inference(manager, request, tensor_bytes=1000)]


def test_no_task_is_needed_where_nothing_waits(asked: list[Prediction]) -> None:
    at_once = Slow(regress=lambda loaded, inputs, names: loaded.servable.predict("regress", inputs, names))
    answering = predict_all(at_once, asked[1:])
    with pytest.raises(StopIteration) as answered:
        answering.send(None)
    assert answered.value.value[0]["outputs"].tolist() == [[11], [13]]


async def test_who_does_not_wait_gives_up_all(asked: list[Prediction]) -> None:
    for several in (asked, asked[1:]):
        slow = Slow()
        answering = asyncio.ensure_future(predict_all(slow, several))
        while slow.begun < len(several):
            await asyncio.sleep(0)
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        await asyncio.sleep(0)
        assert slow.cancelled == len(several)


async def test_when_one_fails_the_others_are_given_up(asked: list[Prediction]) -> None:
    def fail(*_args: Any) -> Any:
        raise invalid("no")

    slow = Slow(regress=fail)
    with pytest.raises(RequestError, match="no"):
        await predict_all(slow, asked)
    await asyncio.sleep(0)
    assert slow.cancelled == 1
