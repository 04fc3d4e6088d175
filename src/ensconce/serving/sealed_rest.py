"""Sealed requests over REST: the front behind :class:`ensconce.serving.sealing.Sealing`."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Final

from ensconce.ratls.sealing import KEY_HEADER, MEDIA_TYPE, SEALING_KEY_PATH
from ensconce.serving.http1.messages import Request, Response
from ensconce.serving.sealing import Sealing
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["unsealing"]

Handler = Callable[[Request], Response | Awaitable[Response]]

# RFC 9110, section 15.5.20: 421 is for who cannot answer this, though another server at the address can.
_STATUS: Final = {Code.FAILED_PRECONDITION: 421, Code.INVALID_ARGUMENT: 400, Code.ALREADY_EXISTS: 409}


def unsealing(sealing: Sealing, handle: Handler) -> Handler:
    """A handler that opens what is sealed before ``handle`` sees it, seals the answers, and tells the key."""

    def answer(request: Request) -> Response | Awaitable[Response]:
        if request.target == SEALING_KEY_PATH and request.method == "GET":
            return Response(200, _statement(sealing))
        key = request.fields.get(KEY_HEADER)
        if key is not None:
            return sealed(request, key)
        if sealing.required and request.method == "POST" and request.target.lower().startswith("/v1/"):
            return _error(403, "This server takes sealed predictions only")
        return handle(request)

    async def sealed(request: Request, key: str) -> Response:
        if request.method != "POST":
            return _error(400, "Only POST can be sealed")

        async def plain(body: bytes) -> tuple[int, bytes]:
            # No field of the outer request says anything of the inner one: anybody between could have changed it.
            response = handle(replace(request, body=body, fields={"content-type": "application/json"}))
            if not isinstance(response, Response):
                response = await response
            return response.status, response.body

        try:
            body = await sealing.answer(key, "rest", request.target, request.body, plain)
        except RequestError as error:
            return _error(_STATUS[error.code], error.problem)
        return Response(200, body, MEDIA_TYPE)

    return answer


def _statement(sealing: Sealing) -> bytes:
    fields = asdict(sealing.statement)
    return json.dumps({name: b64encode(value).decode() for name, value in fields.items()}).encode()


def _error(status: int, text: str) -> Response:
    return Response(status, json.dumps({"error": text}).encode())
