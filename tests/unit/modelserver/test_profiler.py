from __future__ import annotations

import asyncio
import sys

import pytest

from ensconce.modelserver.profiler import profiler_methods
from ensconce.serving.grpc.call import Note
from ensconce.tfserving.messages import ProfileRequest, ProfileResponse
from ensconce.tfserving.refusal import Code, RequestError


def request(milliseconds: int) -> bytes:
    data: bytes = ProfileRequest(duration_ms=milliseconds).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff", Code.INTERNAL),
        (b"\x1a\0" * 50_000, Code.RESOURCE_EXHAUSTED),
        (request(0), Code.INVALID_ARGUMENT),
        (request(60_001), Code.INVALID_ARGUMENT),
    ],
    ids=["malformed", "heavy", "no time", "a long time"],
)
async def test_requests_that_cannot_be(data: bytes, code: Code) -> None:
    with pytest.raises(RequestError) as caught:
        await profiler_methods()["Profile"].handle(data, Note())
    assert caught.value.code is code


async def test_without_tensorflow_there_is_nothing_to_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(RequestError) as caught:
        await profiler_methods()["Profile"].handle(request(1), Note())
    assert caught.value.code is Code.FAILED_PRECONDITION


async def test_a_trace_of_what_tensorflow_does_and_one_at_a_time() -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-tensorflow")
    profile = profiler_methods()["Profile"].handle
    first = asyncio.create_task(profile(request(300), Note()))
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as caught:
        await profile(request(1), Note())
    assert caught.value.code is Code.ALREADY_EXISTS
    while not first.done():
        tf.ones((10, 10)) @ tf.ones((10, 10))
        await asyncio.sleep(0.01)
    response = ProfileResponse.FromString(await first)
    assert not response.empty_trace
    assert b"MatMul" in response.xspace.SerializeToString()
