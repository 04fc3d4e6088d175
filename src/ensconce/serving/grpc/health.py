"""The standard health service (grpc/doc/health-checking.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass

from ensconce.serving.grpc.call import Message, Note, Streaming, Unary
from ensconce.serving.grpc.messages import parse, serialize
from ensconce.tfserving.messages import POOL
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["HEALTH_SERVICE", "Health"]

HEALTH_SERVICE: Final = "grpc.health.v1.Health"


def _message(name: str) -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(f"grpc.health.v1.{name}"))


_CheckRequest: Final = _message("HealthCheckRequest")
_CheckResponse: Final = _message("HealthCheckResponse")
_ListResponse: Final = _message("HealthListResponse")
_SERVING: Final = 1
_NOT_SERVING: Final = 2
_SERVICE_UNKNOWN: Final = 3
_MOST: Final = 100
"""Fields of a question, which has one."""


class Health:
    """Says of each service whether it is served: all are, or none."""

    def __init__(self, services: tuple[str, ...]) -> None:
        """Serve them, and "", which stands for all."""
        self._services = {"": _SERVING} | dict.fromkeys(services, _SERVING)
        self._changed = asyncio.Event()

    def tell(self, *, serving: bool) -> None:
        """Whether anything is served has changed, and whoever watches learns it."""
        self._services = dict.fromkeys(self._services, _SERVING if serving else _NOT_SERVING)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def methods(self) -> dict[str, Unary | Streaming]:
        """The service's methods by name."""
        return {"Check": Unary(self._check), "List": Unary(self._list), "Watch": Streaming(self._watch)}

    async def _check(self, data: Message, _note: Note) -> bytes:
        status = self._services.get(parse(_CheckRequest, data, most=_MOST).service)
        if status is None:
            raise RequestError(Code.NOT_FOUND, "")
        return serialize(_CheckResponse(status=status))

    async def _list(self, _data: Message, _note: Note) -> bytes:
        return serialize(
            _ListResponse(statuses={name: _CheckResponse(status=status) for name, status in self._services.items()})
        )

    async def _watch(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for data in messages:
            service = parse(_CheckRequest, data, most=_MOST).service
            while True:
                changed = self._changed
                yield serialize(_CheckResponse(status=self._services.get(service, _SERVICE_UNKNOWN)))
                await changed.wait()
        raise RequestError(Code.UNIMPLEMENTED, "This method takes exactly one message")
