"""``tf.Example`` to arrays, without TensorFlow: what ``tf.io.parse_example`` gives for dense features.

Rules and texts of refusals: TensorFlow's core/util/example_proto_fast_parsing.cc (``FastParseExample``), as its graphs
call it. Of a feature that is given more than once, the last one counts that has a type at all.

Differences: keys must be UTF-8; an example that is no example is not quoted; what the original overlooks within a
list (values in several pieces) is read as protocol buffers have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from ensconce.tfserving.dtypes import STRING, DType
from ensconce.tfserving.messages import Feature, FloatList, Int64List, UnreadEntries, UnreadExample
from ensconce.tfserving.refusal import RequestError, invalid
from ensconce.tfserving.tensor import DEFAULT_LIMIT, Array
from ensconce.tfserving.weight import LIGHT, TooHeavyError, check_weight
from ensconce.tfserving.wire import MalformedError, delimited, records, varint

__all__ = ["FeatureSpec", "parse_examples"]

_HIGH: Final = bytes(range(0x80, 0x100))
# What an empty string costs in an array of objects: a pointer.
_STRING_COST: Final = 8
# What one costs while it is read: the pointer, an object's head, and its place among the records.
_READ_COST: Final = 128


@dataclass(frozen=True)
class _Kind:
    """A type that a feature can have.

    Attributes:
        member: of ``tensorflow.Feature``.
        tag: of that member.
        label: TensorFlow's name for the type.
        message: of the list; None for strings, which are taken out by hand.
    """

    member: str
    tag: int
    label: str
    message: Any


_KINDS: Final = {
    "DT_STRING": _Kind("bytes_list", 0x0A, "string", None),
    "DT_FLOAT": _Kind("float_list", 0x12, "float", FloatList),
    "DT_INT64": _Kind("int64_list", 0x1A, "int64", Int64List),
}
_BY_TAG: Final = {kind.tag: kind for kind in _KINDS.values()}


@dataclass(frozen=True)
class FeatureSpec:
    """What is parsed out of each example.

    Attributes:
        tensor: the graph's name for the column; of no meaning here.
        dtype: DT_FLOAT, DT_INT64 or DT_STRING.
        shape: of one example's values. The first size may be -1: then examples may have any number of them, and all
            are padded to the longest of the batch.
        default: the values of an example that lacks the feature, None when it must not. With a first size of -1: the
            one value that pads, zero or empty when None; an example may always lack such a feature.
    """

    tensor: str
    dtype: DType
    shape: tuple[int, ...]
    default: tuple[float | int | bytes, ...] | None = None

    def __post_init__(self) -> None:
        """Check that such a feature can be parsed.

        Raises:
            ValueError: it cannot.
        """
        if self.dtype.name not in _KINDS:
            raise ValueError("a feature is DT_FLOAT, DT_INT64 or DT_STRING")
        sizes = self.shape[1:] if self.variable else self.shape
        if any(size < 0 for size in sizes) or (self.variable and self.count == 0):
            raise ValueError("a size is 0 or more, the first may be -1 unless another is 0")
        if self.default is None:
            return
        wanted = 1 if self.variable else self.count
        if len(self.default) != wanted:
            raise ValueError(f"default has {len(self.default)} values, {wanted} are needed")
        try:
            given = _array(list(self.default), self.dtype)
        except (OverflowError, TypeError, ValueError):
            raise ValueError(f"default has values that are no {self.dtype.label}") from None
        if self.dtype.numpy == STRING and not all(isinstance(value, bytes) for value in given.tolist()):
            raise ValueError("default has values that are no string")

    @property
    def variable(self) -> bool:
        """Whether each example may have a number of values of its own."""
        return self.shape[:1] == (-1,)

    @cached_property
    def count(self) -> int:
        """Values of one example; of a variable feature, the number that theirs is a multiple of."""
        return math.prod(self.shape[1:] if self.variable else self.shape)

    @cached_property
    def kind(self) -> _Kind:
        """The member of ``tensorflow.Feature`` that holds it."""
        return _KINDS[self.dtype.name]

    @cached_property
    def stand_in(self) -> bytes | None:
        """The serialized feature of an example that lacks it; None when there is none to take."""
        if self.variable:
            return bytes((self.kind.tag, 0))
        # TensorFlow takes a default without values for none.
        if not self.default:
            return None
        feature = Feature()
        getattr(feature, self.kind.member).value.extend(self.default)
        serialized: bytes = feature.SerializeToString()
        return serialized


class _FaultError(Exception):
    """An example that does not fit.

    Attributes:
        index: which one.
        error: what to say.
    """

    def __init__(self, index: int, text: str) -> None:
        self.index, self.error = index, invalid(text)


def parse_examples(
    serialized: Sequence[bytes], features: Mapping[str, FeatureSpec], *, limit: int = DEFAULT_LIMIT
) -> dict[str, Array]:
    """Make one array of each feature; arrays may be read-only.

    Args:
        serialized: ``tf.Example`` messages.
        features: what to parse, by the names that they have in examples.
        limit: most bytes that the arrays may take together.

    Returns:
        by those names, arrays of shape ``[len(serialized), *shape]``.

    Raises:
        RequestError: INVALID_ARGUMENT, an example is no ``tf.Example``, lacks a feature, has another type or number of
            values; or all together take more than ``limit``. Of several faults the first example's is told.
    """
    found, fault = _read(serialized, features)
    columns = {}
    for name, spec in features.items():
        try:
            column = _column(name, spec, found[name], serialized, limit)
        except _FaultError as error:
            if fault is None or error.index < fault.index:
                fault = error
            continue
        columns[name] = column
        limit -= _cost(column.size, spec)
    if fault is not None:
        raise fault.error
    return columns


def _read(
    serialized: Sequence[bytes], names: Iterable[str]
) -> tuple[dict[str, list[bytes | None]], _FaultError | None]:
    """These features, unread, of the examples before the first that is none, and what to say of it.

    One example at a time is there with all its features, of which strangers can write thousands that nobody asked for.
    """
    found: dict[str, list[bytes | None]] = {name: [] for name in names}
    columns = list(found.items())
    for index, each in enumerate(serialized):
        try:
            if len(each) > LIGHT:
                check_weight(UnreadExample.DESCRIPTOR, each)
            features = UnreadExample.FromString(each).features.feature
        except TooHeavyError:
            return found, _FaultError(index, f"An example has too many features: {len(each)} bytes")
        except (DecodeError, MalformedError):
            return found, _FaultError(index, f"Could not parse example input, value: {len(each)} bytes")
        for name, values in columns:
            values.append(features.get(name))
    return found, None


def _column(name: str, spec: FeatureSpec, found: list[bytes | None], serialized: Sequence[bytes], limit: int) -> Array:
    values: list[Any] = found if all(found) else _complete(found, name, spec, serialized)
    if not spec.variable:
        if _cost(len(values) * spec.count, spec) > limit:
            raise _too_large(name)
        usual = _USUAL[spec.dtype.name](values, spec)
        if usual is not None:
            return usual.reshape(len(values), *spec.shape)
    singly = [_values(value, name, index, spec, limit) for index, value in enumerate(values)]
    longest = max(map(len, singly), default=0) if spec.variable else spec.count
    if _cost(len(values) * longest, spec) > limit:
        raise _too_large(name)
    return _padded(singly, longest, spec)


def _complete(found: list[bytes | None], name: str, spec: FeatureSpec, serialized: Sequence[bytes]) -> list[bytes]:
    """The values, with what stands for it in the place of what is missing."""
    values = []
    for index, value in enumerate(found):
        if value == b"":
            value = _last_typed(serialized[index], name)
        if not value:
            value = spec.stand_in
        if value is None:
            raise _FaultError(
                index,
                f"Name: <unknown>, Feature: {name} (data type: {spec.kind.label}) is required but could not be found.",
            )
        values.append(value)
    return values


def _last_typed(example: bytes, name: str) -> bytes:
    """The last feature of this name that has a type: one without does not hide an earlier one."""
    entries = UnreadEntries.FromString(example).features.feature
    return next((entry.value for entry in reversed(entries) if entry.key == name and entry.value), b"")


def _usual_floats(values: list[bytes], spec: FeatureSpec) -> Array | None:
    """One packed list in each, of the right length: then all are the same but for the floats' own bytes."""
    length = len(values[0]) if values else 0
    start = _prefix(spec.kind.tag, length)
    if start is None or length - len(start) != 4 * spec.count:
        return None
    at = len(start)
    if set(map(len, values)) != {length} or {value[:at] for value in values} != {start}:
        return None
    return np.frombuffer(b"".join([value[at:] for value in values]), "<f4")


def _usual_integers(values: list[bytes], spec: FeatureSpec) -> Array | None:
    """One packed list in each, of the right length, parsed as one message: lists laid end to end are one list.

    Each value is known to be a list from its first byte to its last before the lists are laid end to end: one whose
    lengths went further would take up the values behind it, which can be another client's. Every tag, length and
    integer ends in a byte below 128, so with ``count`` + 4 such bytes a list has ``count`` integers.
    """
    if spec.count == 0:
        return None
    for value in values:
        start = _prefix(spec.kind.tag, len(value))
        if start is None or not value.startswith(start):
            return None
        if len(value.translate(None, _HIGH)) != spec.count + 4:
            return None
    try:
        integers = Feature.FromString(b"".join(values)).int64_list.value
    except DecodeError:
        return None
    if len(integers) != len(values) * spec.count:
        return None
    return np.fromiter(integers, "<i8", len(integers))


def _usual_strings(values: list[bytes], spec: FeatureSpec) -> Array | None:
    """One string in each."""
    if spec.count != 1:
        return None
    strings = np.empty(len(values), STRING)
    for index, value in enumerate(values):
        start = _prefix(spec.kind.tag, len(value))
        if start is None or not value.startswith(start):
            return None
        strings[index] = value[len(start) :]
    return strings


_USUAL: Final[Mapping[str, Callable[[list[bytes], FeatureSpec], Array | None]]] = {
    "DT_FLOAT": _usual_floats,
    "DT_INT64": _usual_integers,
    "DT_STRING": _usual_strings,
}


@lru_cache(maxsize=1024)
def _prefix(tag: int, length: int) -> bytes | None:
    """How a feature of this many bytes begins that is a list in one piece: tag, length, tag, length; None: none is."""
    for inner in range(1, 6):
        for outer in range(1, 6):
            rest = length - 2 - inner - outer
            if rest < 0:
                return None
            start = bytes((tag,)) + varint(1 + inner + rest) + b"\x0a" + varint(rest)
            if len(start) == 2 + inner + outer and len(start) + rest == length:
                return start
    return None


def _values(value: bytes, name: str, index: int, spec: FeatureSpec, limit: int) -> Array:
    """The values of one example's feature.

    Raises:
        _FaultError: they are not as the feature should have them.
        RequestError: too many to be read.
    """
    where = f"Name: <unknown>, Key: {name}, Index: {index}.  "
    unparsable = _FaultError(index, f"{where}Can't parse serialized Example.")
    kind = _BY_TAG.get(value[0])
    if kind is None:
        raise _FaultError(index, "Unsupported datatype.")
    if kind is not spec.kind:
        raise _FaultError(
            index, f"{where}Data types don't match. Data type: {kind.label} but expected type: {spec.kind.label}"
        )
    most = limit // (_READ_COST if kind.message is None else _STRING_COST) if spec.variable else spec.count
    try:
        # What follows the list is not looked at.
        [(_, content)] = records(value, (kind.tag,), 1)
        if kind.message is None:
            values: Any = delimited(content, 0x0A, most + 1)
        else:
            if kind.label == "int64" and (size := len(content.translate(None, _HIGH))) > 2 * most + 2:
                # So many integers, in whatever form, are more than wanted; they need not be read.
                raise _too_large(name) if spec.variable else _FaultError(index, _wrong_number(where, size - 2, spec))
            values = kind.message.FromString(content).value
    except (DecodeError, MalformedError):
        raise unparsable from None
    if spec.variable and len(values) > most:
        raise _too_large(name)
    if spec.variable and len(values) % spec.count:
        raise _FaultError(index, _no_multiple(where, len(values), spec))
    if not spec.variable and len(values) != spec.count:
        # The original says how many there are of numbers only.
        raise unparsable if kind.message is None else _FaultError(index, _wrong_number(where, len(values), spec))
    return _array(values, spec.dtype)


def _array(values: Sequence[Any], dtype: DType) -> Array:
    if dtype.numpy != STRING:
        return np.fromiter(values, dtype.numpy, len(values))
    strings = np.empty(len(values), STRING)
    strings[:] = values
    return strings


def _padded(singly: Sequence[Array], longest: int, spec: FeatureSpec) -> Array:
    """Values of each example as one array of ``[len(singly), *shape]``."""
    filling: Any = b"" if spec.dtype.numpy == STRING else 0
    if spec.variable and spec.default:
        filling = spec.default[0]
    column = np.empty((len(singly), longest), spec.dtype.numpy)
    # np.full would take a string's last zeros for padding of its own.
    column.fill(filling)
    for row, values in zip(column, singly, strict=True):
        row[: len(values)] = values
    shape = (longest // spec.count, *spec.shape[1:]) if spec.variable else spec.shape
    return column.reshape(len(singly), *shape)


def _wrong_number(where: str, size: int, spec: FeatureSpec) -> str:
    shape = ",".join(map(str, spec.shape))
    return f"{where}Number of {spec.kind.label} values != expected.  Values size: {size} but output shape: [{shape}]"


def _no_multiple(where: str, size: int, spec: FeatureSpec) -> str:
    shape = ",".join(["?", *map(str, spec.shape[1:])])
    label = "bytes" if spec.kind.message is None else spec.kind.label
    return (
        f"{where}Number of {label} values is not a multiple of stride length. "
        f"Saw {size} values but output shape is: [{shape}]"
    )


def _cost(size: int, spec: FeatureSpec) -> int:
    return size * (_STRING_COST if spec.dtype.numpy == STRING else spec.dtype.numpy.itemsize)


def _too_large(name: str) -> RequestError:
    return invalid(f"Feature: {name} takes more memory than a request may")
