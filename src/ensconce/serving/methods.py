"""What Classify and Regress ask of a signature, and what they make of its outputs.

Order of checks and texts: servables/tensorflow/classifier.cc (``PreProcessClassification``,
``PostProcessClassificationResult``) and regressor.cc (``PreProcessRegression``, ``PostProcessRegressionResult``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from google.protobuf import text_format

from ensconce.tfserving.dtypes import dtype_of
from ensconce.tfserving.refusal import invalid
from ensconce.tfserving.signatures import Signature
from ensconce.tfserving.tensor import Array, shape_text
from ensconce.tfserving.wire import varint

__all__ = [
    "CLASSIFY_METHOD",
    "INPUT",
    "REGRESS_METHOD",
    "Classes",
    "check_classification",
    "check_regression",
    "classes_in",
    "classification_bytes",
    "regression_bytes",
    "regressions_in",
]

CLASSIFY_METHOD: Final = "tensorflow/serving/classify"
REGRESS_METHOD: Final = "tensorflow/serving/regress"

# Names in signatures: tensorflow/cc/saved_model/signature_constants.h.
INPUT: Final = "inputs"
_CLASSES: Final = "classes"
_SCORES: Final = "scores"
_REGRESSIONS: Final = "outputs"

# Fields on the wire: ClassificationResult.classifications and Classifications.classes, Class.label, Class.score;
# RegressionResult.regressions, Regression.value (proto/tensorflow_serving/apis/{classification,regression}.proto).
_LIST, _LABEL, _SCORE, _VALUE = b"\x0a", b"\x0a", b"\x15", b"\x0d"
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class Classes:
    """The classes of each example: labels (bytes) and scores (float32), each ``[examples, classes]``; one may lack."""

    labels: Array | None
    scores: Array | None


def check_classification(signature: Signature, *, check_method_name: bool) -> tuple[str, ...]:
    """The outputs to compute.

    Raises:
        RequestError: INVALID_ARGUMENT, the signature cannot classify.
    """
    _check_method(signature, "classification", CLASSIFY_METHOD, check_method_name)
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUT not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {_described(signature)}")
    outputs = tuple(name for name in (_CLASSES, _SCORES) if name in signature.outputs)
    if not outputs:
        raise invalid(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature was: {_described(signature)}"
        )
    return outputs


def check_regression(signature: Signature, *, check_method_name: bool) -> tuple[str, ...]:
    """The outputs to compute.

    Raises:
        RequestError: INVALID_ARGUMENT, the signature cannot regress.
    """
    _check_method(signature, "regression", REGRESS_METHOD, check_method_name)
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if INPUT not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {_described(signature)}")
    if _REGRESSIONS not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {_described(signature)}")
    return (_REGRESSIONS,)


def _check_method(signature: Signature, kind: str, wanted: str, check: bool) -> None:
    if check and signature.method_name != wanted:
        raise invalid(f"Expected {kind} signature method_name to be {wanted}. Was: {signature.method_name}")


def _described(signature: Signature) -> str:
    return text_format.MessageToString(signature.to_proto(), as_one_line=True)


def classes_in(outputs: Mapping[str, Array], examples: int) -> Classes:
    """The classes in a signature's outputs.

    Raises:
        RequestError: INVALID_ARGUMENT, the outputs are no classes of that many examples.
    """
    labels, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    for name, array, wanted in ((_CLASSES, labels, "DT_STRING"), (_SCORES, scores, "DT_FLOAT")):
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
        if (found := dtype_of(array).name) != wanted:
            raise invalid(f"Expected {name} Tensor of {wanted}. Got: {found}")
        if len(array) != examples:
            raise invalid(f"Expected {name} output batch size of {examples}. Got: {len(array)}")
    if labels is not None and scores is not None and labels.shape != scores.shape:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    return Classes(labels, scores)


def regressions_in(outputs: Mapping[str, Array], examples: int) -> Array:
    """The value of each example in a signature's outputs: float32, ``[examples]``.

    Raises:
        RequestError: INVALID_ARGUMENT, the output is not one number for each of that many examples.
    """
    values = outputs[_REGRESSIONS]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            f"but got {shape_text(values.shape)}"
        )
    if len(values) != examples:
        raise invalid(f"Input batch size did not match output batch size: {examples} vs. {len(values)}")
    if (found := dtype_of(values).name) != "DT_FLOAT":
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {found}")
    return values.reshape(examples)


def regression_bytes(values: Array) -> bytes:
    """A serialized ``RegressionResult``."""
    return _filled(_LIST + bytes((1 + _FLOAT_BYTES,)) + _VALUE + bytes(_FLOAT_BYTES), [3], values.reshape(-1, 1))


def classification_bytes(classes: Classes) -> bytes:
    """A serialized ``ClassificationResult``.

    Laid out by hand: a thousand classes of an example would be a thousand messages otherwise. Examples that have the
    same labels, as of most models all have, differ in their scores alone.
    """
    labels, scores = classes.labels, classes.scores
    if labels is None:
        if scores is None:
            return b""
        return _filled(*_row((b"",) * scores.shape[1], scored=True), scores)
    keys = [tuple(row) for row in labels.tolist()]
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    if len(groups) == 1 and scores is not None:
        return _filled(*_row(keys[0], scored=True), scores)
    rows = [b""] * len(keys)
    for key, members in groups.items():
        row, places = _row(key, scored=scores is not None)
        for index in members:
            rows[index] = row if scores is None else _filled(row, places, scores[index : index + 1])
    return b"".join(rows)


def _row(labels: tuple[bytes, ...], *, scored: bool) -> tuple[bytes, list[int]]:
    """An example's classes with scores of zero, and where the scores are."""
    classes, places, at = [], [], 0
    for label in labels:
        body = _LABEL + varint(len(label)) + label if label else b""
        if scored:
            body += _SCORE + bytes(_FLOAT_BYTES)
        classes.append(_LIST + varint(len(body)) + body)
        at += len(classes[-1])
        places.append(at - _FLOAT_BYTES)
    start = _LIST + varint(at)
    return start + b"".join(classes), [len(start) + place for place in places]


def _filled(row: bytes, places: list[int], values: Array) -> bytes:
    """As many copies of ``row`` as ``values`` has rows, with float32 values at ``places``."""
    block = np.tile(np.frombuffer(row, np.uint8), (len(values), 1))
    content = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(*values.shape, _FLOAT_BYTES)
    block[:, np.add.outer(np.array(places, np.intp), np.arange(_FLOAT_BYTES))] = content
    return block.tobytes()
