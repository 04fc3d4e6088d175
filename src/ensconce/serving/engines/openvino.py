"""OpenVINO on the CPU: a model from bytes in memory, inference from many threads.

Nothing is written: the model is read from memory, and no cache folder is configured. OpenVINO itself prefers what lies
in the working directory, a file ``.bin`` to the weights that it is given and ``libopenvino_*_plugin.so`` to none; that
folder is the host's, so models are read in another, where nobody can put a file. ``openvino_telemetry``, which
OpenVINO imports when it is there and which then reports usage over the network, is refused before OpenVINO is imported;
without it OpenVINO falls back to a stub of its own that does nothing (``openvino/tools/ovc/telemetry_stub.py``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from ensconce.errors import InputError
from ensconce.tfserving.dtypes import DType
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature, TensorSpec, find_signature, parse_signatures
from ensconce.tfserving.tensor import Array, shape_text

__all__ = ["OpenVinoServable"]

# OpenVINO's names of element types (ov::element::Type::get_type_name), by ours.
_TYPE_NAMES: Final = {
    "DT_FLOAT": "f32",
    "DT_DOUBLE": "f64",
    "DT_HALF": "f16",
    "DT_BFLOAT16": "bf16",
    "DT_INT8": "i8",
    "DT_INT16": "i16",
    "DT_INT32": "i32",
    "DT_INT64": "i64",
    "DT_UINT8": "u8",
    "DT_UINT16": "u16",
    "DT_UINT32": "u32",
    "DT_UINT64": "u64",
    "DT_BOOL": "boolean",
}

_MOST_SHAPES: Final = 1024

# A folder of the kernel's: not even root can put a file there.
_NOWHERE: Final = "/proc"


class OpenVinoServable:
    """A version of a model in OpenVINO's IR: ``model.xml``, ``model.bin`` and ``signatures.json``."""

    def __init__(
        self,
        files: Mapping[str, bytes | bytearray | memoryview],
        *,
        threads: int | None = None,
        precision: Literal["f32", "bf16"] = "f32",
    ) -> None:
        """Load the model; the process's working directory is another one for that moment.

        Args:
            files: the version's files by relative path, decrypted; weights in a bytearray are used in place.
            threads: most threads of one inference; OpenVINO's choice (the cores it sees) when None.
            precision: of the arithmetic (``INFERENCE_PRECISION_HINT``).

        Raises:
            InputError: ``openvino_telemetry`` is installed, a file is missing, OpenVINO cannot read the model, or the
                signatures do not fit it.
        """
        ov = _import_openvino()
        for name in ("model.xml", "model.bin", "signatures.json"):
            if name not in files:
                raise InputError(
                    "engine.files",
                    f"the model has no {name}",
                    found=", ".join(sorted(files)) or "no files",
                    rule="model.xml, model.bin and signatures.json",
                    remedy="convert the model again, and seal the folder that holds all three",
                )
        self._signatures = parse_signatures(bytes(files["signatures.json"]))
        # OpenVINO shares only memory that it could write to; bytes are copied.
        weights = np.frombuffer(files["model.bin"], np.uint8)
        self._weights = weights if weights.flags.writeable else weights.copy()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            with contextlib.chdir(_NOWHERE):
                core = ov.Core()
                model = core.read_model(bytes(files["model.xml"]), ov.Tensor(self._weights, shared_memory=True))
        except RuntimeError:
            # OpenVINO's text may quote the model, which is a secret: it goes no further.
            raise InputError(
                "engine.model",
                "OpenVINO cannot read the model",
                found=f"{len(files['model.xml'])} bytes of XML, {self._weights.size} bytes of weights",
                rule="OpenVINO IR, as its save_model writes it",
                remedy="convert the model again, with the same version of OpenVINO",
            ) from None
        for signature in self._signatures.values():
            _check_signature(signature, model)
        self._ov, self._core, self._model, self._settings = ov, core, model, settings
        self._lock = threading.Lock()
        self._shapes: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        self._graph = self._compile()

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
        signature = find_signature(self._signatures, signature_name)
        signature.check_inputs(inputs)
        chosen = signature.choose_outputs(output_filter)
        feeds = {spec.tensor: self._tensor(inputs[name], spec.dtype) for name, spec in signature.inputs.items()}
        if not self._can_take({spec.tensor: inputs[name].shape for name, spec in signature.inputs.items()}):
            raise _cannot_compute(inputs)
        wanted = {name: signature.outputs[name] for name in chosen}
        graph = self._graph
        try:
            return graph.infer(feeds, wanted)
        except RuntimeError:
            graph = self._replace(graph)
        try:
            return graph.infer(feeds, wanted)
        except RuntimeError:
            self._replace(graph)
            raise _cannot_compute(inputs) from None

    def _can_take(self, shapes: dict[str, tuple[int, ...]]) -> bool:
        """Whether every operation of the model can take inputs of these shapes, found out without the graph.

        An inference that fails half-way leaves shapes behind in the compiled graph, which all requests share, and the
        next one may fail of them although nothing is wrong with it. No client may do that to another.
        """
        key = tuple(sorted(shapes.items()))
        if key in self._shapes:
            return True
        trial = self._model.clone()
        try:
            trial.reshape({name: self._ov.PartialShape(list(shape)) for name, shape in shapes.items()})
        except RuntimeError:
            return False
        with self._lock:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            self._shapes.add(key)
        return True

    def _replace(self, failed: _Graph) -> _Graph:
        """A graph that no failure has touched: a fresh one, unless another thread has made it already."""
        with self._lock:
            if self._graph is failed:
                self._graph = self._compile()
            return self._graph

    def _compile(self) -> _Graph:
        try:
            return _Graph(self._core.compile_model(self._model, "CPU", self._settings))
        except RuntimeError:
            raise InputError(
                "engine.model",
                "OpenVINO cannot compile the model for the CPU",
                remedy="convert the model again, and try it with OpenVINO outside",
            ) from None

    def _tensor(self, array: Array, dtype: DType) -> Any:
        array = np.ascontiguousarray(array)
        if dtype.name == "DT_BFLOAT16":
            return self._ov.Tensor(array.view("<u2"), self._ov.Shape(list(array.shape)), self._ov.Type.bf16)
        return array


class _Graph:
    """The model compiled for this CPU, and as many inference requests as may run at once."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(max(int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")), os.cpu_count() or 1)):
            self._requests.put(compiled.create_infer_request())

    def infer(self, feeds: Mapping[str, Any], wanted: Mapping[str, TensorSpec]) -> dict[str, Array]:
        """Wait for a free request and run it; raises RuntimeError when OpenVINO does."""
        request = self._requests.get()
        try:
            # Outputs are copied out, so that the request can serve the next caller; inputs are used where they are.
            results = request.infer(feeds, share_inputs=True, share_outputs=False)
        finally:
            self._requests.put(request)
        return {name: _as_served(results[self._compiled.output(w.tensor)], w.dtype) for name, w in wanted.items()}


def _import_openvino() -> Any:
    if importlib.util.find_spec("openvino_telemetry") is not None:
        raise InputError(
            "engine.telemetry",
            "openvino_telemetry is installed; it reports usage over the network as soon as OpenVINO is imported",
            rule="no environment that serves models holds openvino_telemetry",
            remedy="pip uninstall openvino-telemetry; requirements/runtime.txt installs OpenVINO without it",
        )
    try:
        import openvino  # type: ignore[import-untyped]  # ships no py.typed
    except ImportError as error:
        raise InputError(
            "engine.openvino",
            "OpenVINO is not installed",
            remedy="pip install --no-deps openvino, in the version that requirements/runtime.txt names",
        ) from error
    return openvino


def _check_signature(signature: Signature, model: Any) -> None:
    """The signature feeds every input of the model, and its names, types and shapes are the model's."""
    for kind, specs, ports in (("input", signature.inputs, model.inputs), ("output", signature.outputs, model.outputs)):
        by_name = {name: port for port in ports for name in port.get_names()}
        for name, spec in specs.items():
            port = by_name.get(spec.tensor)
            if port is None:
                raise _mismatch(signature, f"{kind} {name} is tensor {spec.tensor}, which the model does not have")
            element = port.get_element_type().get_type_name()
            if element != _TYPE_NAMES.get(spec.dtype.name):
                raise _mismatch(signature, f"{kind} {name} is {spec.dtype.name}, the model's tensor is {element}")
            if not _compatible(spec, port.get_partial_shape()):
                raise _mismatch(signature, f"the shape of {kind} {name} is not the model's")
        fed = {by_name[spec.tensor].get_node().get_friendly_name() for spec in specs.values()}
        if kind == "input" and len(fed) != len(ports):
            raise _mismatch(signature, f"it has {len(specs)} inputs, the model has {len(ports)}")


def _compatible(spec: TensorSpec, shape: Any) -> bool:
    if spec.shape is None or shape.rank.is_dynamic:
        return True
    sizes = [-1 if size.is_dynamic else size.get_length() for size in shape]
    return len(sizes) == len(spec.shape) and all(
        have == -1 or want in (-1, have) for have, want in zip(sizes, spec.shape, strict=True)
    )


def _mismatch(signature: Signature, problem: str) -> InputError:
    return InputError(
        "engine.signatures",
        f"signature {signature.name} does not fit the model: {problem}",
        remedy="convert the model anew, or correct signatures.json before sealing",
    )


def _cannot_compute(inputs: Mapping[str, Array]) -> RequestError:
    shapes = ", ".join(f"{name}: {shape_text(array.shape)}" for name, array in sorted(inputs.items()))
    return RequestError(Code.INVALID_ARGUMENT, f"The model cannot compute with these inputs, of shapes {shapes}")


def _as_served(array: Array, dtype: DType) -> Array:
    # OpenVINO hands bfloat16 out under numpy's name of another 16-bit type.
    return array.view(dtype.numpy) if array.dtype != dtype.numpy else array
