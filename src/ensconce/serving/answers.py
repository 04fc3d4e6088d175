"""A request message in, a response message out: what the gRPC and the REST front have in common.

Nothing here waits for anything but the scheduler. The order of checks, and so of refusals, is TensorFlow Serving's
(servables/tensorflow/predict_util.cc, get_model_metadata_impl.cc, model_servers/get_model_status_impl.cc).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.tfserving.bulk import Bulk
from ensconce.tfserving.messages import (
    GetModelMetadataResponse,
    GetModelStatusResponse,
    SignatureDefMap,
)
from ensconce.tfserving.predict_response import predict_response
from ensconce.tfserving.refusal import RequestError, invalid
from ensconce.tfserving.signatures import Signature, find_signature
from ensconce.tfserving.tensor import Array, from_proto

__all__ = [
    "METADATA_FIELD",
    "Prediction",
    "answer_metadata",
    "answer_status",
    "read_predict",
    "resolve",
    "spec_of",
    "write_predict",
]

METADATA_FIELD: Final = "signature_def"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A ``PredictRequest``, resolved and unpacked.

    Attributes:
        loaded: what is to answer.
        signature: of it.
        inputs: by name.
        output_filter: names of outputs; none means all.
    """

    loaded: LoadedServable
    signature: Signature
    inputs: dict[str, Array]
    output_filter: tuple[str, ...]


def read_predict(
    manager: ModelManager, request: Any, bulk: Mapping[str, Bulk] = MappingProxyType({}), *, tensor_bytes: int
) -> Prediction:
    """What a ``PredictRequest`` asks to be computed; for any thread.

    Args:
        manager: knows the models.
        request: the request.
        bulk: values that were cut out of it, by input.
        tensor_bytes: most bytes that one input may take once it is unpacked.

    Raises:
        RequestError: whatever is wrong with the request.
    """
    spec = spec_of(request)
    loaded = resolve(manager, spec)
    signature = find_signature(loaded.servable.signatures, spec.signature_name)
    signature.check_names(request.inputs)
    inputs = {}
    for name in signature.inputs:
        if name not in request.inputs:
            continue  # it has a default
        try:
            inputs[name] = from_proto(request.inputs[name], bulk.get(name), limit=tensor_bytes)
        except RequestError as error:
            raise invalid(f"tensor parsing error: {name}: {error.problem}") from error
    return Prediction(loaded, signature, inputs, tuple(request.output_filter))


def write_predict(asked: Prediction, outputs: Mapping[str, Array], *, as_content: bool = False) -> bytes:
    """The answer, a serialized ``PredictResponse``; for any thread.

    Args:
        asked: what was asked.
        outputs: what came of it.
        as_content: see :func:`~ensconce.tfserving.predict_response.predict_response`.
    """
    loaded = asked.loaded
    return predict_response(loaded.name, loaded.version, asked.signature.name, outputs, as_content=as_content)


def answer_metadata(manager: ModelManager, request: Any) -> Any:
    """Answer a ``GetModelMetadataRequest`` with a ``GetModelMetadataResponse``.

    Raises:
        RequestError: INVALID_ARGUMENT, no field or an unknown one is asked for; NOT_FOUND, no such model.
    """
    spec = spec_of(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != METADATA_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    loaded = resolve(manager, spec)
    signatures = SignatureDefMap()
    for name, signature in loaded.servable.signatures.items():
        signatures.signature_def[name].CopyFrom(signature.to_proto())
    response = GetModelMetadataResponse()
    response.model_spec.name = loaded.name
    response.model_spec.version.value = loaded.version
    response.metadata[METADATA_FIELD].Pack(signatures)
    return response


def answer_status(manager: ModelManager, request: Any) -> Any:
    """Answer a ``GetModelStatusRequest`` with a ``GetModelStatusResponse``; a version label is ignored, as there.

    Raises:
        RequestError: NOT_FOUND, no such model or version.
    """
    spec = spec_of(request)
    version = spec.version.value if spec.HasField("version") else None
    response = GetModelStatusResponse()
    for status in manager.status(spec.name, version):
        entry = response.model_version_status.add(version=status.version, state=int(status.state))
        entry.status.error_code = int(status.code)
        entry.status.error_message = status.text
    return response


def resolve(manager: ModelManager, spec: Any) -> LoadedServable:
    """The version that a ``ModelSpec`` asks for; raises what :meth:`ModelManager.resolve` does."""
    return manager.resolve(
        spec.name,
        spec.version.value if spec.HasField("version") else None,
        spec.version_label if spec.HasField("version_label") else None,
    )


def spec_of(request: Any) -> Any:
    """A request's ``ModelSpec``.

    Raises:
        RequestError: INVALID_ARGUMENT, it has none.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec
