"""SavedModels, of TensorFlow 1 and 2 and of Keras: loaded as TensorFlow Serving loads them, frozen, handed to OpenVINO.

Loading is TensorFlow's ``saved_model.loader``: a session, variables restored, tables initialised. The signatures' own
tensors are fed and fetched, so that what is computed here is what TensorFlow Serving computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ensconce.errors import EnsconceError, InputError
from ensconce.models.importing.convert import convert
from ensconce.models.importing.cut import Cut, cut_signature
from ensconce.models.importing.parts import Feature, Graph, Part, Tensor
from ensconce.models.importing.ports import element_type, type_of
from ensconce.models.importing.surgery import tensor_of, unconvertible
from ensconce.models.originals import set_originals
from ensconce.tfserving.messages import Example
from ensconce.tfserving.tensor import Array

__all__ = ["SavedModel", "serialized_examples"]


class SavedModel:
    """A SavedModel in a session.

    Args:
        tf: the module ``tensorflow``.
        folder: holds ``saved_model.pb``.

    Raises:
        InputError: ``import.source``: TensorFlow cannot load it, or it has no signature that can be served.
    """

    def __init__(self, tf: Any, folder: Path) -> None:
        self._tf = tf
        v1 = tf.compat.v1
        self._graph = tf.Graph()
        self._session = v1.Session(graph=self._graph)
        try:
            self._meta = v1.saved_model.load(self._session, _tags(folder), str(folder))
            with self._graph.as_default():
                set_originals(tf, self._session)
        except EnsconceError:
            raise
        except Exception as error:  # TensorFlow raises many kinds
            raise InputError(
                "import.source",
                "TensorFlow cannot load this SavedModel",
                found=ascii(str(error).strip().partition("\n")[0])[:300],
                remedy="try it with `saved_model_cli show --all --dir FOLDER`, and export it again",
            ) from error
        self.signatures: dict[str, Any] = {
            name: signature
            for name, signature in sorted(self._meta.signature_def.items())
            if not name.startswith("__") and signature.inputs and signature.outputs
        }
        if not self.signatures:
            raise InputError(
                "import.source",
                "this SavedModel has no signature",
                rule="a signature with inputs and outputs, such as serving_default",
                remedy="export it with signatures: tf.saved_model.save(model, FOLDER, signatures=...)",
            )
        for name, signature in self.signatures.items():
            for key, info in [*signature.inputs.items(), *signature.outputs.items()]:
                if info.WhichOneof("encoding") != "name":
                    raise unconvertible(name, f"{key} is no dense tensor")
                try:
                    tensor = self._graph.get_tensor_by_name(info.name)
                except (KeyError, ValueError):
                    raise unconvertible(name, f"{key} is a tensor that the graph does not have") from None
                # Old signatures may say nothing of type and shape, or what is wrong: the graph knows.
                info.dtype = tensor.dtype.as_datatype_enum
                if not tf.TensorShape(info.tensor_shape).is_compatible_with(tensor.shape):
                    info.tensor_shape.CopyFrom(tensor.shape.as_proto())

    def frozen(self) -> Any:
        """The graph behind all signatures, its variables constant and its functions inlined.

        Raises:
            InputError: ``import.convert``.
        """
        v1 = self._tf.compat.v1
        infos = [info for each in self.signatures.values() for info in (*each.inputs.values(), *each.outputs.values())]
        fetched = sorted({tensor_of(i.name)[0] for each in self.signatures.values() for i in each.outputs.values()})
        try:
            frozen = v1.graph_util.convert_variables_to_constants(self._session, self._graph.as_graph_def(), fetched)
            return _inlined(self._tf, frozen, [info.name for info in infos])
        except Exception as error:  # TensorFlow raises many kinds
            raise InputError(
                "import.convert",
                "TensorFlow cannot freeze the model, as when it changes its own variables",
                found=ascii(str(error).strip().partition("\n")[0])[:300],
                remedy="import it with --engine tensorflow",
            ) from error

    def parts(self, openvino: Any, work: Path) -> list[Part]:
        """Every signature with a graph of its own.

        Args:
            openvino: the module.
            work: a folder for frozen graphs.

        Raises:
            InputError: ``import.convert``: a signature cannot be converted.
        """
        frozen = self.frozen()
        return [self._part(openvino, work, frozen, name) for name in self.signatures]

    def run(self, part: Part, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What TensorFlow answers. ``feeds`` are the part's: of a signature that parses examples, features."""
        signature = self.signatures[part.name]
        if part.features is not None:
            feeds = {next(iter(part.inputs)): serialized_examples(part.features, feeds)}
        named = {signature.inputs[name].name: array for name, array in feeds.items()}
        fetched = self._session.run({name: info.name for name, info in signature.outputs.items()}, named)
        return {name: _plain(np.asarray(value)) for name, value in fetched.items()}

    def _part(self, openvino: Any, work: Path, frozen: Any, name: str) -> Part:
        signature = self.signatures[name]
        cut = cut_signature(self._tf, frozen, name, signature, self._table)
        path = work / "signature.pb"
        if cut.graph.ByteSize() >= 2**31:
            raise unconvertible(name, "its graph is of 2 GiB or more, which protobuf cannot write")
        path.write_bytes(cut.graph.SerializeToString())
        model = convert(openvino, path, outputs=cut.fetches)
        path.unlink()
        for port in [*model.inputs, *model.outputs]:
            _rename(port, cut.names)
        for port, fetch in zip(model.outputs, cut.fetches, strict=True):
            # An input that is an output as it is loses the mark that was put on the output.
            port.get_tensor().set_names(port.get_names() | {cut.names[fetch]})
        for key, each in cut.inputs.items() if cut.features is None else ():
            if not any(each.tensor in port.get_names() for port in model.inputs):
                _add_unused(openvino, model, key, each)
        _check_types(model, name, cut)
        return Part(name, signature.method_name, cut.inputs, cut.outputs, cut.features, Graph(model))

    def _table(self, node: str) -> tuple[Array, Array]:
        with self._graph.as_default():
            handle = self._graph.get_tensor_by_name(f"{node}:0")
            operation = self._graph.get_operation_by_name(node)
            kinds = {"Tkeys": operation.get_attr("key_dtype"), "Tvalues": operation.get_attr("value_dtype")}
            export = self._tf.raw_ops.LookupTableExportV2(table_handle=handle, **kinds)
        keys, values = self._session.run(list(export))
        return np.asarray(keys), np.asarray(values)


def serialized_examples(features: Mapping[str, Feature], feeds: Mapping[str, Array]) -> Array:
    """Serialized tf.Example, one for each row of the features."""
    rows = []
    for row in range(len(next(iter(feeds.values())))):
        example = Example()
        for name, feature in features.items():
            values = np.asarray(feeds[name][row]).ravel().tolist()
            held = example.features.feature[name]
            (held.float_list if feature.dtype == "DT_FLOAT" else held.int64_list).value.extend(values)
        rows.append(example.SerializeToString())
    result = np.empty(len(rows), object)
    result[:] = rows
    return result


def _tags(folder: Path) -> list[str]:
    """The tags of the graph to load: ``serve``, as TensorFlow Serving does, or those of the only graph there is."""
    utils = import_module("tensorflow.python.tools.saved_model_utils")
    sets = [sorted(tags) for tags in utils.get_saved_model_tag_sets(str(folder))]
    if ["serve"] in sets or len(sets) == 1:
        return ["serve"] if ["serve"] in sets else sets[0]
    raise InputError(
        "import.source",
        "this SavedModel has no graph to serve",
        found="; ".join(",".join(tags) for tags in sets)[:200],
        rule="a graph with the tag serve",
        remedy="export it for serving",
    )


def _inlined(tf: Any, graph: Any, keep: list[str]) -> Any:
    """The graph with every call of a function replaced by its body (Grappler's function optimizer)."""
    optimizer = import_module("tensorflow.python.grappler.tf_optimizer")
    config = tf.compat.v1.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.min_graph_nodes = -1
    rewrite.optimizers.append("function")
    rewrite.function_optimization = rewrite.AGGRESSIVE
    whole = tf.Graph()
    with whole.as_default():
        tf.import_graph_def(graph, name="")
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=whole)
    meta.collection_def["train_op"].node_list.value.extend(sorted(set(keep)))
    return optimizer.OptimizeGraph(config, meta)


def _check_types(model: Any, name: str, cut: Cut) -> None:
    """The converted graph has every tensor of the signature, of its type."""
    fed = cut.inputs if cut.features is None else cut.features
    ports = {each: port for port in [*model.inputs, *model.outputs] for each in port.get_names()}
    for key, spec in [*fed.items(), *((key, spec) for key, spec in cut.outputs.items() if spec.constant is None)]:
        wanted = ("DT_INT32", "DT_INT64") if spec.dtype == "DT_STRING" else (spec.dtype,)
        found = type_of(ports[spec.tensor]) if spec.tensor in ports else "nothing"
        if found not in wanted:
            raise unconvertible(name, f"{key} would become {found}", spec.tensor[:100])


def _rename(port: Any, names: Mapping[str, str]) -> None:
    """Give a port the names that signatures use; one tensor may be several outputs."""
    mine = {node.removesuffix(":0") for node in port.get_names()}
    port.get_tensor().set_names({names[node] for node in mine & names.keys()})


def _add_unused(openvino: Any, model: Any, name: str, tensor: Tensor) -> None:
    """An input that no output depends on: it is asked for and ignored, as in the original."""
    shape = openvino.PartialShape.dynamic() if tensor.shape is None else openvino.PartialShape(list(tensor.shape))
    parameter = openvino.op.Parameter(element_type(openvino, tensor.dtype), shape)
    parameter.set_friendly_name(f"unused/{name}")
    parameter.output(0).get_tensor().set_names({tensor.tensor})
    model.add_parameters([parameter])


def _plain(array: Array) -> Array:
    """An answer in numpy's own types: bfloat16 as float32, which holds it exactly."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
