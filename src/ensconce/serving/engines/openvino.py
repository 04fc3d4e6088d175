"""OpenVINO on the CPU: the graphs of a converted model, from bytes in memory, and the signatures that they compute.

``signatures.json`` (:mod:`ensconce.tfserving.signatures`) says which graph computes which signature, which inputs are
parsed out of serialized ``tf.Example``s first, and which integers become strings afterwards: OpenVINO computes neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ensconce.errors import InputError
from ensconce.models.openvino import TYPE_NAMES, import_openvino
from ensconce.serving.engines.openvino_graph import CannotComputeError, Graph, Precision
from ensconce.tfserving.dtypes import STRING
from ensconce.tfserving.examples import FeatureSpec, parse_examples
from ensconce.tfserving.refusal import RequestError, invalid
from ensconce.tfserving.signatures import (
    DEFAULT_SIGNATURE,
    Binding,
    Signature,
    TensorSpec,
    find_signature,
    parse_bindings,
)
from ensconce.tfserving.tensor import Array, shape_text

__all__ = ["OpenVinoServable"]

_SIGNATURES: Final = "signatures.json"
_INTEGERS: Final = frozenset({"i32", "i64"})
_UNKNOWN: Final = b"UNK"


@dataclass(frozen=True)
class _Output:
    """Where an output comes from: the graph's output at ``index``, or the row ``constant`` for each of the batch."""

    index: int
    dtype: np.dtype[Any]
    labels: Array | None = None
    constant: Array | None = None


@dataclass(frozen=True)
class _Plan:
    """How a signature is computed; ``inputs`` are the names of what is fed, in the order of the graph's inputs."""

    signature: Signature
    graph: Graph
    features: Mapping[str, FeatureSpec] | None
    inputs: tuple[str, ...]
    outputs: Mapping[str, _Output]


class OpenVinoServable:
    """A version of a model in OpenVINO's IR: ``signatures.json``, and the ``.xml`` and ``.bin`` of each graph in it."""

    def __init__(
        self,
        files: Mapping[str, bytes | bytearray | memoryview],
        *,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Load the model; the process's working directory is another one for that moment.

        Args:
            files: the version's files by relative path, decrypted; weights in a bytearray are used in place.
            threads: most threads that compute at once; OpenVINO's choice (the cores it sees) when None.
            precision: of the arithmetic (``INFERENCE_PRECISION_HINT``); what signatures.json says when None.

        Raises:
            InputError: ``openvino_telemetry`` is installed, a file is missing, OpenVINO cannot read the model, or the
                signatures do not fit it.
        """
        import_openvino()
        _check_files(files, [_SIGNATURES])
        bindings = parse_bindings(bytes(files[_SIGNATURES]))
        hints = {binding.graph: precision or binding.precision for binding in bindings.values()}
        _check_files(files, [f"{name}.{end}" for name in sorted(hints) for end in ("xml", "bin")])
        graphs = {
            name: Graph(bytes(files[f"{name}.xml"]), files[f"{name}.bin"], threads=threads, precision=hint)
            for name, hint in hints.items()
        }
        self._plans = {name: _plan(binding, graphs[binding.graph]) for name, binding in bindings.items()}
        self._signatures = {name: plan.signature for name, plan in self._plans.items()}

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The ways to call the model, by name."""
        return self._signatures

    def predict(
        self, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        """Compute the outputs that ``output_filter`` names, or all; waits for a free inference request.

        Raises:
            RequestError: FAILED_PRECONDITION, the signature is unknown; INVALID_ARGUMENT, inputs or filter do not fit
                it, or the model cannot compute with tensors of these shapes.
        """
        plan = self._plans.get(signature_name or DEFAULT_SIGNATURE)
        if plan is None:
            # Raises.
            plan = self._plans[find_signature(self._signatures, signature_name).name]
        signature = plan.signature
        signature.check_inputs(inputs)
        chosen = signature.choose_outputs(output_filter) if output_filter else plan.outputs
        fed = inputs if plan.features is None else _parsed(inputs, plan.features)
        arrays = [fed[name] for name in plan.inputs]
        try:
            results = plan.graph.infer(arrays)
        except CannotComputeError:
            raise _cannot_compute(fed) from None
        rows = len(arrays[0]) if arrays[0].ndim else 1
        return {name: _answer(plan.outputs[name], results, rows) for name in chosen}


def _parsed(inputs: Mapping[str, Array], features: Mapping[str, FeatureSpec]) -> Mapping[str, Array]:
    """What the features of the examples in the only input are; raises RequestError where they do not fit."""
    [serialized] = inputs.values()
    if serialized.ndim != 1:
        raise invalid(f"Expected serialized to be a vector, got shape: {shape_text(serialized.shape)}")
    return parse_examples(serialized.tolist(), features)


def _check_files(files: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if name not in files:
            raise InputError(
                "engine.files",
                f"the model has no {name}",
                found=", ".join(sorted(files)) or "no files",
                rule="signatures.json, and for each graph in it NAME.xml and NAME.bin",
                remedy="convert the model again, and seal the folder that holds them all",
            )


def _plan(binding: Binding, graph: Graph) -> _Plan:
    """Refuse a signature whose names, types and shapes are not the graph's, or that does not feed every input."""
    signature = binding.signature
    ports = {name: index for index, port in enumerate(graph.model.inputs) for name in port.get_names()}
    names: list[str | None] = [None] * len(graph.model.inputs)
    fed: Mapping[str, TensorSpec] = signature.inputs
    if binding.features is not None:
        fed = {key: TensorSpec(each.tensor, each.dtype, (-1, *each.shape)) for key, each in binding.features.items()}
    for name, spec in fed.items():
        index = _port(signature, f"input {name}", spec, ports)
        _check_port(signature, f"input {name}", spec, graph.model.inputs[index])
        names[index] = name
    if None in names or len(fed) != len(names):
        raise _mismatch(signature, f"it has {len(fed)} inputs, the model has {len(names)}")
    ports = {name: index for index, port in enumerate(graph.model.outputs) for name in port.get_names()}
    outputs = {name: _output(binding, name, spec, graph, ports) for name, spec in signature.outputs.items()}
    return _Plan(signature, graph, binding.features, tuple(filter(None, names)), outputs)


def _output(binding: Binding, name: str, spec: TensorSpec, graph: Graph, ports: Mapping[str, int]) -> _Output:
    if name in binding.constants:
        return _Output(0, STRING, constant=np.array(binding.constants[name], STRING))
    signature, what = binding.signature, f"output {name}"
    index = _port(signature, what, spec, ports)
    port = graph.model.outputs[index]
    if name not in binding.labels:
        _check_port(signature, what, spec, port)
        return _Output(index, spec.dtype.numpy)
    element = port.get_element_type().get_type_name()
    if element not in _INTEGERS:
        raise _mismatch(signature, f"{what} has labels, the model's tensor is {element}")
    _check_shape(signature, what, spec, port)
    return _Output(index, STRING, labels=np.array([*binding.labels[name], _UNKNOWN], STRING))


def _port(signature: Signature, what: str, spec: TensorSpec, ports: Mapping[str, int]) -> int:
    if spec.tensor not in ports:
        raise _mismatch(signature, f"{what} is tensor {spec.tensor}, which the model does not have")
    return ports[spec.tensor]


def _check_port(signature: Signature, what: str, spec: TensorSpec, port: Any) -> None:
    element = port.get_element_type().get_type_name()
    if element != TYPE_NAMES.get(spec.dtype.name):
        raise _mismatch(signature, f"{what} is {spec.dtype.name}, the model's tensor is {element}")
    _check_shape(signature, what, spec, port)


def _check_shape(signature: Signature, what: str, spec: TensorSpec, port: Any) -> None:
    shape = port.get_partial_shape()
    if spec.shape is None or shape.rank.is_dynamic:
        return
    sizes = [-1 if size.is_dynamic else size.get_length() for size in shape]
    fits = len(sizes) == len(spec.shape) and all(
        have == -1 or want in (-1, have) for have, want in zip(sizes, spec.shape, strict=True)
    )
    if not fits:
        raise _mismatch(signature, f"the shape of {what} is not the model's")


def _mismatch(signature: Signature, problem: str) -> InputError:
    return InputError(
        "engine.signatures",
        f"signature {signature.name} does not fit the model: {problem}",
        remedy="convert the model anew, or correct signatures.json before sealing",
    )


def _cannot_compute(inputs: Mapping[str, Array]) -> RequestError:
    shapes = ", ".join(f"{name}: {shape_text(array.shape)}" for name, array in sorted(inputs.items()))
    return invalid(f"The model cannot compute with these inputs, of shapes {shapes}")


def _answer(output: _Output, results: Sequence[Array], rows: int) -> Array:
    if output.constant is not None:
        return np.repeat(output.constant[None], rows, axis=0)
    array = results[output.index]
    if output.labels is not None:
        # The last label is the one for numbers that have none.
        last = len(output.labels) - 1
        return np.asarray(output.labels[np.where((array >= 0) & (array < last), array, last)], STRING)
    # OpenVINO hands bfloat16 out under numpy's name of another 16-bit type.
    return array if array.dtype == output.dtype else array.view(output.dtype)
