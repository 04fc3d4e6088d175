"""The answer to a predict request as JSON text (api_rest.md; texts as in util/json_tensor.cc, ``MakeJsonFromTensors``).

Numbers are written from the array's own memory, without going through the JSON encoder one by one. As the original
does, a float has six digits where these give it back, otherwise nine; and a fraction or an exponent, so that clients
see what it is. NaN and the infinities are written as such: not JSON, but what its clients expect.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from ensconce.serving.json_tensors import Format, array_to_json
from ensconce.tfserving.refusal import invalid
from ensconce.tfserving.tensor import Array

__all__ = ["outputs_to_json"]

_FEW: Final = 8
_ULPS: Final = 2.0**-50
_FLOAT: Final = struct.Struct("<f")
_NOT_FINITE: Final = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def outputs_to_json(outputs: Mapping[str, Array], form: Format) -> bytes:
    """The body of the answer, in the format that the request came in; one output alone goes without its name.

    Raises:
        RequestError: INVALID_ARGUMENT, there are no outputs, they do not have one row per example, or JSON cannot
            carry their type.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if form == "columnar":
        columns = {name: _whole(array, name) for name, array in outputs.items()}
        text = _object(columns.items()) if len(columns) > 1 else next(iter(columns.values()))
        return f'{{"outputs":{text}}}'.encode()
    count = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if count is not None and count != array.shape[0]:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {count}")
        count = array.shape[0]
    rows = [_rows(array, name) for name, array in outputs.items()]
    if len(rows) == 1:
        return f'{{"predictions":[{",".join(rows[0])}]}}'.encode()
    objects = (_object(zip(outputs, row, strict=True)) for row in zip(*rows, strict=True))
    return f'{{"predictions":[{",".join(objects)}]}}'.encode()


def _object(members: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join([f"{json.dumps(name)}:{text}" for name, text in members]) + "}"


def _whole(array: Array, name: str) -> str:
    return _nested(_texts(array, name), array.shape, array)[0]


def _rows(array: Array, name: str) -> list[str]:
    return _nested(_texts(array, name), array.shape[1:], array)


def _nested(texts: list[str], shape: tuple[int, ...], array: Array) -> list[str]:
    """Texts of elements, as lists of this shape."""
    if array.size == 0:
        values = array.tolist()
        return [json.dumps(value) for value in values] if len(shape) < array.ndim else [json.dumps(values)]
    for size in reversed(shape):
        texts = [f"[{','.join(texts[at : at + size])}]" for at in range(0, len(texts), size)]
    return texts


def _texts(array: Array, name: str) -> list[str]:
    flat = np.ravel(array)
    if flat.dtype == np.float32:
        return _floats(flat)
    values = array_to_json(flat, name)
    if flat.dtype.kind in "iu":
        return list(map(str, values))
    return [json.dumps(value) for value in values]


def _floats(flat: Array) -> list[str]:
    if not np.isfinite(flat).all():
        finite = np.isfinite(flat)
        texts = iter(_floats(flat[finite]))
        return [
            next(texts) if is_finite else _NOT_FINITE[str(value)]
            for is_finite, value in zip(finite.tolist(), flat.tolist(), strict=True)
        ]
    if len(flat) <= _FEW:
        return [_float(value) for value in flat.tolist()]
    wide = flat.astype(np.float64)
    with np.errstate(all="ignore"):
        scale = 10.0 ** (5 - np.floor(np.log10(np.abs(wide))))
        short = np.rint(wide * scale) / scale
        # The number of six digits is not always a double: whatever lies as near must be read as this float.
        near = ((short * slack).astype(np.float32) == flat for slack in (1 - _ULPS, 1 + _ULPS))
        values = np.where(np.logical_and(*near), short, wide)
    # A whole number that %g would write without an exponent would look like an integer.
    is_whole = (values == np.rint(values)) & (np.abs(values) < 1e9)
    form = ["%.1f" if whole else "%.9g" for whole in is_whole.tolist()] if is_whole.any() else ["%.9g"] * len(flat)
    return ("\n".join(form) % tuple(values.tolist())).split("\n")


def _float(value: float) -> str:
    text = f"{value:.6g}"
    if _FLOAT.unpack(_FLOAT.pack(float(text)))[0] != value:
        text = f"{value:.9g}"
    return text if "." in text or "e" in text else text + ".0"
