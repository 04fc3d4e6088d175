"""The element types that the server speaks, each with its number, its names and its numpy dtype.

``bfloat16`` and the quantised types have no numpy dtype of their own. They travel as structured dtypes with one field
of the type's name, so that an array always says what it holds; ``array[BFLOAT16.names[0]]`` are the raw bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ensconce.tfserving.refusal import invalid

__all__ = ["BFLOAT16", "DTYPES", "STRING", "DType", "dtype_named", "dtype_numbered", "dtype_of"]


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes:
        number: value of the enum ``tensorflow.DataType``.
        name: name in that enum, e.g. ``DT_FLOAT``.
        label: TensorFlow's short name, used in texts, e.g. ``float``.
        numpy: dtype of arrays that hold it (little-endian); ``object`` of ``bytes`` for strings.
        field: the repeated field of ``TensorProto`` that may hold its values.
    """

    number: int
    name: str
    label: str
    numpy: np.dtype[Any]
    field: str


def _tagged(name: str, base: str) -> np.dtype[Any]:
    return np.dtype([(name, base)])


BFLOAT16: Final = _tagged("bfloat16", "<u2")
STRING: Final = np.dtype(object)

DTYPES: Final = (
    DType(1, "DT_FLOAT", "float", np.dtype("<f4"), "float_val"),
    DType(2, "DT_DOUBLE", "double", np.dtype("<f8"), "double_val"),
    DType(3, "DT_INT32", "int32", np.dtype("<i4"), "int_val"),
    DType(4, "DT_UINT8", "uint8", np.dtype("u1"), "int_val"),
    DType(5, "DT_INT16", "int16", np.dtype("<i2"), "int_val"),
    DType(6, "DT_INT8", "int8", np.dtype("i1"), "int_val"),
    DType(7, "DT_STRING", "string", STRING, "string_val"),
    DType(8, "DT_COMPLEX64", "complex64", np.dtype("<c8"), "scomplex_val"),
    DType(9, "DT_INT64", "int64", np.dtype("<i8"), "int64_val"),
    DType(10, "DT_BOOL", "bool", np.dtype("?"), "bool_val"),
    DType(11, "DT_QINT8", "qint8", _tagged("qint8", "i1"), "int_val"),
    DType(12, "DT_QUINT8", "quint8", _tagged("quint8", "u1"), "int_val"),
    DType(13, "DT_QINT32", "qint32", _tagged("qint32", "<i4"), "int_val"),
    DType(14, "DT_BFLOAT16", "bfloat16", BFLOAT16, "half_val"),
    DType(15, "DT_QINT16", "qint16", _tagged("qint16", "<i2"), "int_val"),
    DType(16, "DT_QUINT16", "quint16", _tagged("quint16", "<u2"), "int_val"),
    DType(17, "DT_UINT16", "uint16", np.dtype("<u2"), "int_val"),
    DType(18, "DT_COMPLEX128", "complex128", np.dtype("<c16"), "dcomplex_val"),
    DType(19, "DT_HALF", "half", np.dtype("<f2"), "half_val"),
    DType(22, "DT_UINT32", "uint32", np.dtype("<u4"), "uint32_val"),
    DType(23, "DT_UINT64", "uint64", np.dtype("<u8"), "uint64_val"),
)

_BY_NUMBER: Final = {dtype.number: dtype for dtype in DTYPES}
_BY_NAME: Final = {dtype.name: dtype for dtype in DTYPES}
_BY_NUMPY: Final = {dtype.numpy: dtype for dtype in DTYPES}


def dtype_numbered(number: int) -> DType:
    """The element type with this value in ``tensorflow.DataType``.

    Raises:
        RequestError: INVALID_ARGUMENT, the type is unknown or cannot be served (resources, variants, float8, int4).
    """
    try:
        return _BY_NUMBER[number]
    except KeyError:
        raise invalid(f"tensor type {number} is not supported") from None


def dtype_named(name: str) -> DType:
    """The element type with this name in ``tensorflow.DataType``, e.g. ``DT_FLOAT``.

    Raises:
        KeyError: no such type is supported.
    """
    return _BY_NAME[name]


def dtype_of(array: np.ndarray[Any, Any]) -> DType:
    """The element type of an array; text, bytes and objects (which must be ``bytes`` or ``str``) are strings.

    Raises:
        RequestError: INVALID_ARGUMENT, no element type corresponds to the array's dtype.
    """
    if array.dtype.kind in "OSU":
        return _BY_NUMPY[STRING]
    found = _BY_NUMPY.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise invalid(f"numpy type {array.dtype} has no tensor type")
    return found
