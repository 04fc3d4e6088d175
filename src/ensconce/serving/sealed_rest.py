"""Sealed requests over REST: the front behind :class:`ensconce.serving.sealing.Sealing`."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Final

from ensconce.ratls.sealing import KEY_HEADER, MEDIA_TYPE, SEALING_KEY_PATH
from ensconce.serving.fresh_keys import FreshKeys
from ensconce.serving.http1.messages import Request, Response
from ensconce.serving.sealing import Sealing
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["unsealing"]

Handler = Callable[[Request], Response | Awaitable[Response]]

# RFC 9110, section 15.5.20: 421 is for who cannot answer this, though another server at the address can.
_STATUS: Final = {Code.FAILED_PRECONDITION: 421, Code.INVALID_ARGUMENT: 400, Code.ALREADY_EXISTS: 409}
_KEY_STATUS: Final = {
    Code.INVALID_ARGUMENT: 400,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
}
_DIGITS: Final = re.compile("[0-9a-f]{64}")


def unsealing(sealing: Sealing, keys: FreshKeys, handle: Handler) -> Handler:
    """A handler that opens what is sealed before ``handle`` sees it, seals the answers, and tells the key.

    Args:
        sealing: opens and seals.
        keys: tells the key: ``GET`` at its path, with ``?nonce=`` and 64 hexadecimal digits for a fresh quote.
        handle: answers what was opened, and what is not sealed.
    """

    def answer(request: Request) -> Response | Awaitable[Response]:
        path, _, query = request.target.partition("?")
        if path == SEALING_KEY_PATH and request.method == "GET":
            return tell(query)
        key = request.fields.get(KEY_HEADER)
        if key is not None:
            return sealed(request, key)
        if sealing.required and request.method == "POST" and request.target.lower().startswith("/v1/"):
            return _error(403, "This server takes sealed predictions only")
        return handle(request)

    async def tell(query: str) -> Response:
        try:
            statement = await keys.statement(_nonce(query))
        except RequestError as error:
            return _error(_KEY_STATUS[error.code], error.problem)
        fields = {name: b64encode(value).decode() for name, value in asdict(statement).items()}
        return Response(200, json.dumps(fields).encode())

    async def sealed(request: Request, key: str) -> Response:
        if request.method != "POST":
            return _error(400, "Only POST can be sealed")

        async def plain(body: memoryview) -> tuple[int, bytes]:
            # No field of the outer request says anything of the inner one: anybody between could have changed it.
            response = handle(replace(request, body=bytes(body), fields={"content-type": "application/json"}))
            if not isinstance(response, Response):
                response = await response
            return response.status, response.body

        try:
            body = await sealing.answer(key, "rest", request.target, request.body, plain)
        except RequestError as error:
            return _error(_STATUS[error.code], error.problem)
        return Response(200, body, MEDIA_TYPE)

    return answer


def _nonce(query: str) -> bytes:
    """32 bytes, or none; what is neither becomes a nonce that is refused."""
    if not query:
        return b""
    name, _, digits = query.partition("=")
    return bytes.fromhex(digits) if name == "nonce" and _DIGITS.fullmatch(digits) else b"?"


def _error(status: int, text: str) -> Response:
    return Response(status, json.dumps({"error": text}).encode())
