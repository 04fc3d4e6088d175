"""A ``SignatureDef``, as a model's maker wrote it, as a :class:`Signature`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ensconce.tfserving.dtypes import DType, dtype_numbered
from ensconce.tfserving.refusal import RequestError, invalid
from ensconce.tfserving.signatures import Signature, TensorSpec
from ensconce.tfserving.tensor import from_proto

__all__ = ["check_servable", "signature_of"]

# Metadata shows every signature of a model, also those with types that nobody can send; no array has this dtype.
_NO_ARRAYS = np.dtype("V1")


def signature_of(name: str, definition: Any) -> Signature:
    """Read a ``SignatureDef``.

    A tensor without a name of its own (a sparse or composite one) and one of a type that is not served stay in the
    signature; :func:`check_servable` refuses a request for it.

    Raises:
        RequestError: INVALID_ARGUMENT, a default is no tensor.
    """
    return Signature(
        name,
        definition.method_name,
        {key: _spec(definition.inputs[key]) for key in sorted(definition.inputs)},
        {key: _spec(definition.outputs[key]) for key in sorted(definition.outputs)},
        {key: from_proto(definition.defaults[key]) for key in sorted(definition.defaults)},
        definition.SerializeToString(deterministic=True),
    )


def check_servable(signature: Signature, outputs: Iterable[str]) -> None:
    """Refuse a signature with an input, or with one of these outputs, that cannot be sent.

    Raises:
        RequestError: INVALID_ARGUMENT.
    """
    for kind, specs, names in (("input", signature.inputs, signature.inputs), ("output", signature.outputs, outputs)):
        for name in names:
            spec = specs[name]
            if not spec.tensor or spec.dtype.numpy == _NO_ARRAYS:
                raise invalid(f"{kind} {name} of signature {signature.name} is no tensor that can be sent")


def _spec(info: Any) -> TensorSpec:
    try:
        # References to variables, as TensorFlow 1 names them: 100 more than what they refer to.
        dtype = dtype_numbered(info.dtype - 100 if info.dtype > 100 else info.dtype)
    except RequestError:
        dtype = DType(info.dtype, f"type {info.dtype}", f"type {info.dtype}", _NO_ARRAYS, "")
    known = info.HasField("tensor_shape") and not info.tensor_shape.unknown_rank
    return TensorSpec(info.name, dtype, tuple(dim.size for dim in info.tensor_shape.dim) if known else None)
