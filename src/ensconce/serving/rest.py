"""The REST front: TensorFlow Serving's ``/v1/models`` (its api_rest.md), errors as ``{"error": "..."}``.

Paths are matched as there (model_servers/http_rest_api_util.cc), whatever their case, and so is what comes after a
question mark; statuses and preflight requests are those of model_servers/http_server.cc. Beside it there are the
metrics, where they are asked for, and a description of the API (``/openapi.json``).
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from google.protobuf.json_format import MessageToDict

from ensconce.serving.answers import METADATA_FIELD, answer_metadata, answer_status, resolve
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.http1.messages import HttpError, Request, Response
from ensconce.serving.json_examples import answer_examples_json
from ensconce.serving.json_outputs import outputs_to_json
from ensconce.serving.json_tensors import inputs_from_json, parse_body
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.serving.observing import Answered, Method, Observe
from ensconce.serving.openapi import OPENAPI_PATH, describe
from ensconce.serving.quotes import Quotes
from ensconce.serving.unforeseen import unforeseen
from ensconce.tfserving.messages import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelSpec,
    SignatureDefMap,
)
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["QUOTE_PATH", "RestFront", "RestOptions"]

QUOTE_PATH: Final = "/ensconce/attestation:quote"
"""Where REST answers ``{"nonce": base64}`` with ``{"quote": base64}``."""

_MODEL: Final = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST_PATH: Final = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_GET_PATH: Final = re.compile(_MODEL + r"(?:/(?P<sub>metadata))?", re.IGNORECASE)
_LIST_PATH: Final = re.compile(r"/v1/models", re.IGNORECASE)
_ANY_PATH: Final = re.compile(r"/v1/.*", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"https?://")
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
# What a refusal by HTTP itself is among the API's codes.
_CODES: Final = {408: Code.DEADLINE_EXCEEDED, 500: Code.INTERNAL, 501: Code.UNIMPLEMENTED, 503: Code.RESOURCE_EXHAUSTED}
_METHODS: Final[Mapping[str, Method]] = {"predict": "Predict", "classify": "Classify", "regress": "Regress"}

_CORS: Final = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "POST, GET"),
    ("access-control-allow-headers", "Content-Type"),
)
_PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"

_LONGEST_TEXT: Final = 1024
_IN_LOOP: Final = 16 * 1024
"""Bytes of JSON, and a quarter of the bytes of arrays, from which a thread reads and writes them."""
_LARGE: Final = 1024 * 1024
_LARGE_AT_ONCE: Final = 2


@dataclass(frozen=True)
class RestOptions:
    """How REST is served; names and defaults of the original's flags.

    Attributes:
        timeout_in_ms: milliseconds that an inference may take (``rest_api_timeout_in_ms``); 0: any time.
        enable_cors_support: whether pages of any origin may ask.
        metrics_path: where metrics are (``monitoring_config_file``); None: nowhere.
        with_openapi: whether the API is described.
    """

    timeout_in_ms: int = 30_000
    enable_cors_support: bool = False
    metrics_path: str | None = None
    with_openapi: bool = True


@dataclass(slots=True)
class _Call:
    """A request that is being answered, and what is known of it by now."""

    request: Request
    started: float
    method: Method = ""
    loaded: LoadedServable | None = None
    model: str = ""
    signature: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=())


class RestFront:
    """Answers HTTP requests."""

    def __init__(
        self,
        manager: ModelManager,
        scheduler: Scheduler,
        options: RestOptions | None = None,
        *,
        tensor_bytes: int,
        check_method_names: bool = False,
        observe: Observe | None = None,
        metrics: Callable[[], str] | None = None,
        quotes: Quotes | None = None,
    ) -> None:
        """Prepare, within the event loop that is to serve.

        Args:
            manager: knows the models.
            scheduler: computes.
            options: see there.
            tensor_bytes: most bytes that examples may take, each with the context.
            check_method_names: whether Classify and Regress take only signatures that say they are for that.
            observe: told of each request.
            metrics: makes the page of metrics.
            quotes: makes quotes of this enclave.
        """
        self._manager, self._scheduler = manager, scheduler
        self._options = options or RestOptions()
        self._tensor_bytes, self._check_method_names = tensor_bytes, check_method_names
        self._observe, self._metrics, self._quotes = observe, metrics, quotes
        self._loop = asyncio.get_running_loop()
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._cors = _CORS if self._options.enable_cors_support else ()

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a request, at once if nothing has to be computed."""
        target, method = request.target, "GET" if request.method == "HEAD" else request.method
        if not _ANY_PATH.fullmatch(target):
            if self._quotes is not None and (method, target) == ("POST", QUOTE_PATH):
                return self._quote(request, self._quotes)
            return self._beside(target, method)
        call = _Call(request, self._loop.time(), headers=self._cors)
        if method == "OPTIONS":
            return self._preflight(call)
        try:
            if method == "POST" and (match := _POST_PATH.fullmatch(target)):
                call.method = _METHODS[match["method"].lower()]
                return self._inference(call, _spec(match), match["method"].lower())
            if method == "GET" and (match := _GET_PATH.fullmatch(target)):
                return self._done(
                    call, _dump(self._metadata(call, match) if match["sub"] else self._status(call, match))
                )
            if method == "GET" and _LIST_PATH.fullmatch(target):
                raise invalid("Missing model name in request.")
            raise invalid(f"Malformed request: {request.method} {target}")
        except RequestError as error:
            return self._failed(call, error)

    def refused(self, error: HttpError) -> Response:
        """The answer to what HTTP itself refuses."""
        response = _error(error.status, error.problem)
        if self._observe is not None:
            code = _CODES.get(error.status, Code.INVALID_ARGUMENT)
            sent = len(response.body)
            self._observe(Answered("REST", "", "", None, "", code, error.status, 0.0, 0, sent, ""))
        return response

    # Beside the API.

    def _beside(self, target: str, method: str) -> Response:
        path = target.partition("?")[0]
        options = self._options
        if self._metrics is not None and path == options.metrics_path:
            if target != path:
                text = f"Unexpected path: {target}. Should be {path}"
                return Response(400, text.encode("latin-1"), "text/plain; charset=utf-8")
            return Response(200, self._metrics().encode(), _PLAIN)
        if options.with_openapi and path == OPENAPI_PATH and method == "GET":
            return Response(200, describe(self._manager), headers=self._cors)
        return _error(404, "Not found: the API is below /v1/models")

    async def _quote(self, request: Request, quotes: Quotes) -> Response:
        try:
            quote = await quotes.over(request.channel, _nonce(request.body))
        except RequestError as error:
            return _error(_HTTP_STATUS.get(error.code, 500), error.problem)
        return Response(200, _dump({"quote": b64encode(quote).decode()}))

    def _preflight(self, call: _Call) -> Response:
        # Neither answer has a body, as in the original.
        status = 200 if _ORIGIN.search(call.request.fields.get("origin", "")) else 400
        return Response(status, content_type="", headers=call.headers)

    # The API.

    async def _inference(self, call: _Call, spec: Any, method: str) -> Response:
        timeout = self._options.timeout_in_ms
        try:
            async with asyncio.timeout(timeout / 1000 if timeout > 0 else None):
                body = await (self._predict(call, spec) if method == "predict" else self._example(call, spec, method))
        except RequestError as error:
            return self._failed(call, error)
        except TimeoutError:
            # What a session says that ran for too long (tensorflow/core/common_runtime/direct_session.cc).
            return self._failed(call, RequestError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification"))
        except Exception as error:
            return self._failed(call, RequestError(Code.INTERNAL, unforeseen(error)))
        return self._done(call, body)

    async def _predict(self, call: _Call, spec: Any) -> bytes:
        body = call.request.body
        if len(body) <= _IN_LOOP:
            signature, inputs, form = self._read(call, spec, body)
        elif len(body) <= _LARGE:
            signature, inputs, form = await asyncio.to_thread(self._read, call, spec, body)
        else:
            # Values take many times the memory of their text: few large texts are read at once.
            async with self._large:
                signature, inputs, form = await asyncio.to_thread(self._read, call, spec, body)
        assert call.loaded is not None
        outputs = await self._scheduler.predict(call.loaded, signature.name, inputs)
        if sum(array.nbytes for array in outputs.values()) <= _IN_LOOP // 4:
            return outputs_to_json(outputs, form)
        return await asyncio.to_thread(outputs_to_json, outputs, form)

    def _read(self, call: _Call, spec: Any, body: bytes) -> Any:
        document = parse_body(body)
        loaded = call.loaded = self._resolve(call, spec)
        signature, inputs, form = inputs_from_json(document, loaded.servable.signatures)
        call.signature = signature.name
        return signature, inputs, form

    async def _example(self, call: _Call, spec: Any, method: str) -> bytes:
        with suppress(RequestError):
            # Only to be told of: what answers has its own order of checks.
            call.loaded = self._resolve(call, spec)
        return await answer_examples_json(
            method,
            self._manager,
            self._scheduler,
            spec,
            call.request.body,
            tensor_bytes=self._tensor_bytes,
            check_method_name=self._check_method_names,
        )

    def _resolve(self, call: _Call, spec: Any) -> LoadedServable:
        loaded = resolve(self._manager, spec)
        call.model = loaded.name
        return loaded

    def _status(self, call: _Call, match: re.Match[str]) -> Any:
        call.method = "GetModelStatus"
        spec = _spec(match)
        response = answer_status(self._manager, GetModelStatusRequest(model_spec=spec))
        call.model = spec.name
        return MessageToDict(response, always_print_fields_with_no_presence=True)

    def _metadata(self, call: _Call, match: re.Match[str]) -> Any:
        call.method = "GetModelMetadata"
        request = GetModelMetadataRequest(model_spec=_spec(match), metadata_field=[METADATA_FIELD])
        response = answer_metadata(self._manager, request)
        call.model = response.model_spec.name
        signatures = SignatureDefMap()
        response.metadata[METADATA_FIELD].Unpack(signatures)
        spec, described = (
            MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
            for message in (response.model_spec, signatures)
        )
        return {"model_spec": spec, "metadata": {METADATA_FIELD: described}}

    # Answers.

    def _done(self, call: _Call, body: bytes) -> Response:
        return self._told(call, Code.OK, Response(200, body, headers=call.headers))

    def _failed(self, call: _Call, error: RequestError) -> Response:
        return self._told(call, error.code, _error(_HTTP_STATUS.get(error.code, 500), error.problem, call.headers))

    def _told(self, call: _Call, code: Code, response: Response) -> Response:
        if self._observe is not None:
            request, loaded = call.request, call.loaded
            self._observe(
                Answered(
                    "REST",
                    call.method,
                    call.model,
                    loaded.version if loaded is not None else None,
                    call.signature,
                    code,
                    response.status,
                    self._loop.time() - call.started,
                    request.received,
                    len(response.body),
                    request.peer,
                )
            )
        return response


def _error(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    # Cut as gRPC's are: some texts quote names, which clients can make as long as their requests.
    text = text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "...TRUNCATED"
    return Response(status, _dump({"error": text}), headers=headers)


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _nonce(body: bytes) -> bytes:
    document = parse_body(body)
    nonce = document.get("nonce") if len(document) == 1 else None
    try:
        return b64decode(nonce, validate=True) if isinstance(nonce, str) else b""
    except ValueError:
        return b""


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
