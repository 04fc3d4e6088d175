"""One signature of a frozen TensorFlow graph, cut down to what OpenVINO can read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from ensconce.models.importing.parts import Feature, Tensor
from ensconce.models.importing.samples import OPEN_AXIS
from ensconce.models.importing.strings import find_strings
from ensconce.models.importing.surgery import Surgery, TensorName, tensor_of, unconvertible
from ensconce.tfserving.dtypes import dtype_numbered
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.tensor import Array

__all__ = ["Cut", "cut_signature"]

_STRING: Final = 7


@dataclass
class Cut:
    """What a signature becomes.

    Attributes:
        inputs: what clients send.
        outputs: what they get.
        features: what is parsed out of tf.Example, if anything.
        names: the names that tensors of the converted graph are to have, by the nodes of ``graph`` that mark them.
        fetches: those of these nodes that are to be computed.
        graph: a ``GraphDef``.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Feature] | None = None
    names: dict[str, str] = field(default_factory=dict)
    fetches: list[str] = field(default_factory=list)
    graph: Any = None


def cut_signature(tf: Any, frozen: Any, name: str, signature: Any, table: Callable[[str], tuple[Array, Array]]) -> Cut:
    """Cut a signature out of the graph behind all of them.

    Args:
        tf: the module ``tensorflow``.
        frozen: a ``GraphDef`` with its functions inlined and its variables constant.
        name: the signature's.
        signature: its ``SignatureDef``.
        table: gives keys and values of the table that a node of this name makes.

    Raises:
        InputError: ``import.convert``: something in it is not for OpenVINO, and cannot be described either.
    """
    nodes = sorted({tensor_of(info.name)[0] for info in signature.outputs.values()})
    surgery = Surgery(tf, tf.compat.v1.graph_util.extract_sub_graph(frozen, nodes), name)
    cut = Cut({key: _tensor(name, info) for key, info in sorted(signature.inputs.items())})
    _cut_inputs(surgery, cut, name, signature)
    for key, info in sorted(signature.outputs.items()):
        _cut_output(tf, surgery, cut, name, key, info, table)
    if not cut.fetches:
        raise unconvertible(name, "it computes nothing but constant strings")
    cut.graph = surgery.subgraph(cut.fetches)
    if cut.features is not None:
        there = {node.name for node in cut.graph.node}
        cut.features = {key: feature for key, feature in cut.features.items() if feature.tensor in there}
        if not cut.features:
            raise unconvertible(name, "none of its outputs depends on its examples")
    return cut


def _cut_inputs(surgery: Surgery, cut: Cut, name: str, signature: Any) -> None:
    """Put placeholders in the inputs' places."""
    strings = [key for key, spec in cut.inputs.items() if spec.dtype == "DT_STRING"]
    if strings:
        if len(cut.inputs) == 1:
            cut.features = surgery.cut_parsing(tensor_of(signature.inputs[strings[0]].name))
        if cut.features is None:
            raise unconvertible(name, "it takes strings that are no tf.Example", ", ".join(strings)[:100])
        cut.names = {feature.tensor: feature.tensor for feature in cut.features.values()}
        return
    for index, key in enumerate(cut.inputs):
        info, placeholder = signature.inputs[key], f"ensconce_input_{index}"
        surgery.feed(tensor_of(info.name), placeholder, info.dtype, info.tensor_shape)
        cut.names[placeholder] = info.name


def _cut_output(
    tf: Any,
    surgery: Surgery,
    cut: Cut,
    name: str,
    key: str,
    info: Any,
    table: Callable[[str], tuple[Array, Array]],
) -> None:
    """Mark what an output is; of strings, the integers that stand for them."""
    tensor, spec, dtype = tensor_of(info.name), _tensor(name, info), info.dtype
    if dtype == _STRING:
        strings = find_strings(surgery, name, key, tensor, table, _zeros(tf, surgery, [*cut.names]))
        if strings.index is None:
            cut.outputs[key] = replace(spec, constant=strings.constant)
            return
        tensor, dtype = strings.index, surgery.type_of(strings.index)
        spec = replace(spec, tensor=f"{tensor[0]}:{tensor[1]}", labels=strings.labels)
    inputs = {each for node, each in cut.names.items() if node not in cut.fetches}
    if spec.tensor in inputs:  # an output may be an input as it is: one name cannot mean both
        spec = replace(spec, tensor=f"{name}/{key}")
    cut.outputs[key] = spec
    if spec.tensor not in cut.names.values():
        fetch = f"ensconce_output_{len(cut.fetches)}"
        surgery.fetch(tensor, fetch, dtype)
        cut.fetches.append(fetch)
        cut.names[fetch] = spec.tensor


def _tensor(signature: str, info: Any) -> Tensor:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
    try:
        return Tensor(info.name, dtype_numbered(info.dtype).name, sizes)
    except RequestError:
        raise unconvertible(signature, f"{info.name} is of type {info.dtype}, which cannot be served") from None


def _zeros(tf: Any, surgery: Surgery, nodes: list[str]) -> dict[TensorName, Array]:
    """Two rows of zeros for each placeholder among the nodes."""
    feeds = dict[TensorName, Array]()
    for name in nodes:
        attributes = surgery.nodes[name].attr
        if surgery.nodes[name].op == "Placeholder" and not attributes["shape"].shape.unknown_rank:
            sizes = [dim.size for dim in attributes["shape"].shape.dim]
            shape = [size if size != -1 else 2 if axis == 0 else OPEN_AXIS for axis, size in enumerate(sizes)]
            feeds[name, 0] = np.zeros(shape, tf.dtypes.as_dtype(attributes["dtype"].type).as_numpy_dtype)
    return feeds
