"""TFLite models, computed by the interpreter that TensorFlow ships.

Signatures are found as TensorFlow Serving finds them (servables/tensorflow/tflite_session.cc, TfLiteSession::Create):
those that ``tools/signature`` put into the model's metadata, else one, ``serving_default``, made of the tensors' names
without ``:0``. An interpreter serves one request at a time, so there are several; they share the model's bytes.
"""

from __future__ import annotations

import importlib
import queue
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ensconce.serving.engines import LoadError
from ensconce.serving.engines.definitions import check_servable, signature_of
from ensconce.serving.engines.saved_model import import_tensorflow
from ensconce.tfserving.dtypes import STRING, dtype_of
from ensconce.tfserving.messages import SignatureDef
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import DEFAULT_SIGNATURE, PREDICT_METHOD, Signature, TensorSpec, find_signature
from ensconce.tfserving.tensor import Array

__all__ = ["TfliteServable"]

_SIGNATURES: Final = b"signature_defs_metadata"
_IDENTIFIER: Final = b"TFL3"


class _Runner:
    """An interpreter, and the shapes that its inputs have now."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._shapes = {each["index"]: tuple(each["shape"]) for each in interpreter.get_input_details()}

    def feed(self, index: int, array: Array) -> None:
        """Copy an input in, after making room for its shape."""
        try:
            if self._shapes[index] != array.shape:
                self._interpreter.resize_tensor_input(index, array.shape)
                self._interpreter.allocate_tensors()
                self._shapes[index] = array.shape
            self._interpreter.set_tensor(index, array)
        except (RuntimeError, ValueError):
            raise RequestError(Code.INTERNAL, "Failed to allocate tensors") from None

    def invoke(self) -> None:
        """Compute."""
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError):
            raise RequestError(Code.INTERNAL, "Failed to invoke TfLite interpreter") from None

    def fetch(self, index: int) -> Array:
        """A copy of an output."""
        value = self._interpreter.get_tensor(index)
        if isinstance(value, bytes):
            return np.array(value, STRING)
        array = np.asarray(value)
        return array.astype(STRING) if array.dtype.kind in "SU" else array


class TfliteServable:
    """A TFLite model with a pool of interpreters."""

    def __init__(self, model: bytes, *, interpreters: int, threads: int | None = None) -> None:
        """Load the model.

        Args:
            model: the content of ``model.tflite``.
            interpreters: how many requests may be computed at once.
            threads: most threads of one inference; one when None.

        Raises:
            LoadError: this is no TFLite model, has an operation that the interpreter lacks, or signatures that name
                tensors that it does not have.
            InputError: TensorFlow is not installed.
        """
        self._tf = import_tensorflow()
        self._model, self._threads = model, threads or 1
        if model[4:8] != _IDENTIFIER:
            raise LoadError("engine.model", "Cannot build FlatBufferModel from buffer.").with_code(
                Code.INVALID_ARGUMENT
            )
        first = self._interpreter()
        self._inputs = _indices(first.get_input_details(), "Input")
        self._outputs = _indices(first.get_output_details(), "Output")
        self._signatures = self._find_signatures(first)
        self._pool: queue.SimpleQueue[_Runner] = queue.SimpleQueue()
        self._pool.put(_Runner(first))
        for _ in range(interpreters - 1):
            self._pool.put(_Runner(self._interpreter()))

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The ways to call the model, by name."""
        return self._signatures

    def predict(
        self, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        """Compute the outputs that ``output_filter`` names, or all; waits for a free interpreter.

        Raises:
            RequestError: FAILED_PRECONDITION, the signature is unknown; INVALID_ARGUMENT, inputs or filter do not fit
                it; INTERNAL, as the original has it, the model cannot compute with inputs of these shapes.
        """
        signature = find_signature(self._signatures, signature_name)
        inputs = signature.complete(inputs)
        signature.check_inputs(inputs, shapes=False)
        chosen = signature.choose_outputs(output_filter)
        runner = self._pool.get()
        try:
            for name, spec in signature.inputs.items():
                runner.feed(self._inputs[spec.tensor], inputs[name])
            runner.invoke()
            return {name: runner.fetch(self._outputs[signature.outputs[name].tensor]) for name in chosen}
        except BaseException:
            # Shapes of what failed stay in an interpreter; the next request gets a fresh one.
            runner = _Runner(self._interpreter())
            raise
        finally:
            self._pool.put(runner)

    def _interpreter(self) -> Any:
        try:
            with warnings.catch_warnings():
                # It announces its own move to another package.
                warnings.simplefilter("ignore")
                interpreter = self._tf.lite.Interpreter(model_content=self._model, num_threads=self._threads)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise LoadError(
                "engine.model",
                "Cannot build Interpreter from buffer.",
                found=next(iter(str(error).splitlines()), "")[:200],
                rule="operations that TensorFlow's interpreter has built in",
                remedy="serve the SavedModel that the model was converted from",
            ).with_code(Code.INTERNAL) from None
        return interpreter

    def _find_signatures(self, interpreter: Any) -> dict[str, Signature]:
        found = _definitions(self._model)
        if not found:
            return {DEFAULT_SIGNATURE: _made_up(interpreter)}
        for name, definition in found.items():
            for kind, tensors, known in (
                ("input", definition.inputs, self._inputs),
                ("output", definition.outputs, self._outputs),
            ):
                for alias in sorted(tensors):
                    tensors[alias].name = _known_name(tensors[alias].name, known, f"Signature {kind} {alias}")
            signature = signature_of(name, definition)
            check_servable(signature, signature.outputs)
        return {name: signature_of(name, found[name]) for name in sorted(found)}


def _indices(details: list[dict[str, Any]], kind: str) -> dict[str, int]:
    indices: dict[str, int] = {}
    for each in details:
        if indices.setdefault(each["name"], each["index"]) != each["index"]:
            raise LoadError("engine.model", f"{kind} tensor name: {each['name']} has multiple indices").with_code(
                Code.ALREADY_EXISTS
            )
    return indices


def _made_up(interpreter: Any) -> Signature:
    """The signature of a model that brings none; shapes are those that its tensors have at first."""

    def specs(details: list[dict[str, Any]]) -> dict[str, TensorSpec]:
        made = {}
        for each in sorted(details, key=lambda one: str(one["name"])):
            dtype = dtype_of(np.empty(0, each["dtype"]))
            made[_short(each["name"])] = TensorSpec(each["name"], dtype, tuple(int(size) for size in each["shape"]))
        return made

    inputs, outputs = specs(interpreter.get_input_details()), specs(interpreter.get_output_details())
    return Signature(DEFAULT_SIGNATURE, PREDICT_METHOD, inputs, outputs)


def _definitions(model: bytes) -> dict[str, Any]:
    """The ``SignatureDef``s in the model's metadata (tensorflow/lite/tools/signature: a FlexBuffer map of messages)."""
    schema = importlib.import_module("tensorflow.lite.python.schema_py_generated")
    flexbuffers = importlib.import_module("flatbuffers.flexbuffers")
    try:
        root = schema.Model.GetRootAsModel(model, 0)
        for entry in (root.Metadata(each) for each in range(root.MetadataLength())):
            if entry.Name() == _SIGNATURES:
                table = flexbuffers.GetRoot(bytes(root.Buffers(entry.Buffer()).DataAsNumpy())).AsMap
                pairs = zip(table.Keys, table.Values, strict=True)
                return {key.AsKey: SignatureDef.FromString(value.AsStringBytes) for key, value in pairs}
    except Exception as error:  # whatever bytes that are no FlatBuffer make of the generated readers
        raise LoadError(
            "engine.model", "Invalid SignatureDefs found in TfLite model", found=type(error).__name__
        ).with_code(Code.INVALID_ARGUMENT) from None
    return {}


def _known_name(name: str, known: Mapping[str, int], what: str) -> str:
    """The tensor's name, without ``:0`` where an early converter left that away."""
    for each in (name, _short(name)):
        if each in known:
            return each
    raise LoadError("engine.model", f"{what} references an unknown tensor: Unknown tensor '{name}'.").with_code(
        Code.INTERNAL
    )


def _short(name: str) -> str:
    return name.partition(":")[0]
