from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.tfserving.messages import PredictRequest
from ensconce.tfserving.pattern import Pattern, pattern_of
from ensconce.tfserving.tensor import Array, from_proto, to_proto

DTYPES = ("float32", "float64", "int8", "uint8", "int32", "int64", "float16")


def request(inputs: dict[str, Array], *, content: bool, signature: str = "", outputs: tuple[str, ...] = ()) -> bytes:
    message = PredictRequest()
    message.model_spec.name = "m"
    message.model_spec.signature_name = signature
    message.output_filter.extend(outputs)
    for name, array in inputs.items():
        proto = to_proto(array)
        if content:
            proto.ClearField("float_val")
            proto.ClearField("double_val")
            proto.ClearField("int_val")
            proto.ClearField("int64_val")
            proto.ClearField("half_val")
            proto.tensor_content = array.tobytes()
        message.inputs[name].CopyFrom(proto)
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def read(data: bytes) -> dict[str, Array]:
    return {name: from_proto(proto) for name, proto in PredictRequest.FromString(data).inputs.items()}


def same(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


def made(data: bytes) -> Pattern:
    pattern = pattern_of(data, read(data))
    assert pattern is not None
    return pattern


@pytest.mark.parametrize("content", [True, False])
def test_other_values_are_read(content: bool) -> None:
    first = request({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, content=content)
    other = request({"x": np.full((2, 3), np.nan, np.float32)}, content=content)
    found = made(first).inputs(other)
    assert found is not None
    assert same(found, read(other))
    assert not found["x"].flags.writeable


def test_views_of_what_can_be_written_cannot() -> None:
    data = request({"x": np.ones(3, np.float32)}, content=True)
    for view in (bytearray(data), memoryview(bytearray(data))):
        found = made(data).inputs(view)
        assert found is not None
        assert not found["x"].flags.writeable


@pytest.mark.parametrize(
    "other",
    [
        request({"x": np.ones((3, 2), np.float32)}, content=True),
        request({"x": np.ones((2, 3), np.int32)}, content=True),
        request({"y": np.ones((2, 3), np.float32)}, content=True),
        request({"x": np.ones((2, 3), np.float32)}, content=False),
        request({"x": np.ones((2, 3), np.float32)}, content=True, signature="s"),
        request({"x": np.ones((2, 3), np.float32)}, content=True, outputs=("y",)),
    ],
)
def test_another_request_is_not_taken_for_it(other: bytes) -> None:
    pattern = made(request({"x": np.ones((2, 3), np.float32)}, content=True))
    assert pattern.inputs(other) is None
    assert pattern.inputs(b"") is None


def two_fields() -> bytes:
    message = PredictRequest()
    message.model_spec.name = "m"
    proto = to_proto(np.ones(2, np.float32))
    proto.tensor_content = np.ones(2, np.float32).tobytes()
    message.inputs["x"].CopyFrom(proto)
    data: bytes = message.SerializeToString()
    return data


@pytest.mark.parametrize(
    "data",
    [
        request({"x": np.ones(3, np.int64)}, content=False),
        request({"x": np.ones(3, np.float16)}, content=False),
        request({"x": np.array([b"a"], object)}, content=False),
        request({"x": np.array([True, False])}, content=False),
        request({"x": np.ones(0, np.float32)}, content=True),
        request({"x": np.ones(3, np.float32), "y": np.ones(1, np.int64)}, content=False),
        request({"x": np.ones(3, np.complex64)}, content=True),
        request({"x": np.ones(3, np.float32)}, content=True, outputs=("o" * 2000,)),
        two_fields(),
    ],
)
def test_what_cannot_be_told_by_its_bytes_has_no_pattern(data: bytes) -> None:
    assert pattern_of(data, read(data)) is None


def test_one_value_for_all_is_not_taken_for_all_values() -> None:
    message = PredictRequest()
    message.inputs["x"].CopyFrom(to_proto(np.ones(1, np.float32)))
    message.inputs["x"].tensor_shape.dim[0].size = 4
    data = message.SerializeToString()
    assert pattern_of(data, read(data)) is None


arrays = st.tuples(
    st.sampled_from(DTYPES), st.lists(st.integers(1, 4), max_size=3), st.integers(0, 2**32 - 1), st.booleans()
)


def array_of(kind: str, shape: list[int], seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(kind)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(("a", "b", "long name")), arrays, min_size=1), st.data())
def test_whatever_matches_is_read_as_protobuf_reads_it(given: dict[str, Any], data: Any) -> None:
    inputs = {name: array_of(kind, shape, seed) for name, (kind, shape, seed, _) in given.items()}
    content = all(each[3] for each in given.values())
    whole = bytearray(request(inputs, content=content))
    pattern = pattern_of(bytes(whole), read(bytes(whole)))
    if pattern is None:
        return
    found = pattern.inputs(bytes(whole))
    assert found is not None
    assert same(found, read(bytes(whole)))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)):
        whole[at] = value
    changed = bytes(whole)
    found = pattern.inputs(changed)
    if found is not None:
        assert same(found, read(changed))
