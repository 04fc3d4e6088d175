"""Which requests may be merged: how many rows each has, and what it must have in common with others.

Texts are those of ``batching/batching_util.h`` (``ComputeTensorBatchSize``).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import islice
from typing import Final

from ensconce.tfserving.refusal import invalid
from ensconce.tfserving.signatures import MAX_AXIS, Signature
from ensconce.tfserving.tensor import Array

__all__ = ["batches", "bytes_of", "common_rows", "counted_rows", "fits", "shapes_of"]

# TensorFlow pads tensors of up to six dimensions (batching_util.cc).
_MOST_PADDED_RANK: Final = 6
_MOST_COUNTED: Final = 10_000


def batches(signature: Signature, *, trusting: bool) -> bool:
    """Whether a signature says that it has one row for each example, in every input and every output.

    Args:
        signature: the signature.
        trusting: whether a tensor of unknown rank is taken for one that does.
    """
    return bool(signature.inputs) and all(
        trusting if spec.shape is None else spec.shape[:1] == (-1,)
        for specs in (signature.inputs, signature.outputs)
        for spec in specs.values()
    )


def fits(signature: Signature, inputs: Mapping[str, Array]) -> bool:
    """Whether inputs are exactly what the signature says. The servable judges what does not fit, and refuses it or not;
    it does so for that request alone."""
    if inputs.keys() != signature.inputs.keys():
        return False
    # Loops without generators here and below: this is done for every request, and they cost twice as much.
    for name, spec in signature.inputs.items():
        array = inputs[name]
        if array.dtype != spec.dtype.numpy or not spec.accepts(array.shape):
            return False
        if spec.longest_open_axis(array.shape) > MAX_AXIS:
            return False
    return True


def counted_rows(inputs: Mapping[str, Array]) -> int:
    """The rows of a request that is to be merged.

    Raises:
        RequestError: INVALID_ARGUMENT, the inputs do not have a number of rows in common.
    """
    if not inputs:
        raise invalid("Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) > 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def common_rows(inputs: Mapping[str, Array]) -> int:
    """The rows of a request that is merged if it can be; 0 when it cannot."""
    rows = -1
    for array in inputs.values():
        size = len(array) if array.ndim else 0
        if rows not in (-1, size):
            return 0
        rows = size
    return max(rows, 0)


def shapes_of(signature: Signature, inputs: Mapping[str, Array], *, padded: bool) -> tuple[Hashable, ...]:
    """What must be equal in the shapes of requests that are merged; their types are the signature's.

    Args:
        signature: fits the inputs.
        inputs: by name.
        padded: whether other inner dimensions can be padded; an empty tensor's cannot, it has nothing to pad with.
    """
    if len(inputs) == 1 and not padded:
        (array,) = inputs.values()
        return tuple(array.shape[1:])
    return tuple([_shape_of(inputs[name], padded) for name in signature.inputs])


def _shape_of(array: Array, padded: bool) -> Hashable:
    return array.ndim if padded and array.size and array.ndim <= _MOST_PADDED_RANK else array.shape[1:]


def bytes_of(array: Array) -> int:
    """Memory that an array takes, its strings among it: the first of them, for there can be millions of empty ones."""
    if array.dtype != object:
        return array.nbytes
    return array.nbytes + sum(len(item) for item in islice(array.flat, _MOST_COUNTED) if isinstance(item, (bytes, str)))
