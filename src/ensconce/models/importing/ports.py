"""Inputs and outputs of a graph of OpenVINO's: names, element types, shapes; and running one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ensconce.errors import InputError
from ensconce.models.importing.parts import Tensor
from ensconce.models.openvino import TYPE_NAMES
from ensconce.tfserving.tensor import Array

__all__ = ["OpenVinoRun", "element_type", "shape_of", "tensor_at", "type_of"]

_NAMES: Final = {theirs: ours for ours, theirs in TYPE_NAMES.items()}


def type_of(port: Any) -> str:
    """The element type, e.g. ``DT_FLOAT``.

    Raises:
        InputError: ``import.convert``: no type that can be served.
    """
    name = port.get_element_type().get_type_name()
    if name not in _NAMES:
        raise InputError(
            "import.convert",
            f"the model has a tensor of type {name}, which cannot be served",
            found=port.get_any_name()[:100] if port.get_names() else None,
            remedy="export the model with tensors of numbers",
        )
    return _NAMES[name]


def element_type(openvino: Any, dtype: str) -> Any:
    """OpenVINO's element type of this name, e.g. ``DT_FLOAT``."""
    return getattr(openvino.Type, TYPE_NAMES[dtype])


def shape_of(port: Any) -> tuple[int, ...] | None:
    """The shape; -1 for any size, None for any rank."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(-1 if size.is_dynamic else int(size.get_length()) for size in shape)


def tensor_at(port: Any, name: str) -> Tensor:
    """An input or output with the name ``name`` in the graph."""
    return Tensor(name, type_of(port), shape_of(port))


class OpenVinoRun:
    """A graph as an engine runs it, or before it was converted.

    Args:
        openvino: the module.
        model: a graph, or the path of one that was written.
        precision: of the arithmetic.

    Raises:
        InputError: ``import.convert``: it cannot be compiled.
    """

    def __init__(self, openvino: Any, model: Any, precision: str) -> None:
        self._ov = openvino
        hint = "bf16" if precision == "bf16" else "f32"
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        core = openvino.Core()
        try:
            graph = core.read_model(str(model)) if isinstance(model, Path) else model
            self._compiled = core.compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise InputError(
                "import.convert",
                "OpenVINO reads the model, but cannot compile it for the CPU",
                found=ascii(str(error).strip().rpartition("\n")[2])[:300],
                remedy="give its inputs shapes of a known rank; a SavedModel can be imported with --engine tensorflow",
            ) from error

    def __call__(self, feeds: Mapping[str, Array], tensors: list[str]) -> list[Array]:
        """What the tensors of these names are.

        Args:
            feeds: by the graph's own names; bfloat16 as float32.
            tensors: the graph's own names.
        """
        fed = {name: self._tensor(name, array) for name, array in feeds.items()}
        results = self._compiled.create_infer_request().infer(fed)
        return [self._array(name, results[self._compiled.output(name)]) for name in tensors]

    def _tensor(self, name: str, array: Array) -> Any:
        array = np.asarray(array, order="C")
        if self._compiled.input(name).get_element_type() != self._ov.Type.bf16:
            return array
        bits = ((array.astype(np.float32).view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
        return self._ov.Tensor(bits, self._ov.Shape(list(array.shape)), self._ov.Type.bf16)

    def _array(self, name: str, array: Array) -> Array:
        if self._compiled.output(name).get_element_type() != self._ov.Type.bf16:
            return array
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
