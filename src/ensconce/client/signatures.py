"""What a model takes and gives, learned from its server, and arrays made to fit it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from ensconce.client.codec import SIGNATURES, Array
from ensconce.errors import InputError, UnreachableError
from ensconce.tfserving.dtypes import dtype_numbered
from ensconce.tfserving.messages import GetModelMetadataResponse, SignatureDefMap
from ensconce.tfserving.refusal import RequestError

__all__ = [
    "DEFAULT",
    "InputSpec",
    "Inputs",
    "Signature",
    "Signatures",
    "decode_signatures",
    "fit",
    "known",
    "signature_named",
    "to_arrays",
]

DEFAULT = "serving_default"
"""The signature that is meant where none is named."""

_MAX_MODELS = 1024

Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike]
"""What a signature takes: arrays, or what becomes one, by name; or one without a name."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What goes in or comes out under one name: element type, and shape with -1 for dimensions of any size."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to ask a model.

    Attributes:
        method: ``tensorflow/serving/predict`` and so on.
        inputs: by name.
        outputs: by name.
    """

    method: str
    inputs: Mapping[str, InputSpec]
    outputs: Mapping[str, InputSpec]


def decode_signatures(data: bytes) -> tuple[dict[str, Signature], int]:
    """The signatures in a ``GetModelMetadataResponse`` by name, and the version that they are of.

    Those with a type that has no array are left out: TensorFlow's SavedModels have ``__saved_model_init_op``, whose one
    output is DT_INVALID, beside those that can be asked.

    Raises:
        UnreachableError: check ``predict.metadata``; this is no such message.
    """
    signatures = SignatureDefMap()
    try:
        response = GetModelMetadataResponse.FromString(data)
        response.metadata[SIGNATURES].Unpack(signatures)
    except DecodeError as error:
        raise UnreachableError(
            "predict.metadata", "the server's answer is no GetModelMetadataResponse", found=str(error)[:200]
        ) from error
    found = {}
    for name, each in signatures.signature_def.items():
        with contextlib.suppress(RequestError):
            found[name] = Signature(each.method_name, _specs(each.inputs), _specs(each.outputs))
    return found, response.model_spec.version.value


def _specs(tensors: Mapping[str, Any]) -> dict[str, InputSpec]:
    return {
        name: InputSpec(dtype_numbered(info.dtype).numpy, tuple(axis.size for axis in info.tensor_shape.dim))
        for name, info in tensors.items()
    }


def signature_named(name: str, signatures: Mapping[str, Signature]) -> Signature:
    """One of a model's signatures; the default one for the empty name.

    Raises:
        InputError: check ``predict.signature``; the model has no such signature.
    """
    found = signatures.get(name or DEFAULT)
    if found is None:
        raise InputError(
            "predict.signature",
            "the model has no such signature",
            found=name or DEFAULT,
            rule=f"one of {', '.join(sorted(signatures))[:200]}",
        )
    return found


def known(signatures: dict[str, Signature] | None) -> dict[str, Signature]:
    """What the server told of a model.

    Raises:
        InputError: ``predict.unimplemented``: nothing.
    """
    if signatures is None:
        raise InputError("predict.unimplemented", "the server does not tell what its models take")
    return dict(signatures)


def to_arrays(inputs: Inputs, signatures: Mapping[str, Signature] | None, name: str) -> dict[str, Array]:
    """The arrays to send.

    Args:
        inputs: see :func:`fit`.
        signatures: of the model, or ``None`` where nobody tells them: then arrays by name go as they are.
        name: of the signature, empty for the default one.

    Raises:
        InputError: see :func:`fit` and :func:`signature_named`.
    """
    if signatures is not None:
        return fit(inputs, signature_named(name, signatures))
    if not isinstance(inputs, Mapping):
        raise InputError("predict.inputs", "the server does not tell the names of inputs", rule="arrays by name")
    return {name: np.asarray(value) for name, value in inputs.items()}


def fit(inputs: Inputs, signature: Signature) -> dict[str, Array]:
    """Arrays of the element types that a signature takes.

    Args:
        inputs: by name; or, for a signature with one input, that one: an array, or what becomes one.
        signature: of the model.

    Raises:
        InputError: ``predict.inputs``: one is missing, one too many, or would lose fractions or imaginary parts.
    """
    if not isinstance(inputs, Mapping):
        if len(signature.inputs) != 1:
            raise InputError(
                "predict.inputs", "the model has several inputs", rule=f"arrays by name: {', '.join(signature.inputs)}"
            )
        inputs = {next(iter(signature.inputs)): inputs}
    if inputs.keys() != signature.inputs.keys():
        raise InputError(
            "predict.inputs",
            "these are not the inputs of the model",
            found=", ".join(map(str, inputs))[:200] or "none",
            rule=", ".join(signature.inputs)[:200],
        )
    return {name: _fitted(name, inputs[name], spec) for name, spec in signature.inputs.items()}


def _fitted(name: str, value: Any, spec: InputSpec) -> Array:
    try:
        array = np.asarray(value)
        if array.dtype == spec.dtype or spec.dtype.hasobject or array.dtype.kind in "OSU":
            return array
        return array.astype(spec.dtype, casting="same_kind")
    except (ValueError, TypeError) as error:
        raise InputError(
            "predict.inputs",
            f"input {name} holds no numbers of the right type",
            found=str(np.asarray(value, dtype=object).dtype if not isinstance(value, np.ndarray) else value.dtype),
            rule=str(spec.dtype),
        ) from error


class Signatures:
    """What is known of models, by name and version. Safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int | None], dict[str, Signature] | None] = {}
        self._newest: dict[str, int] = {}
        self._lock = threading.Lock()

    def get(self, model: str, version: int | None) -> dict[str, Signature] | None:
        """The signatures.

        Args:
            model: its name.
            version: ``None`` for the newest.

        Raises:
            KeyError: they are not known. ``None`` says that the server does not tell them.
        """
        with self._lock:
            return self._known[model, version]

    def learn(self, model: str, version: int | None, answer: bytes) -> dict[str, Signature]:
        """The server has told them, in a ``GetModelMetadataResponse``.

        Raises:
            UnreachableError: see :func:`decode_signatures`.
        """
        signatures, found = decode_signatures(answer)
        self._keep(model, version, signatures, found)
        return signatures

    def untold(self, model: str, version: int | None, error: InputError) -> None:
        """The server tells nothing of any model.

        Raises:
            InputError: it does, but not of this one.
        """
        if error.check != "predict.unimplemented":
            raise error
        self._keep(model, version, None, 0)

    def answered(self, model: str, version: int | None, found: int) -> None:
        """A version has answered. When that is another one than the newest that is known, the newest is asked anew."""
        with self._lock:
            if version is None and found and self._newest.get(model, found) != found:
                self._known.pop((model, None), None)

    def _keep(self, model: str, version: int | None, signatures: dict[str, Signature] | None, found: int) -> None:
        with self._lock:
            if len(self._known) >= _MAX_MODELS:
                self._known.clear()
            self._known[model, version] = signatures
            if found:
                self._known[model, found] = signatures
            if version is None:
                self._newest[model] = found
