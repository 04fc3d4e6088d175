"""SavedModels, computed by TensorFlow: TF1 and TF2 style, any signature, as TensorFlow Serving computes them.

One compiled callable for each set of outputs that clients ask for: it computes those and nothing else, and costs a
quarter of ``Session.run`` (docs/decisions/0024-engines.md). TensorFlow is imported when the first model is loaded.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ensconce.serving.engines.definitions import check_servable, signature_of
from ensconce.serving.engines.saved_model import SessionOptions, import_tensorflow, load_saved_model
from ensconce.tfserving.dtypes import BFLOAT16, STRING, DType
from ensconce.tfserving.messages import SignatureDef
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature, find_signature
from ensconce.tfserving.tensor import Array, shape_text

__all__ = ["TensorFlowServable"]

# Clients choose which outputs they want; more sets than this at once would be somebody trying them all.
_MOST_CALLS: Final = 64


@dataclass(frozen=True)
class _Call:
    """A compiled way through the graph: arrays in the order of ``inputs`` in, arrays in the order of fetches out.

    ``outputs`` has for each output the number of its fetch, or the name of the input that it is: TensorFlow fetches
    no tensor twice, and none that is fed.
    """

    run: Callable[..., list[Any]] | None
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, int | str], ...]


class TensorFlowServable:
    """A SavedModel in a session of its own."""

    def __init__(self, folder: Path, options: SessionOptions | None = None) -> None:
        """Load the model.

        Args:
            folder: the version's folder.
            options: tags and threads; TensorFlow Serving's defaults when None.

        Raises:
            LoadError: there is no SavedModel, no graph of these tags, or TensorFlow cannot load it.
            InputError: TensorFlow is not installed.
        """
        loaded = load_saved_model(folder, options or SessionOptions())
        self._tf = import_tensorflow()
        self._session = loaded.session
        self._callable_options = importlib.import_module("tensorflow.core.protobuf.config_pb2").CallableOptions
        self._bfloat16 = np.dtype(self._tf.bfloat16.as_numpy_dtype)
        self._signatures = {
            name: signature_of(name, SignatureDef.FromString(data)) for name, data in loaded.definitions.items()
        }
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, tuple[str, ...]], _Call] = {}
        # The graph is a web of cycles: its variables must not wait for a collection.
        weakref.finalize(self, loaded.session.close)

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The ways to call the model, by name."""
        return self._signatures

    def predict(
        self, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        """Compute the outputs that ``output_filter`` names, or all; nothing that only others need is computed.

        Shapes need not be the signature's: as in TensorFlow, what the operations can take is taken.

        Raises:
            RequestError: FAILED_PRECONDITION, the signature is unknown; INVALID_ARGUMENT, inputs or filter do not fit
                it; or TensorFlow's own code, without its text, which can quote tensors of this and other requests.
        """
        signature = find_signature(self._signatures, signature_name)
        inputs = signature.complete(inputs)
        signature.check_inputs(inputs, shapes=False)
        call = self._call(signature, signature.choose_outputs(output_filter))
        try:
            values = call.run(*[self._fed(inputs[name]) for name in call.inputs]) if call.run else []
        except self._tf.errors.OpError as error:
            raise _failed(int(error.error_code), inputs) from None
        except (TypeError, ValueError):
            raise _failed(Code.INVALID_ARGUMENT, inputs) from None
        return {
            name: inputs[where] if isinstance(where, str) else _fetched(values[where], signature.outputs[name].dtype)
            for name, where in call.outputs
        }

    def _call(self, signature: Signature, chosen: tuple[str, ...]) -> _Call:
        key = signature.name, chosen
        found = self._calls.get(key)
        if found is not None:
            return found
        check_servable(signature, chosen)
        with self._lock:
            if len(self._calls) >= _MOST_CALLS:
                self._calls.clear()
            return self._calls.setdefault(key, self._compile(signature, chosen))

    def _compile(self, signature: Signature, chosen: tuple[str, ...]) -> _Call:
        feeds = {spec.tensor: name for name, spec in signature.inputs.items()}
        fetches: dict[str, int] = {}
        outputs: list[tuple[str, int | str]] = []
        for name in chosen:
            tensor = signature.outputs[name].tensor
            outputs.append((name, feeds[tensor] if tensor in feeds else fetches.setdefault(tensor, len(fetches))))
        if not fetches:
            return _Call(None, (), tuple(outputs))
        options = self._callable_options(feed=list(feeds), fetch=list(fetches))
        try:
            # What Session.run does once for each set of names, without what it does for each call.
            run = self._session._make_callable_from_options(options)
        except self._tf.errors.OpError as error:
            raise RequestError(
                _code(int(error.error_code)), f"Signature {signature.name} names tensors that the model cannot compute"
            ) from None
        return _Call(run, tuple(feeds.values()), tuple(outputs))

    def _fed(self, array: Array) -> Array:
        return array.view(self._bfloat16) if array.dtype == BFLOAT16 else array


def _fetched(value: Any, dtype: DType) -> Array:
    """What TensorFlow gives for a tensor: an array, or a scalar, which for strings is ``bytes``."""
    if isinstance(value, bytes | str):
        return np.array(value, STRING)
    array = np.asarray(value)
    # Types that numpy lacks come under the name of another type of their size.
    return array.view(dtype.numpy) if dtype.numpy.names is not None and array.dtype != dtype.numpy else array


def _failed(code: int, inputs: Mapping[str, Array]) -> RequestError:
    shapes = ", ".join(f"{name}: {shape_text(array.shape)}" for name, array in sorted(inputs.items()))
    return RequestError(_code(code), f"The model cannot compute with these inputs, of shapes {shapes}")


def _code(number: int) -> Code:
    return Code(number) if number in Code.__members__.values() else Code.UNKNOWN
