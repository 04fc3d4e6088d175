from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ensconce.tfserving.messages import (
    RegressionRequest,
)
from ensconce.tfserving.refusal import Code


def test_regress(model: Any, request_of: Any, regress: Any) -> None:
    asked = request_of(RegressionRequest, 1.0, -10.0, signature_name="regress")
    response = regress(asked)
    assert [each.value for each in response.result.regressions] == [11, 0]
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "regress"
    model.outputs["outputs"] = np.array([np.nan, np.inf], np.float32)
    values = [each.value for each in regress(asked).result.regressions]
    assert np.isnan(values[0])
    assert values[1] == np.inf


def test_the_context_is_every_example_s(request_of: Any, regress: Any) -> None:
    asked = request_of(RegressionRequest, 1.0, None, signature_name="regress", context=5.0)
    assert [each.value for each in regress(asked).result.regressions] == [11, 15]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none", "No signature was found with the name: none"),
        ("", "Expected one output Tensor."),
        ("two_inputs", "Expected one input Tensor."),
        ("another_input", "No regression inputs found in SignatureDef: inputs {"),
        ("another_output", "No regression outputs found in SignatureDef: inputs {"),
    ],
)
def test_signatures_that_cannot_regress(name: str, text: str, request_of: Any, regress: Any, refused: Any) -> None:
    code, problem = refused(regress, request_of(RegressionRequest, 1.0, signature_name=name))
    assert code is Code.INVALID_ARGUMENT
    assert problem.startswith(text)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            np.zeros((1, 2), np.float32),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
        ),
        (np.float32(1), "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []"),
        (np.zeros((2, 1), np.float32), "Input batch size did not match output batch size: 1 vs. 2"),
        (np.zeros(1, np.int32), "Expected output Tensor of DT_FLOAT.  Got: DT_INT32"),
    ],
)
def test_outputs_that_are_no_regressions(
    model: Any, values: Any, text: str, request_of: Any, regress: Any, refused: Any
) -> None:
    model.outputs["outputs"] = np.asarray(values)
    asked = request_of(RegressionRequest, 1.0, signature_name="regress")
    assert refused(regress, asked) == (Code.INVALID_ARGUMENT, text)
