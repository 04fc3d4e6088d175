from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.tfserving.messages import (
    GetModelMetadataRequest,
    ModelServerConfig,
    PredictRequest,
    UnreadMultiInferenceRequest,
)
from ensconce.tfserving.tensor import to_proto
from ensconce.tfserving.weight import MOST_WEIGHT, TooHeavyError, check_weight
from ensconce.tfserving.wire import MalformedError, varint


def _within(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + varint(len(content)) + content


MANY = MOST_WEIGHT
BOMBS = {
    "inputs": (PredictRequest, b"\x12\x00" * (MANY // 16)),
    "output_filter": (PredictRequest, b"\x1a\x00" * (MANY + 1)),
    "dimensions": (PredictRequest, _within(0x12, _within(0x12, _within(0x12, b"\x12\x00" * (MANY // 16))))),
    "strings": (PredictRequest, _within(0x12, _within(0x12, b"\x42\x00" * (MANY + 1)))),
    "loose numbers": (PredictRequest, _within(0x12, _within(0x12, b"\x38\x01" * (MANY + 1)))),
    "packed numbers": (PredictRequest, _within(0x12, _within(0x12, _within(0x52, bytes(16 * MANY + 16))))),
    "fields that nobody knows": (PredictRequest, b"\x78\x01" * (MANY + 1)),
    "tasks": (UnreadMultiInferenceRequest, b"\x0a\x00" * (MANY // 16)),
    "metadata": (GetModelMetadataRequest, b"\x12\x00" * (MANY + 1)),
    "models": (ModelServerConfig, _within(0x0A, b"\x0a\x00" * (MANY // 16))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_few_bytes_that_make_many_objects_are_refused(name: str) -> None:
    message, data = BOMBS[name]
    with pytest.raises(TooHeavyError):
        check_weight(message.DESCRIPTOR, data)


def test_large_tensors_are_light() -> None:
    request = PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(to_proto(np.zeros(3_000_000, np.float32)))
    request.inputs["y"].CopyFrom(to_proto(np.ones(3_000_000, np.int32)))
    request.inputs["z"].tensor_content = bytes(10_000_000)
    check_weight(PredictRequest.DESCRIPTOR, request.SerializeToString())


@given(st.binary(max_size=200))
def test_what_can_be_parsed_is_not_called_malformed(data: bytes) -> None:
    try:
        PredictRequest.FromString(data)
    except Exception:
        return
    check_weight(PredictRequest.DESCRIPTOR, data)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        b"\x12",
        b"\x12\x05ab",
        b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x2d\0\0",
        b"\x80",
        b"\x07",
        b"\x39\0",
    ],
)
def test_what_is_cut_off_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        check_weight(PredictRequest.DESCRIPTOR, data)


def _nested(depth: int) -> bytes:
    """Messages within messages."""
    data = b""
    for _ in range(depth):
        data = _within(0x0A, data)
    return data


@pytest.mark.parametrize("data", [b"\x0e\0", b"\x0f\0", b"\x02\0", b"\x0a\x05a", b"\x09\0", b"\xff" * 11])
def test_what_is_no_message_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        check_weight(PredictRequest.DESCRIPTOR, data)


def test_messages_are_not_followed_for_ever() -> None:
    class Field:
        number, message_type, cpp_type = 1, None, None

    class Endless:
        """A message of itself, which none of ours is."""

        fields = (Field,)

    Field.message_type = Endless  # type: ignore[assignment]
    check_weight(Endless, _nested(100))
    with pytest.raises(MalformedError):
        check_weight(Endless, _nested(102))
