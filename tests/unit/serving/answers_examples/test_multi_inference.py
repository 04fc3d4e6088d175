from __future__ import annotations

from typing import Any

import pytest

from ensconce.serving.methods import CLASSIFY_METHOD, REGRESS_METHOD
from ensconce.tfserving.refusal import Code
from ensconce.tfserving.signatures import PREDICT_METHOD


def test_multi_inference(multi: Any, infer: Any, listed: Any) -> None:
    asked = multi(("m", "regress", REGRESS_METHOD), ("m", "", CLASSIFY_METHOD))
    asked.tasks[0].model_spec.version.value = 3
    first, second = infer(asked).results
    assert [each.value for each in first.regression_result.regressions] == [11, 13]
    assert first.model_spec.signature_name == "regress"
    assert listed(second.classification_result) == [[("one", 1), ("two", 2)], [("one", 3), ("two", 6)]]
    # The first task's version is everybody's.
    assert [each.model_spec.version.value for each in (first, second)] == [3, 3]
    assert second.model_spec.name == "m"
    assert second.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        (
            [("m", "", CLASSIFY_METHOD), ("", "regress", REGRESS_METHOD)],
            Code.INVALID_ARGUMENT,
            "Found ModelSpec with an empty model name.",
        ),
        (
            [("m", "", CLASSIFY_METHOD), ("other", "regress", REGRESS_METHOD)],
            Code.INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("m", "", CLASSIFY_METHOD), ("m", "serving_default", CLASSIFY_METHOD)],
            Code.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: serving_default",
        ),
        ([("m", "no", CLASSIFY_METHOD)], Code.INVALID_ARGUMENT, "Requested signature not found in model graph: no"),
        (
            [("m", "", PREDICT_METHOD)],
            Code.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        ([("m", "", REGRESS_METHOD)], Code.INVALID_ARGUMENT, "Expected one output Tensor."),
    ],
)
def test_rules_of_multi_inference(tasks: Any, code: Code, text: str, multi: Any, infer: Any, refused: Any) -> None:
    assert refused(infer, multi(*tasks)) == (code, text)
