"""Outputs of strings, which OpenVINO does not compute: class labels behind an index, or the same list every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ensconce.models.importing.surgery import Surgery, TensorName, tensor_of, unconvertible
from ensconce.tfserving.tensor import Array

__all__ = ["Strings", "find_strings"]

_FINDS: Final = ("LookupTableFindV2", "LookupTableFind")
_GATHERS: Final = ("GatherV2", "Gather")


@dataclass(frozen=True)
class Strings:
    """What stands for an output of strings.

    Attributes:
        index: the tensor of integers to compute instead; None for a constant.
        labels: what each integer means; empty for a constant.
        constant: one example's strings.
    """

    index: TensorName | None
    labels: tuple[bytes, ...] = ()
    constant: tuple[bytes, ...] = ()


def find_strings(
    surgery: Surgery,
    signature: str,
    output: str,
    tensor: TensorName,
    table: Callable[[str], tuple[Array, Array]],
    zeros: Mapping[TensorName, Array],
) -> Strings:
    """How an output of strings comes about.

    Args:
        surgery: the graph, with the signature's inputs as placeholders.
        signature: its name, for errors.
        output: the output's name, likewise.
        tensor: what the output is.
        table: gives keys and values of the table that a node of this name makes.
        zeros: something to feed, of two rows.

    Raises:
        InputError: ``import.convert``: in another way than by a table of labels, a list of labels, or not at all.
    """
    source = surgery.resolve(tensor)
    node = surgery.nodes[source[0]]
    labels: Array | None = None
    if node.op in _FINDS:
        keys, values = table(surgery.resolve(tensor_of(node.input[0]))[0])
        order = np.argsort(keys) if keys.dtype.kind == "i" else None
        if order is None or not np.array_equal(keys[order], np.arange(len(keys))):
            raise unconvertible(signature, f"the table behind output {output} is not of labels numbered from 0")
        labels = values[order]
    elif node.op in _GATHERS:
        axis = surgery.value_of(tensor_of(node.input[2])) if node.op == "GatherV2" else np.int32(0)
        labels = surgery.value_of(tensor_of(node.input[0]))
        if labels is None or labels.ndim != 1 or axis is None or int(axis) != 0 or node.attr["batch_dims"].i:
            raise unconvertible(signature, f"output {output} gathers strings that are no list of labels")
    if labels is not None:
        return Strings(tensor_of(node.input[1]), labels=_texts(signature, output, labels))
    if surgery.depends_on_values(source):
        raise unconvertible(signature, f"output {output} is of strings that it computes", f"operation {node.op}")
    value = surgery.compute(source, zeros)
    if value.ndim != 2 or len(value) != 2 or not np.array_equal(value[0], value[1]):
        raise unconvertible(signature, f"output {output} is of strings, but not the same row for every example")
    return Strings(None, constant=_texts(signature, output, value[0]))


def _texts(signature: str, output: str, values: Any) -> tuple[bytes, ...]:
    texts = tuple(bytes(value) for value in values.ravel())
    try:
        for text in texts:
            text.decode()
    except UnicodeDecodeError:
        raise unconvertible(signature, f"output {output} has labels that are not UTF-8") from None
    return texts
