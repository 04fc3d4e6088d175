"""Frozen graphs, TensorFlow Lite and ONNX: what OpenVINO reads by itself, as one signature."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ensconce.errors import InputError
from ensconce.models.importing.convert import convert
from ensconce.models.importing.order import Order
from ensconce.models.importing.parts import Graph, Part, Tensor
from ensconce.models.importing.ports import tensor_at
from ensconce.tfserving.signatures import DEFAULT_SIGNATURE, PREDICT_METHOD

__all__ = ["direct_part", "source_file"]


def source_file(order: Order) -> Path:
    """The file to read: the source, or the one ONNX file in it.

    An ONNX file can name others below its folder as weights: a stranger's, any file of the owner's. One that is all of
    the source is read from a copy with nothing beside it; a folder that is the source is all hashed and meant.
    """
    source = Path(order.source)
    if source.is_dir():
        return next(source.glob("*.onnx"))
    if order.kind != "onnx":
        return source
    alone = Path(order.work) / "alone" / source.name
    if not alone.exists():
        alone.parent.mkdir()
        shutil.copyfile(source, alone)
    return alone


def direct_part(openvino: Any, order: Order) -> Part:
    """The model as the signature ``serving_default``, its inputs and outputs under the model's own names.

    Of a frozen graph's tensors the number is left out: ``input:0`` is ``input`` for clients.

    Raises:
        InputError: ``import.convert``.
    """
    model = convert(openvino, source_file(order), order.inputs, order.outputs)
    for port in model.inputs if order.inputs else ():
        if not port.get_names() & {tensor for name in order.inputs for tensor in (name, f"{name}:0")}:
            raise InputError(
                "import.convert",
                "the outputs depend on an input that --inputs does not name",
                found=ascii(port.get_any_name())[:100],
                remedy="name it too, or choose other --outputs",
            )
    inputs = _named(model.inputs, order.inputs)
    outputs = _named(model.outputs, order.outputs)
    if both := {each.tensor for each in inputs.values()} & {each.tensor for each in outputs.values()}:
        raise InputError(
            "import.convert",
            "an output of the model is an input as it is",
            found=ascii(min(both))[:100],
            remedy="choose other --outputs",
        )
    return Part(DEFAULT_SIGNATURE, PREDICT_METHOD, inputs, outputs, None, Graph(model))


def _named(ports: Any, chosen: tuple[str, ...]) -> dict[str, Tensor]:
    """Ports by the names that clients use, each left with one name in the graph."""
    named = dict[str, Tensor]()
    for index, port in enumerate(ports):
        names = port.get_names()
        asked = [name for name in chosen if {name, f"{name}:0"} & names]
        tensor = min(asked) if asked else min(names, key=lambda name: (len(name), name), default=f"output_{index}")
        if tensor not in names and f"{tensor}:0" in names:
            tensor = f"{tensor}:0"
        port.get_tensor().set_names({tensor})
        public = tensor.removesuffix(":0")
        if public in named:
            raise InputError(
                "import.convert",
                "two tensors of the model have one name",
                found=ascii(public)[:100],
                remedy="rename one",
            )
        named[public] = tensor_at(port, tensor)
    return named
