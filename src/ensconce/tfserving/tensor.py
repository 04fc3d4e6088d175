"""``TensorProto`` from and to numpy.

The rules are those of TensorFlow's ``Tensor::FromProto`` (tensorflow/core/framework/tensor.cc): ``tensor_content`` wins
when it is there and must have exactly the shape's size; otherwise values come from the type's ``*_val`` field, the
last one standing for all that are missing, zero when there is none. One rule is stricter here: more values than the
shape holds are refused, where TensorFlow drops them silently.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any, Final

import numpy as np

from ensconce.tfserving.bulk import Bulk
from ensconce.tfserving.dtypes import STRING, DType, dtype_numbered, dtype_of
from ensconce.tfserving.messages import TensorProto
from ensconce.tfserving.refusal import invalid
from ensconce.tfserving.wire import varint

__all__ = ["DEFAULT_LIMIT", "FIXED_FIELDS", "Array", "from_proto", "shape_of", "shape_text", "string_bytes", "to_proto"]

Array = np.ndarray[Any, Any]

DEFAULT_LIMIT: Final = 128 * 1024 * 1024
# numpy's own bound (NPY_MAXDIMS); TensorFlow's is 254.
_MAX_RANK: Final = 64
# What an empty string costs in an array of objects: a pointer.
_STRING_COST: Final = 8
# What one that is not empty costs beside its bytes: the pointer, its length while it is read, and an object's head.
_OBJECT_COST: Final = 64
# Numbers that are read without pause: some 3 ms.
_PIECE: Final = 64 * 1024
FIXED_FIELDS: Final = {"float_val": 5, "double_val": 6, "scomplex_val": 9, "dcomplex_val": 12, "bool_val": 11}
"""Fields whose packed encoding is the array's own bytes, with their numbers."""


def shape_of(proto: Any, item_size: int, limit: int) -> tuple[int, ...]:
    """The dimensions of a ``TensorShapeProto``, once it is sure that such a tensor may be made.

    Args:
        proto: the shape; every dimension must be known.
        item_size: bytes per element.
        limit: most bytes that the tensor may have.

    Raises:
        RequestError: INVALID_ARGUMENT, the shape is not fully defined, has too many dimensions or too many elements.
    """
    if proto.unknown_rank:
        raise invalid("the shape has an unknown rank")
    if len(proto.dim) > _MAX_RANK:
        raise invalid(f"the shape has {len(proto.dim)} dimensions, at most {_MAX_RANK} are supported")
    shape = tuple(dim.size for dim in proto.dim)
    if any(size < 0 for size in shape):
        raise invalid(f"the shape {shape_text(shape)} has a negative dimension")
    # Zeros count as ones, so that [0, 2**62] is no way around the bound.
    if math.prod(max(size, 1) for size in shape) * item_size > limit:
        raise invalid(f"the shape {shape_text(shape)} takes more than {limit} bytes")
    return shape


def from_proto(proto: Any, bulk: Bulk | None = None, *, limit: int = DEFAULT_LIMIT) -> Array:
    """Read a ``TensorProto`` into an array of the dtype that :mod:`ensconce.tfserving.dtypes` gives its type.

    The array is read-only when it can be a view of the message's own bytes; then it may lie at any address.

    Args:
        proto: the tensor.
        bulk: a value of it that was cut out before it was read.
        limit: most bytes that the array may have.

    Raises:
        RequestError: INVALID_ARGUMENT, the type is not supported, or values and shape do not fit together.
    """
    dtype = dtype_numbered(proto.dtype)
    is_string = dtype.numpy == STRING
    shape = shape_of(proto.tensor_shape, _STRING_COST if is_string else dtype.numpy.itemsize, limit)
    count = math.prod(shape)
    content = proto.tensor_content
    if bulk is not None and bulk.field == "tensor_content":
        content = bytes(bulk.data) if is_string else bulk.data
    if is_string:
        strings = _strings_in(content, count, limit) if content else list(proto.string_val)
        return _filled(np.array(strings, dtype=object), b"", dtype, shape)
    if content:
        if len(content) != count * dtype.numpy.itemsize:
            raise invalid(
                f"tensor_content has {len(content)} bytes, "
                f"shape {shape_text(shape)} of {dtype.label} needs {count * dtype.numpy.itemsize}"
            )
        return np.frombuffer(content, dtype.numpy).reshape(shape)
    return _filled(_values_in(proto, bulk, dtype, shape), np.zeros((), dtype.numpy), dtype, shape)


def _filled(values: Array, nothing: Any, dtype: DType, shape: tuple[int, ...]) -> Array:
    count = math.prod(shape)
    _check_number(len(values), dtype, shape)
    if len(values) == count:
        return values.reshape(shape)
    array = np.empty(count, dtype.numpy)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if len(values) else nothing
    return array.reshape(shape)


def _check_number(found: int, dtype: DType, shape: tuple[int, ...]) -> None:
    if found > (count := math.prod(shape)):
        raise invalid(f"{dtype.field} has {found} values, shape {shape_text(shape)} holds {count}")


def _values_in(proto: Any, bulk: Bulk | None, dtype: DType, shape: tuple[int, ...]) -> Array:
    """The values of the type's own field, one-dimensional."""
    repeated = getattr(proto, dtype.field)
    cut = bulk.data if bulk is not None and bulk.field == dtype.field else None
    bits = dtype.numpy
    if bits.names is not None:
        bits = bits[bits.names[0]]
    if dtype.field == "half_val":
        bits = np.dtype("<u2")
    # Known before they are read: millions take seconds.
    _check_number(len(repeated) // (2 if bits.kind == "c" else 1), dtype, shape)
    if bits.kind == "c":
        half = np.dtype(f"<f{bits.itemsize // 2}")
        parts = np.frombuffer(cut, half) if cut is not None else _numbers(repeated, half)
        if len(parts) % 2:
            raise invalid(f"{dtype.field} has {len(parts)} values, real and imaginary parts must come in pairs")
        return parts.view(bits)
    if dtype.field in ("int_val", "half_val"):
        wide = _numbers(repeated, np.dtype("<i4"))
        narrow = wide.astype(bits)
        if not np.array_equal(narrow, wide):
            raise invalid(f"{dtype.field} has values that are no {dtype.label}")
        return narrow.view(dtype.numpy)
    return np.frombuffer(cut, bits) if cut is not None else _numbers(repeated, bits)


def _numbers(repeated: Any, dtype: np.dtype[Any]) -> Array:
    """The numbers of a repeated field; between pieces, other threads have their turn."""
    numbers, count = iter(repeated), len(repeated)
    array = np.empty(count, dtype)
    for at in range(0, count, _PIECE):
        size = min(_PIECE, count - at)
        array[at : at + size] = np.fromiter(islice(numbers, size), dtype, size)
    return array


def _strings_in(content: bytes, count: int, limit: int) -> list[bytes]:
    """Strings in ``tensor_content``: the lengths of all as varints, then their bytes (tensor_coding.cc).

    A varint takes at least a byte, so the count is checked against the content before anything is made of it, and
    against what as many objects will take.
    """
    lengths, at = [], 0
    if count * _OBJECT_COST > limit:
        raise invalid(f"tensor_content has {count} strings, which take more than {limit} bytes")
    if count > len(content):
        raise invalid(f"tensor_content has {len(content)} bytes, too few for {count} strings")
    for _ in range(count):
        length = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                raise invalid("tensor_content has a malformed string length")
            byte = content[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise invalid("tensor_content's string lengths do not add up to its size")
    strings = []
    for length in lengths:
        strings.append(content[at : at + length])
        at += length
    return strings


def string_bytes(array: Array) -> bytes:
    """Strings as ``tensor_content`` holds them; the other direction of what :func:`from_proto` reads.

    Raises:
        RequestError: INVALID_ARGUMENT, an object is neither ``bytes`` nor ``str``.
    """
    strings = [_as_bytes(item) for item in array.ravel().tolist()]
    return b"".join([*(varint(len(string)) for string in strings), *strings])


def to_proto(array: Array) -> Any:
    """Write an array as a ``TensorProto``, in the ``*_val`` field of its type, as TensorFlow Serving answers.

    Many clients read that field, ``response.outputs["scores"].float_val``, without asking for anything else.

    Raises:
        RequestError: INVALID_ARGUMENT, the dtype has no tensor type, or an object is neither ``bytes`` nor ``str``.
    """
    dtype = dtype_of(array)
    proto = TensorProto(dtype=dtype.number)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.size == 0:
        return proto
    if dtype.numpy == STRING:
        proto.string_val.extend([_as_bytes(item) for item in array.ravel().tolist()])
        return proto
    flat = np.ascontiguousarray(array.ravel(), dtype.numpy)
    if dtype.field in FIXED_FIELDS:
        # protobuf's packed encoding of these is the array itself: one copy instead of one call per element.
        data = flat.tobytes()
        proto.MergeFromString(varint(FIXED_FIELDS[dtype.field] << 3 | 2) + varint(len(data)) + data)
        return proto
    if flat.dtype.names is not None:
        flat = flat[flat.dtype.names[0]]
    if dtype.field == "half_val":
        flat = flat.view("<u2")
    getattr(proto, dtype.field).extend(flat.tolist())
    return proto


def _as_bytes(item: object) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    raise invalid(f"a {type(item).__name__} is no string")


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as the API's texts write it: ``[2,3]``."""
    return "[" + ",".join(map(str, shape)) + "]"
