from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.tfserving.bulk import SHORTEST, Bulk, cut_out
from ensconce.tfserving.dtypes import dtype_numbered
from ensconce.tfserving.messages import PredictRequest, TensorProto
from ensconce.tfserving.tensor import from_proto
from ensconce.tfserving.wire import varint

LONG = np.arange(SHORTEST // 4, dtype=np.float32)
FIELDS = {"float_val": (1, 4), "double_val": (2, 8), "scomplex_val": (8, 4), "dcomplex_val": (18, 8)}


def field(tag: int, value: bytes) -> bytes:
    return bytes((tag,)) + varint(len(value)) + value


def entry(key: bytes, tensor: bytes) -> bytes:
    return field(0x12, field(0x0A, key) + field(0x12, tensor))


def floats(values: np.ndarray[Any, Any] = LONG) -> bytes:
    return b"\x08\x01" + field(0x12, field(0x12, b"\x08" + varint(len(values)))) + field(0x2A, values.tobytes())


def restored(request: Any, bulk: dict[str, Bulk]) -> Any:
    """The request that protobuf would have read."""
    for name, each in bulk.items():
        number = TensorProto.DESCRIPTOR.fields_by_name[each.field].number
        request.inputs[name].MergeFromString(varint(number << 3 | 2) + varint(len(each.data)) + bytes(each.data))
    return request


def same_as_protobuf(data: bytes) -> bool:
    """Whether protobuf reads these bytes; what is cut and put back is what it reads, or is refused as it refuses."""
    rest, bulk = cut_out(data)
    try:
        request = PredictRequest.FromString(rest)
    except DecodeError:
        with pytest.raises(DecodeError):
            PredictRequest.FromString(data)
        return False
    whole = PredictRequest.FromString(data)
    assert restored(request, bulk).SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    return True


def test_content_is_a_view_of_the_message() -> None:
    request = PredictRequest(output_filter=["y", "z"])
    request.model_spec.name = "m"
    tensor = request.inputs["x"]
    tensor.dtype, tensor.version_number = 1, 300
    tensor.tensor_shape.dim.add(size=len(LONG))
    tensor.tensor_content = LONG.tobytes()
    request.inputs["short"].float_val.extend([1, 2])
    data = request.SerializeToString()

    rest, bulk = cut_out(data)

    assert len(rest) < 100
    assert list(bulk) == ["x"]
    left = PredictRequest.FromString(rest)
    assert list(left.output_filter) == ["y", "z"]
    assert list(left.inputs["short"].float_val) == [1, 2]
    array = from_proto(left.inputs["x"], bulk["x"])
    assert np.shares_memory(array, np.frombuffer(data, np.uint8))
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, LONG)


@pytest.mark.parametrize("name", FIELDS)
def test_packed_values_are_views_too(name: str) -> None:
    number, size = FIELDS[name]
    dtype = dtype_numbered(number)
    values = np.random.default_rng(1).random(2 * SHORTEST // size).astype(f"<f{size}").view(dtype.numpy)
    tensor = TensorProto(dtype=number, **{name: values.view(f"<f{size}").tolist()})
    tensor.tensor_shape.dim.add(size=len(values))
    data = entry(b"x", tensor.SerializeToString())
    rest, bulk = cut_out(data)
    assert bulk["x"].field == name
    array = from_proto(PredictRequest.FromString(rest).inputs["x"], bulk["x"])
    np.testing.assert_array_equal(array, values)
    np.testing.assert_array_equal(array, from_proto(PredictRequest.FromString(data).inputs["x"]))
    assert array.dtype == dtype.numpy
    assert np.shares_memory(array, np.frombuffer(data, np.uint8))


def test_the_last_of_few_values_stands_for_those_that_are_missing() -> None:
    tensor = b"\x08\x01" + field(0x12, field(0x12, b"\x08" + varint(5000))) + field(0x2A, LONG.tobytes())
    rest, bulk = cut_out(entry(b"x", tensor))
    array = from_proto(PredictRequest.FromString(rest).inputs["x"], bulk["x"])
    assert array.shape == (5000,)
    assert array[-1] == LONG[-1]
    assert array.flags.writeable


def test_strings_and_values_of_another_type_are_read_as_ever() -> None:
    strings = TensorProto(dtype=7, tensor_content=b"\x81\x20" + b"s" * 4097)
    strings.tensor_shape.dim.add(size=1)
    wrong = TensorProto(dtype=2, float_val=LONG.tolist(), double_val=[7])
    wrong.tensor_shape.dim.add(size=2)
    data = entry(b"s", strings.SerializeToString()) + entry(b"w", wrong.SerializeToString())
    rest, bulk = cut_out(data)
    assert {name: each.field for name, each in bulk.items()} == {"s": "tensor_content", "w": "float_val"}
    left = PredictRequest.FromString(rest)
    assert from_proto(left.inputs["s"], bulk["s"]).tolist() == [b"s" * 4097]
    assert from_proto(left.inputs["w"], bulk["w"]).tolist() == [7, 7]


def test_a_buffer_that_can_be_written_gives_views_that_cannot() -> None:
    data = bytearray(entry(b"x", floats()))
    for given_data in (data, memoryview(data)):
        _, bulk = cut_out(given_data)
        assert bulk["x"].data.readonly


UNUSUAL = {
    "twice the same input": entry(b"x", floats()) + entry(b"x", floats(LONG + 1)),
    "the same input, short": entry(b"x", floats()) + entry(b"x", b""),
    "value before key": field(0x12, field(0x12, floats()) + field(0x0A, b"x")),
    "no key": field(0x12, field(0x12, floats())),
    "two values": field(0x12, field(0x0A, b"x") + field(0x12, floats()) + field(0x12, floats())),
    "two keys": field(0x12, field(0x0A, b"x") + field(0x0A, b"y") + field(0x12, floats())),
    "values in two parts": entry(b"x", floats() + field(0x2A, LONG.tobytes())),
    "content twice": entry(b"x", b"\x08\x01" + field(0x22, LONG.tobytes()) + field(0x22, b"abcd")),
    "one more value, not packed": entry(b"x", floats() + b"\x2d\0\0\0\0"),
    "an unknown field of the tensor": entry(b"x", floats() + b"\xa0\x06\x01"),
    "an unknown field of the request": entry(b"x", floats()) + b"\xa0\x06\x01",
    "strings": entry(b"x", b"\x08\x07" + field(0x42, b"s" * SHORTEST)),
    "fields without end": entry(b"x", floats() + b"\x08\x01" * 40),
    "inputs without end": entry(b"x", floats()) + b"".join(entry(b"%d" % n, b"") for n in range(300)),
}
BROKEN = {
    "values that are no floats": entry(b"x", b"\x08\x01" + field(0x2A, bytes(SHORTEST + 1))),
    "a key that is no text": entry(b"\xff", floats()),
    "a message that is cut off": entry(b"x", floats())[:-1],
    "a length that is cut off": entry(b"x", floats()) + b"\x12\x80",
    "a length beyond the end": entry(b"x", floats()) + b"\x12\x05a",
    "a number without end": entry(b"x", floats() + b"\x08" + b"\xff" * 11),
    "a field without anything": entry(b"x", floats()) + b"\x12",
    "tag 0": entry(b"x", floats()) + b"\0",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_left_to_protobuf(name: str) -> None:
    rest, bulk = cut_out(UNUSUAL[name])
    assert (rest, bulk) == (UNUSUAL[name], {})
    assert same_as_protobuf(UNUSUAL[name])


@pytest.mark.parametrize("name", BROKEN)
def test_what_protobuf_refuses_is_refused(name: str) -> None:
    assert not same_as_protobuf(BROKEN[name])


def test_what_is_short_is_left_to_protobuf() -> None:
    data = entry(b"x", floats(LONG[:100]))
    assert cut_out(data) == (data, {})
    assert cut_out(memoryview(data)) == (data, {})
    assert cut_out(b"") == (b"", {})


PIECES = st.one_of(
    st.sampled_from([b"", floats(), floats(LONG[:3]), b"\x08\x01", b"\x18\x80\x01", field(0x22, bytes(SHORTEST))]),
    st.sampled_from([field(0x2A, LONG.tobytes()), field(0x2A, b"abc"), b"\x2d\0\0\0\0", field(0x42, b"s" * 5000)]),
    st.binary(max_size=12),
)
ENTRIES = st.builds(entry, st.sampled_from([b"x", b"y", b"", b"\xff"]), st.lists(PIECES, max_size=3).map(b"".join))
REQUESTS = st.lists(
    st.one_of(ENTRIES, st.sampled_from([field(0x0A, field(0x0A, b"m")), field(0x1A, b"y")]), st.binary(max_size=8)),
    max_size=4,
).map(b"".join)


@given(REQUESTS, st.integers(0, 2**16), st.integers(0, 255))
@settings(max_examples=400)
def test_nothing_is_understood_that_protobuf_understands_otherwise(data: bytes, at: int, byte: int) -> None:
    same_as_protobuf(data)
    if data:
        bent = bytearray(data)
        bent[at % len(data)] = byte
        same_as_protobuf(bytes(bent))
