from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ensconce.tfserving.dtypes import BFLOAT16, DTYPES, STRING, DType
from ensconce.tfserving.messages import PredictResponse
from ensconce.tfserving.predict_response import predict_response
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.tensor import Array, from_proto, to_proto


def by_protobuf(outputs: dict[str, Array], version: int = 3) -> Any:
    response = PredictResponse()
    response.model_spec.name, response.model_spec.signature_name = "m", "s"
    response.model_spec.version.value = version
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(to_proto(array))
    return response


def written(outputs: dict[str, Array], version: int = 3, **options: Any) -> Any:
    return PredictResponse.FromString(predict_response("m", version, "s", outputs, **options))


def some(dtype: DType, shape: tuple[int, ...]) -> Array:
    if dtype.numpy == STRING:
        return np.array([b"s" * n for n in range(int(np.prod(shape)))], object).reshape(shape)
    raw = np.random.default_rng(7).integers(0, 2, int(np.prod(shape)) * dtype.numpy.itemsize).astype(np.uint8)
    return raw.view(dtype.numpy).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2), (0, 4), (40, 5)])
def test_it_is_what_protobuf_would_write(dtype: DType, shape: tuple[int, ...]) -> None:
    outputs = {"y": some(dtype, shape), "other": np.float32([1])}
    assert written(outputs) == by_protobuf(outputs)
    content = written(outputs, as_content=True)
    for name, array in outputs.items():
        tensor = content.outputs[name]
        assert not any(getattr(tensor, each.field) for each in DTYPES)
        back = from_proto(tensor)
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
        tensor.ClearField("tensor_content")
        wanted = to_proto(array)
        for each in DTYPES:
            wanted.ClearField(each.field)
        assert tensor == wanted


def test_the_version_0_is_there() -> None:
    response = written({}, 0)
    assert response.model_spec.HasField("version")
    assert response == by_protobuf({}, 0)
    assert predict_response("", 1, "", {}) == b"\x12\x04\x12\x02\x08\x01"


def test_arrays_may_lie_in_any_order() -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    for array in (base.T, base[::2, ::-1], base.astype(">f4"), base[:, 1:3]):
        assert written({"y": array}) == by_protobuf({"y": array})
        np.testing.assert_array_equal(from_proto(written({"y": array}, as_content=True).outputs["y"]), array)


def test_negative_integers_and_text() -> None:
    outputs: dict[str, Array] = {
        "a": np.int64([-1, 2**62]),
        "b": np.int32([[-5]]),
        "c": np.uint64([2**64 - 1]),
        "d": np.array(["é", b"\xff"], object),
        "é": np.array(["text"]),
        "f": np.array([(0x3F80,)], BFLOAT16),
    }
    assert written(outputs) == by_protobuf(outputs)
    assert from_proto(written(outputs, as_content=True).outputs["d"]).tolist() == ["é".encode(), b"\xff"]


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("array", [np.array([1, {}], object), np.array(["2026-01-01"], "M8[D]")])
def test_what_is_no_tensor_is_refused(array: Array, as_content: bool) -> None:
    with pytest.raises(RequestError):
        predict_response("m", 1, "s", {"y": array}, as_content=as_content)


@given(
    npst.arrays(
        st.sampled_from([np.dtype(kind) for kind in ("<f4", "<f8", "<i4", "<i8", "<u8", "?", "u1", "<f2", "<c8")]),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.text(max_size=200),
)
def test_any_array(array: Array, name: str) -> None:
    data = predict_response("m", 3, "s", {name: array})
    assert PredictResponse.FromString(data).SerializeToString(deterministic=True) == by_protobuf(
        {name: array}
    ).SerializeToString(deterministic=True)
