"""Inputs of several requests as one, outputs of one computation as several.

The rules are those of ``batching/batching_session.cc`` (``MergeInputTensors``, ``SplitOutputTensors``) and
``batching/batching_util.cc`` (``CalculateMaxDimSizes``, ``AddPadding``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.tensor import Array

__all__ = ["check_rows", "join_outputs", "merge_inputs", "split_outputs"]


def merge_inputs(tasks: Sequence[Mapping[str, Array]], rows: int) -> dict[str, Array]:
    """The inputs of all tasks, one below the other.

    Where inner dimensions differ, each is padded at its end to the longest with the first element of the task's own
    tensor. Rows that are missing repeat the first row of the last task.

    Args:
        tasks: inputs by name; the same names, element types and ranks, at least one dimension, no empty tensor
            among others that are not.
        rows: of the result; at least the sum of the tasks'.
    """
    if len(tasks) == 1 and all(len(array) == rows for array in tasks[0].values()):
        return dict(tasks[0])
    return {name: _stacked([task[name] for task in tasks], rows) for name in tasks[0]}


def _stacked(arrays: list[Array], rows: int) -> Array:
    inner = arrays[0].shape[1:]
    if any(array.shape[1:] != inner for array in arrays):
        longest = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
        arrays = [_padded(array, longest) for array in arrays]
    missing = rows - sum(len(array) for array in arrays)
    if missing:
        row = arrays[-1][:1]
        arrays = [*arrays, np.broadcast_to(row, (missing, *row.shape[1:]))]
    return np.concatenate(arrays)


def _padded(array: Array, inner: tuple[int, ...]) -> Array:
    if array.shape[1:] == inner:
        return array
    whole = np.empty((len(array), *inner), array.dtype)
    whole[...] = array[(0,) * array.ndim]
    whole[tuple(slice(size) for size in array.shape)] = array
    return whole


def check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    """Refuse outputs that do not have one row for each row that was computed.

    Raises:
        RequestError: FAILED_PRECONDITION, in the original's words.
    """
    for array in outputs.values():
        if array.ndim == 0:
            raise RequestError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != rows:
            raise RequestError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors",
            )


def split_outputs(outputs: Mapping[str, Array], sizes: Sequence[int]) -> list[dict[str, Array]]:
    """The outputs of each task, as views; what is left over belongs to the padding."""
    split, at = [], 0
    for size in sizes:
        split.append({name: array[at : at + size] for name, array in outputs.items()})
        at += size
    return split


def join_outputs(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The outputs of a request that was computed in parts, which must fit together."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
