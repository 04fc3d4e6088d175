from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ensconce.tfserving.dtypes import BFLOAT16, DTYPES, DType, dtype_named, dtype_numbered, dtype_of
from ensconce.tfserving.messages import TensorProto
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.tensor import from_proto, to_proto

NUMERIC = [dtype for dtype in DTYPES if dtype.name != "DT_STRING"]
BY_NAME = pytest.mark.parametrize("dtype", NUMERIC, ids=lambda dtype: dtype.name)


def tensor(dtype: str, shape: list[int], **values: Any) -> Any:
    proto = TensorProto(dtype=dtype_named(dtype).number, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def random_array(dtype: DType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    raw = np.random.default_rng(7).bytes(int(np.prod(shape)) * dtype.numpy.itemsize)
    if dtype.name == "DT_BOOL":
        return (np.frombuffer(raw, "u1") % 2 == 0).reshape(shape)
    array = np.frombuffer(raw, dtype.numpy).reshape(shape)
    return np.nan_to_num(array) if array.dtype.kind in "fc" else array


def refusal(proto: Any, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        from_proto(proto, **options)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.problem


@BY_NAME
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2), (0, 4)])
def test_values_in_the_types_own_field_come_back(dtype: DType, shape: tuple[int, ...]) -> None:
    array = random_array(dtype, shape)
    proto = to_proto(array)
    assert not proto.tensor_content
    assert proto.dtype == dtype.number
    back = from_proto(TensorProto.FromString(proto.SerializeToString()))
    assert back.dtype == dtype.numpy
    np.testing.assert_array_equal(back, array)


@BY_NAME
def test_packed_content_is_read(dtype: DType) -> None:
    array = random_array(dtype, (4, 2))
    proto = TensorProto(dtype=dtype.number, tensor_content=array.tobytes())
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    np.testing.assert_array_equal(from_proto(proto), array)


@BY_NAME
def test_the_last_value_stands_for_all_that_follow(dtype: DType) -> None:
    array = random_array(dtype, (2,))
    proto = to_proto(array)
    proto.tensor_shape.dim[0].size = 5
    np.testing.assert_array_equal(from_proto(proto), array[[0, 1, 1, 1, 1]])


@BY_NAME
def test_no_value_at_all_means_zeros(dtype: DType) -> None:
    proto = tensor(dtype.name, [2, 2])
    np.testing.assert_array_equal(from_proto(proto), np.zeros((2, 2), dtype.numpy))


@given(npst.arrays(st.sampled_from(["<f4", ">f4", "<i8", "u1", "?"]), npst.array_shapes(min_dims=0, min_side=0)))
def test_any_array_comes_back(array: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(from_proto(to_proto(array)), array)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_strings_come_back_in_both_encodings(items: list[bytes]) -> None:
    array = np.array(items, dtype=object)
    assert from_proto(to_proto(array)).tolist() == items
    lengths = b"".join(bytes([len(i)] if len(i) < 128 else [len(i) & 127 | 128, len(i) >> 7]) for i in items)
    proto = tensor("DT_STRING", [len(items)], tensor_content=lengths + b"".join(items))
    assert from_proto(proto).tolist() == items


def test_text_is_written_as_utf8_and_one_string_stands_for_all() -> None:
    assert list(to_proto(np.array(["é", "x"])).string_val) == ["é".encode(), b"x"]
    assert from_proto(tensor("DT_STRING", [3], string_val=[b"a"])).tolist() == [b"a"] * 3
    assert from_proto(tensor("DT_STRING", [2])).tolist() == [b"", b""]


@given(st.binary(max_size=40), st.integers(0, 50))
def test_strings_from_strangers_are_read_or_refused(content: bytes, count: int) -> None:
    with contextlib.suppress(RequestError):
        assert from_proto(tensor("DT_STRING", [count], tensor_content=content)).shape == (count,)


@given(st.binary(max_size=200))
def test_messages_from_strangers_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(RequestError, DecodeError):
        from_proto(TensorProto.FromString(data), limit=1 << 20)


def test_half_and_bfloat16_are_their_bits() -> None:
    np.testing.assert_array_equal(from_proto(tensor("DT_HALF", [1], half_val=[0x3C00])), np.float16([1]))
    bits = from_proto(tensor("DT_BFLOAT16", [1], half_val=[0x3F80]))
    assert bits.dtype == BFLOAT16
    assert bits["bfloat16"].tolist() == [0x3F80]


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (tensor("DT_FLOAT", [2], tensor_content=b"1234"), "tensor_content has 4 bytes, shape [2] of float needs 8"),
        (tensor("DT_FLOAT", [1], float_val=[1, 2]), "float_val has 2 values, shape [1] holds 1"),
        (tensor("DT_FLOAT", [0], float_val=[1]), "float_val has 1 values, shape [0] holds 0"),
        (tensor("DT_FLOAT", [-1]), "the shape [-1] has a negative dimension"),
        (tensor("DT_FLOAT", [1] * 65), "the shape has 65 dimensions"),
        (tensor("DT_UINT8", [1], int_val=[256]), "int_val has values that are no uint8"),
        (tensor("DT_HALF", [1], half_val=[-1]), "half_val has values that are no half"),
        (tensor("DT_COMPLEX64", [1], scomplex_val=[1]), "must come in pairs"),
        (tensor("DT_STRING", [9], tensor_content=b"12"), "too few for 9 strings"),
        (tensor("DT_STRING", [3_000_000], tensor_content=bytes(3_000_000)), "which take more than 134217728 bytes"),
        (tensor("DT_STRING", [1], tensor_content=b"\xff" * 8), "malformed string length"),
        (tensor("DT_STRING", [1], tensor_content=b"\x05a"), "do not add up"),
    ],
)
def test_values_that_do_not_fit_are_refused(proto: Any, text: str) -> None:
    assert text in refusal(proto)


@pytest.mark.parametrize(("dtype", "field"), [("DT_INT64", "int64_val"), ("DT_UINT8", "int_val")])
def test_too_many_values_are_not_read(dtype: str, field: str) -> None:
    proto = tensor(dtype, [2], **{field: [1] * 1_000_000})
    tracemalloc.start()
    try:
        assert "1000000 values, shape [2] holds 2" in refusal(proto)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_unknown_rank_is_refused() -> None:
    proto = tensor("DT_FLOAT", [])
    proto.tensor_shape.unknown_rank = True
    assert "unknown rank" in refusal(proto)


@pytest.mark.parametrize("number", [0, 20, 21, 24, 29, 101, 77])
def test_types_that_cannot_be_served_are_refused(number: int) -> None:
    assert refusal(TensorProto(dtype=number)) == f"tensor type {number} is not supported"


@pytest.mark.parametrize("shape", [[1 << 40], [0, 1 << 62, 1 << 62], [1 << 62] * 20, [1025, 256]])
def test_shape_bombs_take_no_memory(shape: list[int]) -> None:
    assert "takes more than 1048576 bytes" in refusal(tensor("DT_FLOAT", shape, float_val=[1]), limit=1 << 20)


def test_string_bombs_take_no_memory() -> None:
    assert "takes more than" in refusal(tensor("DT_STRING", [1 << 30], string_val=[b""]), limit=1 << 20)


@pytest.mark.parametrize("array", [np.zeros(1, "datetime64[s]"), np.array([3], dtype=object)])
def test_arrays_without_a_tensor_type_are_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(RequestError):
        to_proto(array)


def test_dtypes_are_found_by_number_and_array() -> None:
    for dtype in NUMERIC:
        assert dtype_numbered(dtype.number) is dtype
        assert dtype_of(np.zeros(1, dtype.numpy)) is dtype


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float16, np.uint64])
def test_more_numbers_than_are_read_at_once(dtype: Any) -> None:
    array = (np.arange(200_000) % 101).astype(dtype)
    assert np.array_equal(from_proto(to_proto(array)), array)
