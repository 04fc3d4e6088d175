from __future__ import annotations

import numpy as np
import pytest

from ensconce.client.codec_examples import CLASSIFY, REGRESS, decode_classes, decode_values, encode_examples
from ensconce.errors import InputError, UnreachableError
from ensconce.tfserving.messages import (
    ClassificationRequest,
    ClassificationResponse,
    RegressionRequest,
    RegressionResponse,
)


def test_features_of_each_type() -> None:
    features = {
        "a": 1.5,
        "b": [1, 2],
        "c": "é",
        "d": b"\0\xff",
        "e": np.zeros((2, 2), np.float32),
        "f": [True],
        "g": [],
    }
    request = ClassificationRequest.FromString(encode_examples(CLASSIFY, "m", [features], version=3, signature="s"))
    assert (request.model_spec.name, request.model_spec.version.value, request.model_spec.signature_name) == (
        "m",
        3,
        "s",
    )
    (example,) = request.input.example_list.examples
    found = example.features.feature
    assert list(found["a"].float_list.value) == [1.5]
    assert list(found["b"].int64_list.value) == [1, 2]
    assert list(found["c"].bytes_list.value) == ["é".encode()]
    assert list(found["d"].bytes_list.value) == [b"\0\xff"]
    assert list(found["e"].float_list.value) == [0.0] * 4
    assert list(found["f"].int64_list.value) == [1]


def test_regression() -> None:
    request = RegressionRequest.FromString(encode_examples(REGRESS, "m", [{"x": 1.0}, {"x": 2.0}]))
    assert len(request.input.example_list.examples) == 2
    assert not request.model_spec.HasField("version")


@pytest.mark.parametrize("value", [1j, object(), [None], np.datetime64(0, "s")])
def test_what_no_example_holds(value: object) -> None:
    with pytest.raises(InputError) as refused:
        encode_examples(CLASSIFY, "m", [{"x": value}])
    assert refused.value.check == "predict.examples"


def test_answers() -> None:
    classes = ClassificationResponse()
    classes.result.classifications.add().classes.add(label="a", score=0.5)
    classes.result.classifications.add()
    assert decode_classes(classes.SerializeToString()) == [[("a", 0.5)], []]
    values = RegressionResponse()
    values.result.regressions.add(value=1.5)
    assert decode_values(values.SerializeToString()).tolist() == [1.5]
    for decode in (decode_classes, decode_values):
        with pytest.raises(UnreachableError):
            decode(b"\xff")
