"""The signatures that were converted, and the folder made of them.

A part is one signature with a graph of its own. Parts whose graphs compute the same from the same inputs share one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ensconce.files import write_aside

__all__ = ["SIGNATURES", "Feature", "Graph", "Part", "Tensor", "share_graphs", "write_parts"]

SIGNATURES: Final = "signatures.json"


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        tensor: its name in the graph.
        dtype: e.g. ``DT_FLOAT``, as clients see it.
        shape: -1 for any size; None for any rank.
        labels: of an output of strings: what the graph's integers mean; the graph's tensor is of integers then.
        constant: of an output of strings that are the same whatever is asked: one example's.
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...] | None
    labels: tuple[bytes, ...] | None = None
    constant: tuple[bytes, ...] | None = None

    def to_json(self) -> dict[str, object]:
        """As ``signatures.json`` has it."""
        entry: dict[str, object] = {
            "tensor": self.tensor,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
        }
        for key, texts in (("labels", self.labels), ("constant", self.constant)):
            if texts is not None:
                entry[key] = [text.decode() for text in texts]
        return entry


@dataclass(frozen=True)
class Feature:
    """What is taken out of a tf.Example.

    Attributes:
        tensor: name of the graph's tensor that holds it; its first axis is the examples.
        dtype: ``DT_FLOAT`` or ``DT_INT64``.
        shape: of one example's values.
        default: the values of an example that lacks it; None when it must not.
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    default: tuple[float | int, ...] | None

    def to_json(self) -> dict[str, object]:
        """As ``signatures.json`` has it."""
        return {
            "tensor": self.tensor,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "default": None if self.default is None else list(self.default),
        }


@dataclass
class Graph:
    """A graph of OpenVINO's (``openvino.Model``), whose ports have the names that signatures use.

    Attributes:
        model: the graph; quantising replaces it.
        name: stem of its files, once graphs are shared.
    """

    model: Any
    name: str = "model"


@dataclass
class Part:
    """One signature.

    Attributes:
        name: the signature's.
        method_name: as in the SavedModel, e.g. ``tensorflow/serving/predict``.
        inputs: what clients send.
        outputs: what they get.
        features: what is parsed out of the one input, of serialized tf.Example; None when inputs are fed as they are.
        graph: what computes it.
    """

    name: str
    method_name: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    features: Mapping[str, Feature] | None
    graph: Graph

    @property
    def feeds(self) -> dict[str, Tensor]:
        """What the graph is fed: the inputs, or the features, by name."""
        if self.features is None:
            return dict(self.inputs)
        return {name: Tensor(each.tensor, each.dtype, (-1, *each.shape)) for name, each in self.features.items()}

    def to_json(self) -> dict[str, object]:
        """As ``signatures.json`` has it."""
        entry: dict[str, object] = {
            "method_name": self.method_name,
            "inputs": {name: each.to_json() for name, each in sorted(self.inputs.items())},
            "outputs": {name: each.to_json() for name, each in sorted(self.outputs.items())},
        }
        if self.graph.name != "model":
            entry["graph"] = self.graph.name
        if self.features is not None:
            entry["examples"] = {"features": {name: each.to_json() for name, each in sorted(self.features.items())}}
        return entry


def share_graphs(parts: Sequence[Part]) -> list[Graph]:
    """Let parts whose graphs are the same have one, and name the graphs; the first is ``model``.

    A port that is shared keeps the names of both.
    """
    kept = list[tuple[str, Graph]]()
    for part in sorted(parts, key=lambda part: (part.name != "serving_default", part.name)):
        key = _fingerprint(part.graph.model)
        for other, graph in kept:
            if key == other and _names_agree(graph.model, part.graph.model):
                part.graph = graph
                break
        else:
            part.graph.name = f"model-{len(kept) + 1}" if kept else "model"
            kept.append((key, part.graph))
    return [graph for _, graph in kept]


def _names_agree(kept: Any, other: Any) -> bool:
    """Give the ports of one graph the names of the other's too, unless a name would then mean two ports."""
    pairs = [*zip(kept.inputs, other.inputs, strict=True), *zip(kept.outputs, other.outputs, strict=True)]
    owner: dict[str, int] = {}
    for index, (mine, theirs) in enumerate(pairs):
        for name in mine.get_names() | theirs.get_names():
            if owner.setdefault(name, index) != index:
                return False
    for mine, theirs in pairs:
        mine.get_tensor().set_names(mine.get_names() | theirs.get_names())
    return True


def _fingerprint(model: Any) -> str:
    """What a graph computes, without the names of anything: its operations in order, and what each is fed."""
    index: dict[str, int] = {}
    digest = hashlib.sha256()
    for at, node in enumerate(model.get_ordered_ops()):
        index[node.get_name()] = at
        kind = node.get_type_name()
        said = [kind, str(node.get_type_info().version_id)]
        if kind == "Constant":
            said.append(str(node.get_element_type()) + str(node.get_output_shape(0)))
            digest.update(node.data.tobytes())
        elif kind != "Result":
            attributes = node.get_attributes()
            said.append(json.dumps(attributes, sort_keys=True, default=str))
            if any(word in kind for word in ("If", "Loop", "TensorIterator", "ReadValue", "Assign")):
                said.append(f"a body of its own: {id(model)}")
        for port in node.inputs():
            source = port.get_source_output()
            said.append(f"{index[source.get_node().get_name()]}:{source.get_index()}")
        digest.update(json.dumps(said).encode())
    for port in model.inputs:
        digest.update(f"in {index[port.get_node().get_name()]} {port.get_partial_shape()}".encode())
    for port in model.outputs:
        source = port.get_node().input(0).get_source_output()
        digest.update(f"out {index[source.get_node().get_name()]}:{source.get_index()}".encode())
    return digest.hexdigest()


def write_parts(parts: Sequence[Part], graphs: Sequence[Graph], precision: str, folder: Path, openvino: Any) -> None:
    """Write each graph as ``NAME.xml`` and ``NAME.bin``, and ``signatures.json``.

    Weights stay in f32: the engine makes bfloat16 of them when it compiles the model.
    """
    for graph in graphs:
        openvino.save_model(graph.model, str(folder / f"{graph.name}.xml"), compress_to_fp16=False)
    content: dict[str, object] = {"signatures": {part.name: part.to_json() for part in parts}}
    if precision == "bf16":
        content["precision"] = precision
    write_aside(folder / SIGNATURES, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
