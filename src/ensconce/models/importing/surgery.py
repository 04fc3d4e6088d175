"""Cutting a signature out of a frozen TensorFlow graph: its inputs become placeholders, parsing of tf.Example goes.

Works on a ``GraphDef``; nothing here computes but constants. ParseExample and ParseExampleV2 are as TensorFlow's
core/ops/parsing_ops.cc declares them: dense values come after three outputs for each sparse feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from ensconce.errors import InputError
from ensconce.models.importing.parts import Feature
from ensconce.tfserving.tensor import Array

__all__ = ["Surgery", "tensor_of", "unconvertible"]

_PARSERS: Final = ("ParseExample", "ParseExampleV2")
_PASSING: Final = ("Identity", "IdentityN", "StopGradient", "PlaceholderWithDefault")
_SHAPES: Final = ("Shape", "Size", "Rank", "ShapeN", "VariableShape")

TensorName = tuple[str, int]


def tensor_of(name: str) -> TensorName:
    """The node and the number of its output: ``a`` and ``a:0`` are the same tensor."""
    node, _, index = name.partition(":")
    return node, int(index or 0)


def unconvertible(signature: str, problem: str, found: str | None = None) -> InputError:
    """Say that a signature cannot be converted, and what can be done about it."""
    return InputError(
        "import.convert",
        f"signature {signature} cannot be converted: {problem}",
        found=found,
        rule="OpenVINO computes with numbers; tf.Example, tables and lists of labels are cut off where they can be",
        remedy="export the model without this signature, or import it with --engine tensorflow",
    )


class Surgery:
    """One frozen graph on the table.

    Args:
        tf: the module ``tensorflow``.
        graph: a ``GraphDef`` with its functions inlined and its variables constant; it is copied.
        signature: its name, for errors.
    """

    def __init__(self, tf: Any, graph: Any, signature: str) -> None:
        self._tf = tf
        self._graph = type(graph)()
        self._graph.CopyFrom(graph)
        self._signature = signature
        self.nodes: dict[str, Any] = {node.name: node for node in self._graph.node}
        self._fed = dict[TensorName, str]()

    def resolve(self, tensor: TensorName) -> TensorName:
        """The tensor that this one is a copy of; what is fed is nobody's copy."""
        if tensor in self._fed:
            return self._fed[tensor], 0
        while (node := self.nodes.get(tensor[0])) is not None and node.op in _PASSING:
            tensor = tensor_of(node.input[tensor[1]])
        return tensor

    def value_of(self, tensor: TensorName) -> Array | None:
        """What a tensor always is; None when it depends on an input."""
        tensor = self.resolve(tensor)
        node = self.nodes[tensor[0]]
        if node.op == "Const":
            value: Array = self._tf.make_ndarray(node.attr["value"].tensor)
            return value
        if any(self.nodes[name].op.startswith("Placeholder") for name in self.ancestors(tensor)):
            return None
        return self.compute(tensor, {})

    def ancestors(self, tensor: TensorName, stop: tuple[str, ...] = ()) -> Iterator[str]:
        """The nodes that a tensor depends on, its own among them; not beyond operations of the kinds ``stop``."""
        todo, seen = [tensor[0]], set[str]()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            yield name
            if self.nodes[name].op not in stop:
                todo += [tensor_of(each.removeprefix("^"))[0] for each in self.nodes[name].input]

    def depends_on_values(self, tensor: TensorName) -> bool:
        """Whether an input's values, not its shape alone, reach a tensor."""
        return any(self.nodes[name].op.startswith("Placeholder") for name in self.ancestors(tensor, stop=_SHAPES))

    def compute(self, tensor: TensorName, feeds: Mapping[TensorName, Array]) -> Array:
        """Run TensorFlow on a part of the graph; what the part does not need may be fed as well."""
        v1, part = self._tf.compat.v1, self.subgraph([tensor[0]])
        there = {node.name for node in part.node}
        with self._tf.Graph().as_default() as graph:
            self._tf.import_graph_def(part, name="")
            with v1.Session(graph=graph) as session:
                named = {f"{node}:{index}": value for (node, index), value in feeds.items() if node in there}
                result: Array = np.asarray(session.run(f"{tensor[0]}:{tensor[1]}", named))
                return result

    def type_of(self, tensor: TensorName) -> int:
        """A tensor's element type, a value of the enum ``DataType``."""
        with self._tf.Graph().as_default() as graph:
            self._tf.import_graph_def(self.subgraph([tensor[0]]), name="")
            number: int = graph.get_tensor_by_name(f"{tensor[0]}:{tensor[1]}").dtype.as_datatype_enum
            return number

    def feed(self, tensor: TensorName, placeholder: str, dtype: int, shape: Any) -> None:
        """Let a placeholder take a tensor's place.

        Args:
            tensor: whose consumers are fed by the placeholder from now on.
            placeholder: the new node's name.
            dtype: value of the enum ``DataType``.
            shape: a ``TensorShapeProto``.
        """
        node = self._add(placeholder, "Placeholder")
        node.attr["dtype"].type = dtype
        node.attr["shape"].shape.CopyFrom(shape)
        self._rewire(tensor, placeholder)
        self._fed[tensor] = placeholder

    def fetch(self, tensor: TensorName, name: str, dtype: int) -> None:
        """Give a tensor a name of its own: a node that copies it."""
        source, index = (self._fed[tensor], 0) if tensor in self._fed else tensor
        node = self._add(name, "Identity", f"{source}:{index}")
        node.attr["T"].type = dtype

    def subgraph(self, names: list[str]) -> Any:
        """The part of the graph that these nodes need."""
        return self._tf.compat.v1.graph_util.extract_sub_graph(self._graph, names)

    def cut_parsing(self, serialized: TensorName) -> dict[str, Feature] | None:
        """Feed features in place of serialized tf.Example.

        Args:
            serialized: the tensor of strings that clients send.

        Returns:
            What is to be taken out of each example, by feature; None when the tensor is not parsed.

        Raises:
            InputError: ``import.convert``: parsing that cannot be described.
        """
        parsers = [
            node
            for node in self.nodes.values()
            if node.op in _PARSERS and self.resolve(tensor_of(node.input[0])) == self.resolve(serialized)
        ]
        if not parsers:
            return None
        if len(parsers) > 1:
            raise unconvertible(self._signature, "it parses its examples more than once")
        features = self._features(parsers[0])
        if not features:
            raise unconvertible(self._signature, "it takes no dense feature out of its examples")
        first = next(iter(features.values()))
        for node in [*self.nodes.values()]:
            if node.op == "Shape" and self.resolve(tensor_of(node.input[0])) == self.resolve(serialized):
                self._count_rows(node, first.tensor)
        return features

    def _features(self, parser: Any) -> dict[str, Feature]:
        sparse, defaults, keys = self._layout(parser)
        features = dict[str, Feature]()
        for index, key in enumerate(keys):
            tensor = parser.name, 3 * sparse + index
            if not any(self._uses(node, tensor) for node in self.nodes.values()):
                continue
            dtype = parser.attr["Tdense"].list.type[index]
            shape = parser.attr["dense_shapes"].list.shape[index]
            sizes = tuple(dim.size for dim in shape.dim)
            if shape.unknown_rank or -1 in sizes:
                raise unconvertible(self._signature, f"the length of feature {key} is left open")
            name = self._tf.dtypes.as_dtype(dtype)
            if name not in (self._tf.float32, self._tf.int64):
                raise unconvertible(self._signature, f"feature {key} is of type {name.name}")
            default = self.value_of(tensor_of(defaults[index]))
            if default is None:
                raise unconvertible(self._signature, f"the default of feature {key} is not constant")
            spread = np.broadcast_to(default, sizes) if default.size == 1 else default
            values = tuple(spread.ravel().tolist()) if default.size else None
            placeholder = f"ensconce_feature_{index}"
            batch = self._tf.TensorShape([None, *sizes]).as_proto()
            self.feed(tensor, placeholder, dtype, batch)
            features[key] = Feature(placeholder, "DT_FLOAT" if name == self._tf.float32 else "DT_INT64", sizes, values)
        for node in self.nodes.values():
            if node is not parser and any(self._uses(node, (parser.name, index)) for index in range(3 * sparse)):
                raise unconvertible(self._signature, "it takes sparse features out of its examples", node.name[:100])
        return features

    def _layout(self, parser: Any) -> tuple[int, list[str], list[str]]:
        """How many sparse features a parser has, and of the dense ones the tensors of the defaults, and the names."""
        if parser.op == "ParseExampleV2":
            names = self.value_of(tensor_of(parser.input[3]))
            assert names is not None
            keys = [key.decode() for key in names.ravel()]
            return parser.attr["num_sparse"].i, list(parser.input[5 : 5 + len(keys)]), keys
        sparse, dense = parser.attr["Nsparse"].i, parser.attr["Ndense"].i
        keys = []
        for each in parser.input[2 + sparse : 2 + sparse + dense]:
            name = self.value_of(tensor_of(each))
            assert name is not None
            keys.append(name.item().decode())
        return sparse, list(parser.input[2 + sparse + dense : 2 + sparse + 2 * dense]), keys

    def _count_rows(self, shape: Any, feature: str) -> None:
        """Let the shape of the serialized examples be taken of the first axis of a feature."""
        whole = self._add(f"{shape.name}/ensconce_of", "Shape", feature)
        whole.attr["T"].type = self.nodes[feature].attr["dtype"].type
        whole.attr["out_type"].CopyFrom(shape.attr["out_type"])
        bounds = []
        for name, value in (("from", 0), ("to", 1), ("by", 1)):
            node = self._add(f"{shape.name}/ensconce_{name}", "Const")
            node.attr["dtype"].type = self._tf.int32.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(self._tf.make_tensor_proto([value], self._tf.int32))
            bounds.append(node.name)
        kind = shape.attr["out_type"].type or self._tf.int32.as_datatype_enum
        name = shape.name
        shape.Clear()
        shape.name, shape.op = name, "StridedSlice"
        shape.input.extend([whole.name, *bounds])
        shape.attr["T"].type = kind
        shape.attr["Index"].type = self._tf.int32.as_datatype_enum
        for mask in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"):
            shape.attr[mask].i = 0

    def _add(self, name: str, op: str, *inputs: str) -> Any:
        if name in self.nodes:
            raise unconvertible(self._signature, "it was converted before", name)
        node = self._graph.node.add(name=name, op=op, input=inputs)
        self.nodes[name] = node
        return node

    def _rewire(self, tensor: TensorName, to: str) -> None:
        for node in self.nodes.values():
            if node.name != to and self._uses(node, tensor):
                for index, each in enumerate(node.input):
                    if not each.startswith("^") and tensor_of(each) == tensor:
                        node.input[index] = to

    @staticmethod
    def _uses(node: Any, tensor: TensorName) -> bool:
        return any(not each.startswith("^") and tensor_of(each) == tensor for each in node.input)
