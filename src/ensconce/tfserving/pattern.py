"""Requests of which only the values differ, read by comparing the rest with one that protobuf has read.

A client asks again and again for the same: the same model, input, type and shape. What lies before and after the values
of its tensors is then the same too, byte for byte. Values of a fixed size, and lengths that stand in what is the same,
cannot change how the rest is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ensconce.tfserving.bulk import cut_out
from ensconce.tfserving.dtypes import dtype_of
from ensconce.tfserving.tensor import Array

__all__ = ["Pattern", "pattern_of"]

_MOST_FIXED: Final = 1024
# Kinds of numpy's whose every bit pattern is a value.
_KINDS: Final = "iuf"


@dataclass(frozen=True, slots=True)
class _Values:
    name: str
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """A ``PredictRequest`` but for the values of its tensors; made by :func:`pattern_of`."""

    _size: int
    _fixed: tuple[tuple[int, int, bytes], ...]
    _values: tuple[_Values, ...]

    def inputs(self, data: bytes | bytearray | memoryview) -> dict[str, Array] | None:
        """The tensors of a message that differs in values only, as read-only views of it; None where it is another."""
        if len(data) != self._size:
            return None
        for start, end, fixed in self._fixed:
            if data[start:end] != fixed:
                return None
        view = data if isinstance(data, bytes) else memoryview(data).toreadonly()
        return {
            each.name: np.frombuffer(view, each.dtype, each.count, each.start).reshape(each.shape)
            for each in self._values
        }


def pattern_of(data: bytes | bytearray | memoryview, inputs: Mapping[str, Array]) -> Pattern | None:
    """What other messages must have in common with this one to be read like it.

    Args:
        data: a ``PredictRequest``.
        inputs: its tensors, all of them, as they were read.

    Returns:
        None where values do not lie in one piece, are no numbers of a fixed size, or are not as many as the tensor has
        elements; or where there is much besides.
    """
    _, bulk = cut_out(data, 1)
    if bulk.keys() != inputs.keys():
        return None
    values, fixed, at = [], [], 0
    for name, cut in sorted(bulk.items(), key=lambda item: item[1].start):
        array = inputs[name]
        dtype = array.dtype
        if not cut.alone or dtype.kind not in _KINDS or cut.field not in ("tensor_content", dtype_of(array).field):
            return None
        if len(cut.data) != array.nbytes:
            return None
        values.append(_Values(name, cut.start, dtype, array.shape, array.size))
        fixed.append((at, cut.start, bytes(data[at : cut.start])))
        at = cut.start + len(cut.data)
    fixed.append((at, len(data), bytes(data[at:])))
    if sum(len(part) for _, _, part in fixed) > _MOST_FIXED:
        return None
    return Pattern(len(data), tuple(fixed), tuple(values))
