"""Sealed calls: a unary method behind :class:`ensconce.serving.sealing.Sealing`."""

from __future__ import annotations

from typing import Final

from ensconce.ratls.sealing import KEY_HEADER
from ensconce.serving.grpc.call import Message, Note, Streaming, Unary
from ensconce.serving.grpc.status import text_of
from ensconce.serving.http2.headers import Request
from ensconce.serving.sealing import Sealing
from ensconce.serving.unforeseen import unforeseen
from ensconce.tfserving.messages import PREDICTION_SERVICE
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["unsealed"]

_HEADER: Final = KEY_HEADER.encode()
_PREDICTIONS: Final = f"/{PREDICTION_SERVICE}/".encode()


def unsealed(sealing: Sealing, request: Request, method: Unary | Streaming | None) -> Unary | Streaming | None:
    """What answers a request: the method itself, or behind what opens and seals where the request says it is sealed.

    The answer to a sealed request tells its errors inside, as code and text; deadlines end it in the clear.

    Args:
        sealing: opens and seals.
        request: its header fields have arrived.
        method: of the path, if there is one.
    """
    key = request.fields.get(_HEADER)
    if key is None:
        if sealing.required and request.path.startswith(_PREDICTIONS):
            return _refuses(Code.PERMISSION_DENIED, "This server takes sealed predictions only")
        return method
    if method is None:
        return None
    if isinstance(method, Streaming):
        return _refuses(Code.UNIMPLEMENTED, "Streams cannot be sealed")
    return _opens(sealing, method, key.decode("ascii", "replace"), request.path.decode("ascii", "replace"))


def _refuses(code: Code, text: str) -> Unary:
    async def handle(_data: Message, _note: Note) -> bytes:
        raise RequestError(code, text)

    return Unary(handle)


def _opens(sealing: Sealing, method: Unary, key: str, path: str) -> Unary:
    async def handle(data: Message, note: Note) -> bytes:
        async def answer(body: memoryview) -> tuple[int, bytes]:
            try:
                return Code.OK, await method.handle(body, note)
            except RequestError as error:
                note.code, text = error.code, error.problem
            except Exception as error:
                note.code, text = Code.INTERNAL, unforeseen(error)
            return note.code, text_of(text).encode("utf-8", "replace")

        return await sealing.answer(key, "grpc", path, data, answer)

    return Unary(handle, method.name)
