from __future__ import annotations

from typing import Any

from ensconce.serving.manager import ModelManager
from ensconce.serving.methods import CLASSIFY_METHOD, REGRESS_METHOD
from ensconce.tfserving.messages import (
    ClassificationRequest,
    MultiInferenceRequest,
    RegressionRequest,
    UnreadExamplesRequest,
    UnreadMultiInferenceRequest,
)
from ensconce.tfserving.refusal import Code


def test_requests_may_come_unread(request_of: Any, multi: Any, classify: Any, infer: Any) -> None:
    asked = request_of(ClassificationRequest, 1.0)
    unread = UnreadExamplesRequest.FromString(asked.SerializeToString())
    assert classify(unread) == classify(asked)
    several = multi(("m", "", CLASSIFY_METHOD), ("m", "regress", REGRESS_METHOD))
    unread = UnreadMultiInferenceRequest.FromString(several.SerializeToString())
    assert infer(unread) == infer(several)


def test_which_model(
    manager: ModelManager, request_of: Any, multi: Any, classify: Any, regress: Any, infer: Any, refused: Any
) -> None:
    for name, version in manager.models():
        manager.remove(name, version)
    assert refused(classify, ClassificationRequest()) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    assert refused(regress, RegressionRequest()) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    assert refused(classify, request_of(ClassificationRequest, 1.0))[0] is Code.NOT_FOUND
    nameless = (Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    assert refused(infer, MultiInferenceRequest()) == nameless
    assert refused(infer, multi(("", "", CLASSIFY_METHOD))) == nameless


def test_method_names_are_looked_at_where_that_is_asked_for(
    request_of: Any, multi: Any, classify: Any, regress: Any, infer: Any, refused: Any
) -> None:
    asked = request_of(ClassificationRequest, 1.0, signature_name="scores")
    assert refused(classify, asked, check_method_name=True) == (
        Code.INVALID_ARGUMENT,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    )
    assert refused(regress, request_of(RegressionRequest, 1.0), check_method_name=True) == (
        Code.INVALID_ARGUMENT,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify",
    )
    several = multi(("m", "scores", CLASSIFY_METHOD))
    assert "Was: tensorflow/serving/predict" in refused(infer, several, check_method_name=True)[1]
    assert classify(request_of(ClassificationRequest, 1.0), check_method_name=True)


def test_no_examples(request_of: Any, multi: Any, classify: Any, regress: Any, infer: Any, refused: Any) -> None:
    empty = (Code.INVALID_ARGUMENT, "Input is empty.")
    assert refused(classify, request_of(ClassificationRequest)) == empty
    assert refused(regress, request_of(RegressionRequest, signature_name="regress")) == empty
    assert refused(infer, multi(("m", "", CLASSIFY_METHOD), values=())) == empty
