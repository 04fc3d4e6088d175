"""Why a call was not passed on, as gRPC and REST say it."""

from __future__ import annotations

import ipaddress
import json
from http import HTTPStatus
from typing import Final

from ensconce.errors import EnsconceError, EvidenceError, RefusedError, UnreachableError
from ensconce.serving.http1.messages import HttpError, Request, Response
from ensconce.serving.http2.frames import ErrorCode
from ensconce.tfserving.refusal import Code

__all__ = ["check_host", "code_of", "code_of_reset", "cut", "refused", "response_of"]

# grpc/doc/PROTOCOL-HTTP2.md, "Errors".
_RESETS: Final = {
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


def cut() -> UnreachableError:
    """The connection to a replica was lost during a call.

    A new error for each: one that is raised again keeps all the frames that it was raised through before, and with
    them the requests.
    """
    return UnreachableError(
        "proxy.connection",
        "the connection to the replica was lost during the call",
        remedy="make the call again: it goes to a replica that is there",
    )


def code_of(error: EnsconceError) -> Code:
    """The status of a call that is not passed on.

    A refused replica is FAILED_PRECONDITION: to call again changes nothing before somebody has changed the replica or
    the policy (grpc/doc/statuscodes.md), and gRPC's clients do not.
    """
    if isinstance(error, UnreachableError):
        return Code.UNAVAILABLE
    return Code.FAILED_PRECONDITION if isinstance(error, EvidenceError | RefusedError) else Code.INTERNAL


def code_of_reset(code: ErrorCode) -> Code:
    """The status of a call whose stream a replica has reset."""
    return _RESETS.get(code, Code.INTERNAL)


def response_of(error: EnsconceError) -> Response:
    """The answer to a request that is not passed on: TensorFlow Serving's ``error``, and the error's fields."""
    match code_of(error):
        case Code.UNAVAILABLE:
            status = HTTPStatus.SERVICE_UNAVAILABLE
        case Code.FAILED_PRECONDITION:
            status = HTTPStatus.BAD_GATEWAY
        case _:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
    return Response(status, json.dumps({"error": str(error), "refusal": error.fields()}).encode())


def refused(error: HttpError) -> Response:
    """The answer to a request that is refused before anybody is asked."""
    return Response(error.status, json.dumps({"error": error.problem}).encode())


def check_host(request: Request) -> None:
    """Refuse a request under a name that is not this machine's.

    A web page that is shown here could have its own name stand for our address (DNS rebinding), and would be answered.

    Raises:
        HttpError: 421.
    """
    host = request.fields.get("host", "")
    name, _, port = host.rpartition(":")
    if not name or not port.isdecimal():
        name = host
    name = name.removeprefix("[").removesuffix("]").lower()
    if name in ("localhost", ""):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise HttpError(421, "This proxy is asked for as localhost, or by its address") from None
