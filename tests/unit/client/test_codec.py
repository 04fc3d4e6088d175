from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ensconce.client.codec import decode_response, encode_request
from ensconce.errors import InputError, UnreachableError
from ensconce.tfserving.messages import PredictRequest, PredictResponse
from ensconce.tfserving.tensor import to_proto

DTYPES = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])


@given(DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=4))))
def test_round_trip(array: np.ndarray) -> None:
    response = PredictResponse()
    response.outputs["y"].CopyFrom(to_proto(array))
    decoded = decode_response(response.SerializeToString())["y"]
    assert decoded.dtype == array.dtype
    assert np.array_equal(decoded, array, equal_nan=array.dtype.kind == "f")


def test_request() -> None:
    data = encode_request("digits", {"x": np.zeros((1, 2))}, version=3, signature="s", outputs=["y"])
    request = PredictRequest.FromString(data)
    assert (request.model_spec.name, request.model_spec.version.value) == ("digits", 3)
    assert (request.model_spec.signature_name, list(request.output_filter)) == ("s", ["y"])
    newest = PredictRequest.FromString(encode_request("digits", {}))
    assert not newest.model_spec.HasField("version")


def test_arrays_without_a_tensor_type() -> None:
    with pytest.raises(InputError) as refused:
        encode_request("digits", {"x": np.zeros(1, dtype="datetime64[s]")})
    assert refused.value.check == "predict.inputs"
    assert refused.value.found == "datetime64[s]"


def bomb() -> bytes:
    """A few bytes that stand for a tensor of 2^40 equal values."""
    response = PredictResponse()
    tensor = response.outputs["y"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=1 << 40)
    tensor.float_val.append(1.0)
    return response.SerializeToString()


@pytest.mark.parametrize("data", [b"\xff", b"not a message", bomb()])
def test_answers_that_are_none(data: bytes) -> None:
    with pytest.raises(UnreachableError) as refused:
        decode_response(data)
    assert refused.value.check == "predict.response"
