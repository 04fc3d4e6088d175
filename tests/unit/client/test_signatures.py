from __future__ import annotations

import numpy as np
import pytest

from ensconce.client.signatures import (
    InputSpec,
    Signature,
    Signatures,
    decode_signatures,
    fit,
    signature_named,
    to_arrays,
)
from ensconce.errors import InputError, UnreachableError
from ensconce.tfserving.messages import GetModelMetadataResponse, SignatureDefMap

FLOATS = InputSpec(np.dtype(np.float32), (-1, 2))
ONE = Signature("tensorflow/serving/predict", {"x": FLOATS}, {"y": FLOATS})
TWO = Signature("tensorflow/serving/predict", {"x": FLOATS, "n": InputSpec(np.dtype(np.int64), ())}, {})


def metadata(version: int) -> bytes:
    signatures = SignatureDefMap()
    # As TensorFlow's SavedModels have it beside the others: DT_INVALID.
    signatures.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "NoOp"
    signature = signatures.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    info = signature.inputs["x"]
    info.dtype = 1
    info.tensor_shape.dim.add(size=-1)
    info.tensor_shape.dim.add(size=2)
    signature.outputs["y"].CopyFrom(info)
    response = GetModelMetadataResponse()
    response.model_spec.version.value = version
    response.metadata["signature_def"].Pack(signatures)
    data: bytes = response.SerializeToString()
    return data


def test_what_a_server_tells() -> None:
    assert decode_signatures(metadata(3)) == ({"serving_default": ONE}, 3)


def test_what_is_no_metadata() -> None:
    for data in (b"\xff", b"\x12\x10"):
        with pytest.raises(UnreachableError) as failed:
            decode_signatures(data)
        assert failed.value.check == "predict.metadata"


def test_the_default_and_one_that_is_not_there() -> None:
    assert signature_named("", {"serving_default": ONE, "other": TWO}) is ONE
    assert signature_named("other", {"serving_default": ONE, "other": TWO}) is TWO
    with pytest.raises(InputError) as refused:
        signature_named("third", {"serving_default": ONE})
    assert refused.value.check == "predict.signature"


@pytest.mark.parametrize("inputs", [[[1, 2]], np.array([[1.0, 2.0]]), {"x": [[1, 2]]}, np.array([[1, 2]], np.uint8)])
def test_arrays_that_fit(inputs: object) -> None:
    (array,) = fit(inputs, ONE).values()  # type: ignore[arg-type]
    assert array.dtype == np.float32
    assert array.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("inputs", "signature"),
    [
        ([1.0], TWO),
        ({"x": [1.0]}, TWO),
        ({"x": [1.0], "z": 1}, ONE),
        ({}, ONE),
        ({"x": [1j]}, ONE),
        ({"x": [1.0], "n": 1.5}, TWO),
        ({"x": [[1.0], [1.0, 2.0]]}, ONE),
    ],
    ids=["no name", "one missing", "one too many", "none", "imaginary", "a fraction", "ragged"],
)
def test_arrays_that_do_not(inputs: object, signature: Signature) -> None:
    with pytest.raises(InputError) as refused:
        fit(inputs, signature)  # type: ignore[arg-type]
    assert refused.value.check == "predict.inputs"


def test_text_goes_as_it_is() -> None:
    text = Signature("", {"x": InputSpec(np.dtype(object), (-1,))}, {})
    assert fit(["a", "b"], text)["x"].tolist() == ["a", "b"]


def test_where_nobody_tells_arrays_go_by_name_as_they_are() -> None:
    assert to_arrays({"x": [1]}, None, "")["x"].tolist() == [1]
    with pytest.raises(InputError) as refused:
        to_arrays([1], None, "")
    assert refused.value.check == "predict.inputs"


def test_what_is_known_is_kept_until_another_version_answers() -> None:
    signatures = Signatures()
    with pytest.raises(KeyError):
        signatures.get("m", None)
    signatures.learn("m", None, metadata(1))
    assert signatures.get("m", None) == signatures.get("m", 1) == {"serving_default": ONE}
    signatures.answered("m", None, 1)
    signatures.answered("m", 7, 7)
    signatures.answered("m", None, 0)
    assert signatures.get("m", None)
    signatures.answered("m", None, 2)
    with pytest.raises(KeyError):
        signatures.get("m", None)
    assert signatures.get("m", 1)


def test_a_server_that_tells_nothing_and_a_model_that_is_not_there() -> None:
    signatures = Signatures()
    signatures.untold("m", None, InputError("predict.unimplemented", "no"))
    assert signatures.get("m", None) is None
    with pytest.raises(InputError) as refused:
        signatures.untold("n", None, InputError("predict.not_found", "no"))
    assert refused.value.check == "predict.not_found"
    with pytest.raises(KeyError):
        signatures.get("n", None)
