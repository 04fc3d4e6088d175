"""Transports for httpx over ones that end at a load balancer: what is posted is sealed to accepted enclaves."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import fields
from typing import Final

import httpx

from ensconce.client.channel import MAX_MESSAGE
from ensconce.client.pool import CONNECTIONS
from ensconce.client.routes import open_async_routes, open_routes
from ensconce.client.sealed import KEY_TIMEOUT_S, MAX_CERTIFICATE, Sealed, Sealer, not_sealing, refused, sealers
from ensconce.client.service import Service
from ensconce.client.transport import AsyncAttestedTransport, AttestedTransport
from ensconce.errors import InputError, UnreachableError
from ensconce.ratls.sealing import MEDIA_TYPE, SEALING_KEY_PATH, Statement

__all__ = ["async_sealed_transport", "sealed_transport"]

_MOST_STATEMENT: Final = 2 * MAX_CERTIFICATE
_OTHER_KEY: Final = 421
_FIELDS: Final = tuple(each.name for each in fields(Statement))
_KEY_TIMEOUT: Final = httpx.Timeout(KEY_TIMEOUT_S).as_dict()


def sealed_transport(
    transport: httpx.BaseTransport, service: Service, base_url: str, *, routes: int = CONNECTIONS
) -> AttestedTransport:
    """Seal what is posted over a transport; a replica's key has been accepted when this returns.

    Requests raise, beside what :meth:`ensconce.client.sealed.Sealer.ask` raises, InputError ``sealed.kind`` if they are
    no POST to the service, and UnreachableError ``sealed.refused`` where what answers in the clear is an error.

    Args:
        transport: to the balancer, with whatever TLS that has, e.g. ``httpx.HTTPTransport()``; closed with the one that
            is returned.
        service: whom to believe; where it is reached is the transport's matter.
        base_url: where the service is, e.g. ``https://balancer``; other URLs are refused.
        routes: how many ways through the balancer share the requests.

    Raises:
        InputError: ``sealed.routes``, see :func:`ensconce.client.sealed.sealers`.
        UnreachableError: ``sealed.none``: nobody names a key.
        EvidenceError, RefusedError: see :func:`ensconce.client.sealed.judge_statement`.
    """
    url = httpx.URL(base_url)
    made = [_SealingTransport(transport, each, url) for each in sealers(service, routes)]
    return AttestedTransport(open_routes(made, transport.close))


async def async_sealed_transport(
    transport: httpx.AsyncBaseTransport, service: Service, base_url: str, *, routes: int = CONNECTIONS
) -> AsyncAttestedTransport:
    """As :func:`sealed_transport`, for ``httpx.AsyncClient``.

    Args:
        transport: see there; so are the others.
        service: see there.
        base_url: see there.
        routes: see there.

    Raises:
        InputError, UnreachableError, EvidenceError, RefusedError: as there.
    """
    url = httpx.URL(base_url)
    made = [_AsyncSealingTransport(transport, each, url) for each in sealers(service, routes)]
    return AsyncAttestedTransport(await open_async_routes(made))


class _SealingTransport(httpx.BaseTransport):
    """Over one route."""

    def __init__(self, transport: httpx.BaseTransport, sealer: Sealer, base_url: httpx.URL) -> None:
        self._transport, self.sealer, self._base_url = transport, sealer, base_url

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = _path_of(request, self._base_url)

        def send(sealed: Sealed) -> bytes | None:
            return _answer(*self._send(_outer(request, sealed), MAX_MESSAGE))

        return _response(self.sealer.ask("rest", path, request.read(), self.ask_key, send), request)

    def ask_key(self, nonce: bytes) -> Statement:
        return _statement(*self._send(_question(self._base_url, self.sealer, nonce), _MOST_STATEMENT))

    def _send(self, request: httpx.Request, most: int) -> tuple[int, bytes]:
        response = self._transport.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        body = bytearray()
        try:
            for part in response.stream:
                _add(body, part, most)
        finally:
            response.close()
        return response.status_code, bytes(body)


class _AsyncSealingTransport(httpx.AsyncBaseTransport):
    """Over one route."""

    def __init__(self, transport: httpx.AsyncBaseTransport, sealer: Sealer, base_url: httpx.URL) -> None:
        self._transport, self.sealer, self._base_url = transport, sealer, base_url

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = _path_of(request, self._base_url)

        async def send(sealed: Sealed) -> bytes | None:
            return _answer(*await self._send(_outer(request, sealed), MAX_MESSAGE))

        return _response(await self.sealer.ask_async("rest", path, await request.aread(), self.ask_key, send), request)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def ask_key(self, nonce: bytes) -> Statement:
        return _statement(*await self._send(_question(self._base_url, self.sealer, nonce), _MOST_STATEMENT))

    async def _send(self, request: httpx.Request, most: int) -> tuple[int, bytes]:
        response = await self._transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = bytearray()
        try:
            async for part in response.stream:
                _add(body, part, most)
        finally:
            await response.aclose()
        return response.status_code, bytes(body)


def _path_of(request: httpx.Request, base_url: httpx.URL) -> str:
    url = request.url
    here = (base_url.scheme, base_url.host, base_url.port)
    if request.method != "POST" or (url.scheme, url.host, url.port) != here:
        raise InputError(
            "sealed.kind", "this request cannot be sealed", found=request.method, rule=f"POST to {base_url}"
        )
    return url.raw_path.decode("ascii")


def _outer(request: httpx.Request, sealed: Sealed) -> httpx.Request:
    # Nothing of the inner request's header: it would be in the clear.
    header = {**sealed.fields, "content-type": MEDIA_TYPE, "accept": MEDIA_TYPE, "accept-encoding": "identity"}
    timeout = {"timeout": request.extensions["timeout"]} if "timeout" in request.extensions else {}
    return httpx.Request("POST", request.url, headers=header, content=sealed.body, extensions=timeout)


def _answer(status: int, body: bytes) -> bytes | None:
    if status == _OTHER_KEY:
        return None
    if status != httpx.codes.OK:
        raise refused(f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}")
    return body


def _response(answer: tuple[int, bytes], request: httpx.Request) -> httpx.Response:
    status, body = answer
    return httpx.Response(status, headers={"content-type": "application/json"}, content=body, request=request)


def _question(base_url: httpx.URL, sealer: Sealer, nonce: bytes) -> httpx.Request:
    query = f"?nonce={nonce.hex()}" if nonce else ""
    url = base_url.copy_with(raw_path=f"{SEALING_KEY_PATH}{query}".encode())
    return httpx.Request("GET", url, headers=sealer.route, extensions={"timeout": _KEY_TIMEOUT})


def _statement(status: int, body: bytes) -> Statement:
    if status != httpx.codes.OK:
        raise not_sealing(f"HTTP {status}")
    try:
        document = json.loads(body)
        statement = Statement(**{name: b64decode(document[name], validate=True) for name in _FIELDS})
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise not_sealing("an answer that cannot be read") from error
    return statement


def _add(body: bytearray, part: bytes, most: int) -> None:
    body += part
    if len(body) > most:
        raise UnreachableError(
            "sealed.length", "the answer is too long", found=f"over {most} bytes", rule=f"{most} bytes"
        )
