"""The JSON of TensorFlow Serving's REST API from and to arrays (its api_rest.md; texts as in its util/json_tensor.cc).

Two formats: *row* (``{"instances": [...]}`` answered with ``{"predictions": [...]}``), where each element is one
example, and *columnar* (``{"inputs": ...}`` answered with ``{"outputs": ...}``), where each name has its whole tensor.
Bytes travel as ``{"b64": "..."}``. The original converts no half, bfloat16, complex or quantised values; nor do we.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final, Literal

import numpy as np

from ensconce.tfserving.dtypes import STRING, DType, dtype_of
from ensconce.tfserving.refusal import Code, RequestError, invalid
from ensconce.tfserving.signatures import DEFAULT_SIGNATURE, Signature
from ensconce.tfserving.tensor import Array

__all__ = [
    "Format",
    "array_from_json",
    "array_to_json",
    "as_bytes",
    "inputs_from_json",
    "is_base64",
    "parse_body",
    "quote",
    "type_name",
]

Format = Literal["row", "columnar"]

_LONGEST_QUOTE: Final = 256
_MOST_AXES: Final = 64
_MOST_CONTAINERS: Final = 2_000_000
# An object takes about as much memory as four lists.
_OBJECT: Final = 4
_LEAVES: Final[Mapping[str, frozenset[type]]] = {
    "DT_FLOAT": frozenset({int, float}),
    "DT_DOUBLE": frozenset({int, float}),
    "DT_INT8": frozenset({int}),
    "DT_INT16": frozenset({int}),
    "DT_INT32": frozenset({int}),
    "DT_INT64": frozenset({int}),
    "DT_UINT8": frozenset({int}),
    "DT_UINT32": frozenset({int}),
    "DT_UINT64": frozenset({int}),
    "DT_BOOL": frozenset({bool}),
    "DT_STRING": frozenset({str, dict}),
}
_JSON_TYPES: Final[Mapping[type, str]] = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


def parse_body(body: bytes) -> dict[str, Any]:
    """The body of a request as a JSON object.

    Raises:
        RequestError: INVALID_ARGUMENT.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    # Two bytes can ask for a list of 56, or an object of 64.
    if len(body) > _MOST_CONTAINERS and body.count(b"[") + _OBJECT * body.count(b"{") > _MOST_CONTAINERS:
        raise invalid("JSON Parse error: there are too many lists and objects")
    try:
        document = json.loads(body.decode())
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except (ValueError, RecursionError):
        # A number of thousands of digits, or thousands of brackets.
        raise invalid("JSON Parse error: a number is too long, or values are nested too deeply") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {quote(document)} Is not object")
    return document


def inputs_from_json(
    document: Mapping[str, Any], signatures: Mapping[str, Signature]
) -> tuple[Signature, dict[str, Array], Format]:
    """The signature, the inputs and the format of a predict request.

    Raises:
        RequestError: INVALID_ARGUMENT; UNIMPLEMENTED, JSON cannot carry an input's type.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quote(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    signature = signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {quote(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {quote(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {quote(document)} No values in 'instances' array")
        return signature, _from_instances(instances, signature), "row"
    if "inputs" in document:
        return signature, _from_inputs(document["inputs"], signature), "columnar"
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_instances(instances: list[Any], signature: Signature) -> dict[str, Array]:
    names = list(signature.inputs)
    if not _is_object(instances[0]):
        if len(names) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        for index, instance in enumerate(instances):
            if _is_object(instance):
                raise invalid(f"Expecting value/list but got object at item {index} of input list")
        return {names[0]: array_from_json(instances, signature.inputs[names[0]].dtype)}
    for index, instance in enumerate(instances):
        if not _is_object(instance):
            raise invalid(f"Expecting object but got list at item {index} of input list")
        if len(instance) != len(names) or sorted(instance) != names:
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: {quote(instance)} keys must be "
                f"equal to: {','.join(names)}"
            )
    return {
        name: array_from_json([instance[name] for instance in instances], spec.dtype)
        for name, spec in signature.inputs.items()
    }


def _from_inputs(inputs: Any, signature: Signature) -> dict[str, Array]:
    names = list(signature.inputs)
    if not _is_object(inputs):
        if len(names) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {names[0]: array_from_json(inputs, signature.inputs[names[0]].dtype)}
    for name in names:
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    for name in inputs:
        if name not in signature.inputs:
            raise invalid(f"JSON object: does not have named input: {name}")
    return {name: array_from_json(inputs[name], spec.dtype) for name, spec in signature.inputs.items()}


def array_from_json(value: Any, dtype: DType) -> Array:
    """A JSON value, a scalar or lists of equal lengths, as an array.

    Raises:
        RequestError: INVALID_ARGUMENT, lists of different lengths, or an element of another type; UNIMPLEMENTED, JSON
            cannot carry this type.
    """
    leaves = _LEAVES.get(dtype.name)
    if leaves is None:
        raise RequestError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {quote(value)} to type: {dtype.label}")
    shape, flat = _dense(value)
    if flat is None or not leaves.issuperset(set(map(type, flat))):
        array = np.array(value, dtype=object)
        raise _misfit(array.shape, array.ravel().tolist(), leaves, dtype)
    if dtype.numpy == STRING:
        texts = np.empty(len(flat), dtype=object)
        texts[:] = [as_bytes(item) for item in flat]
        return texts.reshape(shape)
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype.numpy).reshape(shape)
    except (OverflowError, ValueError):
        raise invalid(f"JSON Value: a number is out of the range of type: {dtype.label}") from None


def _dense(value: Any) -> tuple[list[int], list[Any] | None]:
    """The shape of lists of equal lengths, and their elements; None where lengths differ or numpy has not such a rank.

    A level at a time, which is quicker than numpy's own way with objects, and takes no array of them.
    """
    if not isinstance(value, list):
        return [], [value]
    shape = [len(value)]
    while value and isinstance(value[0], list):
        size = len(value[0])
        if len(shape) == _MOST_AXES or set(map(type, value)) != {list} or set(map(len, value)) != {size}:
            return shape, None
        shape.append(size)
        value = list(chain.from_iterable(value))
    return shape, value


def _misfit(shape: tuple[int, ...], flat: list[Any], leaves: frozenset[type], dtype: DType) -> RequestError:
    wrong = next(item for item in flat if type(item) not in leaves)
    if isinstance(wrong, list):
        # numpy stops where lengths begin to differ, and leaves the lists below as they are.
        level = len(shape)
        sizes = [len(item) for item in flat if isinstance(item, list)]
        if len(sizes) < len(flat):
            return invalid(f"Encountered list at unexpected level: {level} expected < {level}")
        if len(set(sizes)) > 1:
            odd = next(size for size in sizes if size != sizes[0])
            return invalid(f"Encountered list at unexpected size: {odd} at level: {level} expected size: {sizes[0]}")
        return invalid("JSON Value: lists are nested too deeply")
    return invalid(f"JSON Value: {quote(wrong)} Type: {type_name(wrong)} is not of expected type: {dtype.label}")


def type_name(value: Any) -> str:
    """What the original calls the type of a JSON value."""
    return _JSON_TYPES[type(value)] if not isinstance(value, bool) else "True" if value else "False"


def as_bytes(item: str | dict[str, Any]) -> bytes:
    """The bytes that a JSON text, or ``{"b64": ...}``, stands for.

    Raises:
        RequestError: INVALID_ARGUMENT, it stands for none.
    """
    try:
        if isinstance(item, str):
            return item.encode()
        if not is_base64(item):
            raise invalid(f"JSON Value: {quote(item)} not formatted correctly for base64 data")
        return base64.b64decode(item["b64"], validate=True)
    except UnicodeEncodeError:
        raise invalid("JSON Value: a string holds half a surrogate pair, which is no text") from None
    except ValueError:
        raise invalid("Unable to base64 decode") from None


def is_base64(value: Any) -> bool:
    """Whether a JSON value is bytes: ``{"b64": "..."}``."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def quote(value: Any) -> str:
    """The beginning of a value's JSON; the rest is not written in order to be cut off."""
    text = ""
    for part in json.JSONEncoder().iterencode(value):
        text += part[:_LONGEST_QUOTE]
        if len(text) >= _LONGEST_QUOTE:
            break
    return text[:_LONGEST_QUOTE]


def array_to_json(array: Array, name: str) -> Any:
    """An array as lists of JSON values. Strings are text, unless ``name`` ends in ``_bytes``: then ``{"b64": ...}``.

    A float is written with the fewest digits that give it back, as the type that it is: 0.1, not 0.10000000149011612.

    Raises:
        RequestError: INVALID_ARGUMENT, JSON cannot carry this type, or a string that is named as text is none.
    """
    dtype = dtype_of(array)
    if dtype.name not in _LEAVES:
        raise invalid(f"Failed to write JSON value for tensor type: {dtype.label}")
    if dtype.name == "DT_FLOAT":
        return array.astype(str).astype(np.float64).tolist()
    if dtype.numpy != STRING:
        return array.tolist()
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    for index, item in enumerate(array.ravel().tolist()):
        flat[index] = {"b64": base64.b64encode(item).decode()} if name.endswith("_bytes") else _as_text(item, name)
    return texts.tolist()


def _as_text(item: bytes, name: str) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise invalid(
            f"Tensor name: {name} holds bytes that are no UTF-8 text; the name should end in _bytes"
        ) from None
