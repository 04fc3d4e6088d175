"""Classify, Regress and MultiInference: examples in, classes with scores or numbers out.

Order of checks, and so of refusals, and texts: servables/tensorflow/classification_service.cc, regression_service.cc,
multi_inference_helper.cc and multi_inference.cc. Requests may be the API's messages, or those that leave the examples
unread (``UnreadExamplesRequest``, ``UnreadMultiInferenceRequest``), which fronts should prefer: the same bytes in a
fraction of the time and memory.

Each answer has two halves that may run in any thread, ``read_...`` and ``write_...``, and :func:`predict_all` between
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.serving.answers import Prediction, resolve, spec_of
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.serving.methods import (
    CLASSIFY_METHOD,
    INPUT,
    REGRESS_METHOD,
    check_classification,
    check_regression,
    classes_in,
    classification_bytes,
    regression_bytes,
    regressions_in,
)
from ensconce.tfserving.dtypes import STRING
from ensconce.tfserving.inputs import examples_of
from ensconce.tfserving.messages import ClassificationResponse, MultiInferenceResponse, RegressionResponse
from ensconce.tfserving.refusal import Code, RequestError, invalid
from ensconce.tfserving.signatures import DEFAULT_SIGNATURE, Signature
from ensconce.tfserving.tensor import Array

__all__ = [
    "Task",
    "examples_in",
    "predict_all",
    "read_classify",
    "read_multi_inference",
    "read_regress",
    "write_classify",
    "write_multi_inference",
    "write_regress",
]

_CHECKS: Final = {CLASSIFY_METHOD: check_classification, REGRESS_METHOD: check_regression}


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a ``MultiInferenceRequest``: its method, and what is to be computed for it."""

    method_name: str
    prediction: Prediction


def read_classify(
    manager: ModelManager, request: Any, *, tensor_bytes: int, check_method_name: bool = False
) -> Prediction:
    """What a ``ClassificationRequest`` asks to be computed.

    Args:
        manager: knows the models.
        request: the request.
        tensor_bytes: most bytes that the examples may take, each with the context.
        check_method_name: whether a signature that classifies must say so (``--enable_signature_method_name_check``).

    Raises:
        RequestError: whatever is wrong with it.
    """
    return _read(manager, request, CLASSIFY_METHOD, tensor_bytes, check_method_name)


def read_regress(
    manager: ModelManager, request: Any, *, tensor_bytes: int, check_method_name: bool = False
) -> Prediction:
    """What a ``RegressionRequest`` asks to be computed; as :func:`read_classify`."""
    return _read(manager, request, REGRESS_METHOD, tensor_bytes, check_method_name)


def read_multi_inference(
    manager: ModelManager, request: Any, *, tensor_bytes: int, check_method_name: bool = False
) -> list[Task]:
    """What a ``MultiInferenceRequest`` asks to be computed, all by one version of a model; as :func:`read_classify`."""
    # Without a task, the original asks for the model without a name.
    loaded = resolve(manager, request.tasks[0].model_spec) if request.tasks else manager.resolve("")
    chosen: dict[str, tuple[str, tuple[str, ...]]] = {}
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != loaded.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in chosen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = loaded.servable.signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        check = _CHECKS.get(task.method_name)
        if check is None:
            raise RequestError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        chosen[name] = task.method_name, check(signature, check_method_name=check_method_name)
    inputs = _inputs(request, tensor_bytes)
    return [
        Task(method, Prediction(loaded, loaded.servable.signatures[name], inputs, outputs))
        for name, (method, outputs) in chosen.items()
    ]


async def predict_all(scheduler: Scheduler, asked: Sequence[Prediction]) -> list[dict[str, Array]]:
    """The outputs of each, computed at the same time; when one fails the others are given up.

    Raises:
        RequestError: the first failure.
    """
    if len(asked) == 1:
        # Fronts begin without a task.
        return [await _predict(scheduler, asked[0])]
    tasks = [asyncio.ensure_future(_predict(scheduler, each)) for each in asked]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def write_classify(asked: Prediction, outputs: Mapping[str, Array]) -> Any:
    """The answer to :func:`read_classify`: a ``ClassificationResponse``."""
    response = ClassificationResponse()
    _write_spec(response.model_spec, asked)
    _write_classes(response.result, asked, outputs)
    return response


def write_regress(asked: Prediction, outputs: Mapping[str, Array]) -> Any:
    """The answer to :func:`read_regress`: a ``RegressionResponse``."""
    response = RegressionResponse()
    _write_spec(response.model_spec, asked)
    _write_regressions(response.result, asked, outputs)
    return response


def write_multi_inference(tasks: Sequence[Task], outputs: Sequence[Mapping[str, Array]]) -> Any:
    """The answer to :func:`read_multi_inference`: a ``MultiInferenceResponse``, in the tasks' order."""
    response = MultiInferenceResponse()
    for task, found in zip(tasks, outputs, strict=True):
        result = response.results.add()
        _write_spec(result.model_spec, task.prediction)
        if task.method_name == CLASSIFY_METHOD:
            _write_classes(result.classification_result, task.prediction, found)
        else:
            _write_regressions(result.regression_result, task.prediction, found)
    return response


def examples_in(asked: Prediction) -> int:
    """How many examples there are."""
    return len(asked.inputs[INPUT])


def _read(manager: ModelManager, request: Any, method: str, tensor_bytes: int, check_method_name: bool) -> Prediction:
    spec = spec_of(request)
    loaded = resolve(manager, spec)
    signature = _signature(loaded, spec.signature_name)
    outputs = _CHECKS[method](signature, check_method_name=check_method_name)
    return Prediction(loaded, signature, _inputs(request, tensor_bytes), outputs)


def _signature(loaded: LoadedServable, name: str) -> Signature:
    name = name or DEFAULT_SIGNATURE
    signature = loaded.servable.signatures.get(name)
    if signature is None:
        # Predict says it in other words and with another code.
        raise invalid(f"No signature was found with the name: {name}")
    return signature


def _inputs(request: Any, limit: int) -> dict[str, Array]:
    examples = examples_of(request.input, limit=limit)
    array = np.empty(len(examples), STRING)
    array[:] = examples
    return {INPUT: array}


async def _predict(scheduler: Scheduler, asked: Prediction) -> dict[str, Array]:
    return await scheduler.predict(asked.loaded, asked.signature.name, asked.inputs, asked.output_filter)


def _write_spec(spec: Any, asked: Prediction) -> None:
    spec.name = asked.loaded.name
    spec.version.value = asked.loaded.version
    spec.signature_name = asked.signature.name


def _write_classes(result: Any, asked: Prediction, outputs: Mapping[str, Array]) -> None:
    data = classification_bytes(classes_in(outputs, examples_in(asked)))
    result.SetInParent()
    try:
        result.MergeFromString(data)
    except DecodeError:
        # A string of the API's is text. The original sends what its clients then cannot read.
        raise RequestError(Code.INTERNAL, "The model's label of a class is no UTF-8 text") from None


def _write_regressions(result: Any, asked: Prediction, outputs: Mapping[str, Array]) -> None:
    result.MergeFromString(regression_bytes(regressions_in(outputs, examples_in(asked))))
