"""Whoever computes what the source would have: its own runtime where that is installed, else OpenVINO in f32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np

from ensconce.models.importing.convert import convert
from ensconce.models.importing.order import Order
from ensconce.models.importing.parts import Part
from ensconce.models.importing.ports import OpenVinoRun
from ensconce.tfserving.tensor import Array

__all__ = ["OWN_READING", "Run", "original_of"]

Run = Callable[[Part, Mapping[str, Array]], dict[str, Array]]
"""Computes a signature's outputs from what its part is fed, both by the names that clients use."""

OWN_READING = "OpenVINO's own reading in f32"


def original_of(openvino: Any, order: Order, source: Path) -> tuple[Run, str]:
    """For a frozen graph, TFLite or ONNX: what computes it, and the name of that.

    Args:
        openvino: the module.
        order: the import.
        source: the file.
    """
    if order.kind == "frozen-graph" and util.find_spec("tensorflow") is not None:
        tf = import_module("tensorflow")
        return _frozen(tf, source), f"TensorFlow {tf.__version__}"
    if order.kind == "tflite":
        if util.find_spec("ai_edge_litert") is not None:
            return _tflite(import_module("ai_edge_litert.interpreter").Interpreter, source), "LiteRT"
        if util.find_spec("tensorflow") is not None:
            tf = import_module("tensorflow")
            return _tflite(tf.lite.Interpreter, source), f"TensorFlow Lite of TensorFlow {tf.__version__}"
    if order.kind == "onnx" and util.find_spec("onnxruntime") is not None:
        runtime = import_module("onnxruntime")
        return _onnx(runtime, source), f"ONNX Runtime {runtime.__version__}"
    model = convert(openvino, source, order.inputs, order.outputs)
    return _own(OpenVinoRun(openvino, model, "f32")), OWN_READING


def _frozen(tf: Any, source: Path) -> Run:
    graph = tf.Graph()
    definition = tf.compat.v1.GraphDef.FromString(source.read_bytes())
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)

    def name(tensor: str) -> str:
        return tensor if ":" in tensor else f"{tensor}:0"

    def run(part: Part, feeds: Mapping[str, Array]) -> dict[str, Array]:
        named = {name(part.inputs[key].tensor): array for key, array in feeds.items()}
        fetched = session.run({key: name(each.tensor) for key, each in part.outputs.items()}, named)
        return {key: np.asarray(value) for key, value in fetched.items()}

    return run


def _tflite(interpreter_class: Any, source: Path) -> Run:
    interpreter = interpreter_class(model_path=str(source))

    def run(part: Part, feeds: Mapping[str, Array]) -> dict[str, Array]:
        places = {each["name"]: each["index"] for each in interpreter.get_input_details()}
        for key, array in feeds.items():
            interpreter.resize_tensor_input(places[part.inputs[key].tensor], array.shape)
        interpreter.allocate_tensors()
        for key, array in feeds.items():
            interpreter.set_tensor(places[part.inputs[key].tensor], array)
        interpreter.invoke()
        places = {each["name"]: each["index"] for each in interpreter.get_output_details()}
        return {key: interpreter.get_tensor(places[each.tensor]) for key, each in part.outputs.items()}

    return run


def _onnx(runtime: Any, source: Path) -> Run:
    session = runtime.InferenceSession(str(source), providers=["CPUExecutionProvider"])

    def run(part: Part, feeds: Mapping[str, Array]) -> dict[str, Array]:
        named = {part.inputs[key].tensor: array for key, array in feeds.items()}
        answers = session.run([each.tensor for each in part.outputs.values()], named)
        return dict(zip(part.outputs, answers, strict=True))

    return run


def _own(graph: OpenVinoRun) -> Run:
    def run(part: Part, feeds: Mapping[str, Array]) -> dict[str, Array]:
        named = {part.inputs[key].tensor: array for key, array in feeds.items()}
        return dict(zip(part.outputs, graph(named, [each.tensor for each in part.outputs.values()]), strict=True))

    return run
