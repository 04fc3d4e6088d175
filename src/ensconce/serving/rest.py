"""The REST front: TensorFlow Serving's ``/v1/models`` (its api_rest.md), errors as ``{"error": "..."}``.

Paths are matched as there (model_servers/http_rest_api_util.cc), whatever their case; so are statuses
(model_servers/http_server.cc).
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final
from urllib.parse import unquote

from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ensconce.serving.answers import METADATA_FIELD, answer_metadata, answer_status
from ensconce.serving.json_tensors import inputs_from_json, outputs_to_json, parse_body
from ensconce.serving.manager import ModelManager
from ensconce.serving.workers import Workers
from ensconce.tfserving.messages import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelSpec,
    SignatureDefMap,
)
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["rest_application"]

_MODEL: Final = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST_PATH: Final = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_GET_PATH: Final = re.compile(_MODEL + r"(?:/(?P<sub>metadata))?", re.IGNORECASE)
_LIST_PATH: Final = re.compile(r"/v1/models", re.IGNORECASE)
_ANY_PATH: Final = re.compile(r"/v1/.*", re.IGNORECASE)
_LARGEST_VERSION: Final = 2**63 - 1

_HTTP_STATUS: Final = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}

_BODY_S: Final = 30
"""Seconds that a client may take to send a body."""


class _TooLargeError(Exception):
    """The body is longer than it may be."""


def rest_application(manager: ModelManager, workers: Workers, *, body_bytes: int) -> Starlette:
    """The ASGI application.

    Args:
        manager: knows the models.
        workers: where predictions are computed; JSON is read and written there too.
        body_bytes: longest body of a request.
    """

    async def endpoint(request: Request) -> Response:
        path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
        if not _ANY_PATH.fullmatch(path):
            return _error(404, "Not found: the API is below /v1/models")
        try:
            async with asyncio.timeout(_BODY_S):
                body = await _read_body(request, body_bytes)
            answer = await workers.run(lambda: _answer(manager, request.method, path, body))
        except RequestError as error:
            return _error(_HTTP_STATUS.get(error.code, 500), error.problem)
        except _TooLargeError:
            return _error(413, f"The body of the request is longer than {body_bytes} bytes")
        except TimeoutError:
            return _error(408, f"The body of the request did not arrive within {_BODY_S} seconds")
        except ClientDisconnect:
            return _error(499, "The client is gone")
        return Response(answer, media_type="application/json")

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(routes=[Route("/{path:path}", endpoint, methods=methods)])


def _error(status: int, text: str) -> Response:
    headers = {"connection": "close"} if status in (408, 413) else None
    return Response(json.dumps({"error": text}), status, headers, media_type="application/json")


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise _TooLargeError
        body += chunk
    return bytes(body)


def _answer(manager: ModelManager, method: str, path: str, body: bytes) -> bytes:
    if method == "POST" and (match := _POST_PATH.fullmatch(path)):
        if match["method"].lower() != "predict":
            raise RequestError(Code.UNIMPLEMENTED, f"{match['method'].capitalize()} is not supported by this server")
        return _dump(_predict(manager, match, body))
    if method == "GET" and (match := _GET_PATH.fullmatch(path)):
        return _dump(_metadata(manager, match) if match["sub"] else _status(manager, match))
    if method == "GET" and _LIST_PATH.fullmatch(path):
        raise invalid("Missing model name in request.")
    raise invalid(f"Malformed request: {method} {path}")


def _dump(value: Any) -> bytes:
    # NaN and the infinities are written as such, as the original does: not JSON, but what its clients expect.
    return json.dumps(value, separators=(",", ":"), allow_nan=True).encode()


def _spec(match: re.Match[str]) -> Any:
    spec = ModelSpec(name=unquote(match["name"]))
    if match["version"] is not None:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > len(str(_LARGEST_VERSION)) or int(digits) > _LARGEST_VERSION:
            raise invalid(f"Failed to convert version: {match['version'][:64]} to numeric.")
        spec.version.value = int(digits)
    if match["label"] is not None:
        spec.version_label = unquote(match["label"])
    return spec


def _predict(manager: ModelManager, match: re.Match[str], body: bytes) -> dict[str, Any]:
    spec = _spec(match)
    document = parse_body(body)
    loaded = manager.resolve(
        spec.name,
        spec.version.value if spec.HasField("version") else None,
        spec.version_label if spec.HasField("version_label") else None,
    )
    signature, inputs, form = inputs_from_json(document, loaded.servable.signatures)
    return outputs_to_json(loaded.servable.predict(signature.name, inputs), form)


def _status(manager: ModelManager, match: re.Match[str]) -> Any:
    response = answer_status(manager, GetModelStatusRequest(model_spec=_spec(match)))
    return MessageToDict(response, always_print_fields_with_no_presence=True)


def _metadata(manager: ModelManager, match: re.Match[str]) -> Any:
    request = GetModelMetadataRequest(model_spec=_spec(match), metadata_field=[METADATA_FIELD])
    response = answer_metadata(manager, request)
    signatures = SignatureDefMap()
    response.metadata[METADATA_FIELD].Unpack(signatures)
    spec, described = (
        MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
        for message in (response.model_spec, signatures)
    )
    return {"model_spec": spec, "metadata": {METADATA_FIELD: described}}
