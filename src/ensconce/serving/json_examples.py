"""The bodies of ``:classify`` and ``:regress`` (api_rest.md), from and to the API's messages.

Rules and texts: util/json_tensor.cc (``FillClassifyRegressRequestFromJson``, ``MakeJsonFromClassificationResult``,
``MakeJsonFromRegressionResult``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from ensconce.serving.answers import Prediction
from ensconce.serving.answers_examples import examples_in, predict_all, read_classify, read_regress
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.json_tensors import array_to_json, as_bytes, is_base64, parse_body, quote, type_name
from ensconce.serving.manager import ModelManager
from ensconce.serving.methods import Classes, classes_in, regressions_in
from ensconce.tfserving.messages import Input, UnreadExamplesRequest
from ensconce.tfserving.refusal import invalid
from ensconce.tfserving.tensor import Array

__all__ = [
    "answer_examples_json",
    "classes_to_json",
    "examples_request_from_json",
    "regressions_to_json",
]

_IN_LOOP: Final = 16 * 1024
"""Bytes that are read or written in the event loop; more take a thread."""

_LONGEST_QUOTE: Final = 256
_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)
# What a feature becomes by the first of its values, and what it is called.
_KINDS: Final = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


async def answer_examples_json(
    method: str,
    manager: ModelManager,
    scheduler: Scheduler,
    spec: Any,
    body: bytes,
    *,
    tensor_bytes: int,
    check_method_name: bool = False,
) -> bytes:
    """Answer the body of a request; large ones are read and answers to them written in threads.

    Args:
        method: "classify" or "regress".
        manager: knows the models.
        scheduler: computes.
        spec: ``ModelSpec`` of the path.
        body: JSON.
        tensor_bytes: see :func:`~ensconce.serving.answers_examples.read_classify`.
        check_method_name: see there.

    Returns:
        JSON.

    Raises:
        RequestError: whatever is wrong with it.
    """
    read, write = _METHODS[method]

    def begin() -> Prediction:
        request = examples_request_from_json(spec, body)
        return read(manager, request, tensor_bytes=tensor_bytes, check_method_name=check_method_name)

    small = len(body) <= _IN_LOOP
    asked = begin() if small else await asyncio.to_thread(begin)
    [outputs] = await predict_all(scheduler, [asked])
    if small and sum(array.nbytes for array in outputs.values()) <= _IN_LOOP:
        return write(outputs, examples_in(asked))
    return await asyncio.to_thread(write, outputs, examples_in(asked))


def examples_request_from_json(spec: Any, body: bytes) -> Any:
    """An ``UnreadExamplesRequest`` for a model and a body: ``examples``, ``context`` and ``signature_name``.

    Raises:
        RequestError: INVALID_ARGUMENT.
    """
    document = parse_body(body)
    request = UnreadExamplesRequest(model_spec=spec)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quote(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    request.model_spec.signature_name = _text(name)
    given = Input()
    held: Any = given.example_list
    if "context" in document:
        held = given.example_list_with_context
        _fill(held.context, document["context"])
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {quote(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {quote(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {quote(document)} 'examples' value is an empty array")
    for each in examples:
        _fill(held.examples.add(), each)
    request.input = given.SerializeToString()
    return request


def _fill(example: Any, value: Any) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    features = example.features.feature
    for name, content in value.items():
        feature = features[_text(name)]
        values = content if isinstance(content, list) else [content]
        members = {_member(each, name) for each in values}
        if len(members) > 1:
            wanted = _member(values[0], name)
            raise invalid(f"Unexpected element type in feature: {_named(name)} expecting type: {_KINDS[wanted]}")
        for member in members:
            getattr(feature, member).value.extend(_converted(values, member, name))


def _member(value: Any, name: str) -> str:
    """The member of ``tensorflow.Feature`` that takes a JSON value."""
    if isinstance(value, str) or is_base64(value):
        return "bytes_list"
    if isinstance(value, float):
        return "float_list"
    if isinstance(value, int):
        # Integers of more than 64 bits are read as numbers with a fraction are.
        if value in _INT64:
            return "int64_list"
        if value in _UINT64:
            raise invalid(f"Feature: {_named(name)} has uint64_t element. Only int64_t is supported.")
        return "float_list"
    raise invalid(f"Feature: {_named(name)} has element with unexpected JSON type: {type_name(value)}")


def _converted(values: list[Any], member: str, name: str) -> Any:
    if member == "bytes_list":
        return [as_bytes(value) for value in values]
    if member == "float_list":
        try:
            with np.errstate(over="ignore"):
                return np.array(values, np.float64).astype(np.float32).tolist()
        except OverflowError:
            raise invalid(f"Feature: {_named(name)} has a number that is out of range") from None
    return map(int, values)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid("JSON Value: a string holds half a surrogate pair, which is no text") from None
    return value


def _named(name: str) -> str:
    """A client's name for a feature, fit for a text of one line."""
    return (name if name.isprintable() else json.dumps(name)[1:-1])[:_LONGEST_QUOTE]


def classes_to_json(classes: Classes) -> bytes:
    """``{"results": [[[label, score], ...], ...]}``; what a model does not give is "" or 0.0.

    Raises:
        RequestError: INVALID_ARGUMENT, a label is no UTF-8 text.
    """
    known = classes.labels if classes.labels is not None else classes.scores
    shape = known.shape if known is not None else (0, 0)
    labels = np.full(shape, b"", object) if classes.labels is None else classes.labels
    scores = np.zeros(shape, np.float32) if classes.scores is None else classes.scores
    rows = zip(array_to_json(labels, "classes"), array_to_json(scores, "scores"), strict=True)
    return _dump([list(map(list, zip(*row, strict=True))) for row in rows])


def regressions_to_json(values: Array) -> bytes:
    """``{"results": [value, ...]}``."""
    return _dump(array_to_json(values, "outputs"))


_METHODS: Final[Mapping[str, tuple[Callable[..., Prediction], Callable[[Mapping[str, Array], int], bytes]]]] = {
    "classify": (read_classify, lambda outputs, count: classes_to_json(classes_in(outputs, count))),
    "regress": (read_regress, lambda outputs, count: regressions_to_json(regressions_in(outputs, count))),
}


def _dump(results: Any) -> bytes:
    # NaN and the infinities are written as such, as the original does: not JSON, but what its clients expect.
    return json.dumps({"results": results}, separators=(",", ":"), allow_nan=True).encode()
