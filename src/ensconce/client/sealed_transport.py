"""A transport for httpx over one that ends at a load balancer: what is posted is sealed to an accepted enclave."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Final

import httpx

from ensconce.client.channel import MAX_MESSAGE
from ensconce.client.sealed import MAX_CERTIFICATE, Sealer, not_sealing
from ensconce.client.service import Service
from ensconce.errors import InputError, UnreachableError
from ensconce.ratls.sealing import MEDIA_TYPE, SEALING_KEY_PATH, Statement

__all__ = ["SealedTransport", "sealed_transport"]

_MOST_STATEMENT: Final = 2 * MAX_CERTIFICATE
_OTHER_KEY: Final = 421


def sealed_transport(transport: httpx.BaseTransport, service: Service, base_url: str) -> SealedTransport:
    """Seal what is posted over a transport; the key of a replica has been accepted when this returns.

    Args:
        transport: to the balancer, with whatever TLS that has, e.g. ``httpx.HTTPTransport()``; closed with the one that
            is returned.
        service: whom to believe.
        base_url: where the service is, e.g. ``https://balancer``; other URLs are refused.

    Raises:
        InputError: ``sealed.freshness``, see :class:`ensconce.client.sealed.Sealer`.
        UnreachableError: ``sealed.none``: nobody names a key.
        EvidenceError, RefusedError: see :func:`ensconce.client.sealed.judge_statement`.
    """
    made = SealedTransport(transport, service, httpx.URL(base_url))
    _ = made.sealer.key
    return made


class SealedTransport(httpx.BaseTransport):
    """Made by :func:`sealed_transport`. POST only; the others are refused.

    Attributes:
        sealer: has the key.
    """

    def __init__(self, transport: httpx.BaseTransport, service: Service, base_url: httpx.URL) -> None:
        self._transport, self._base_url = transport, base_url
        self.sealer = Sealer(service, self._ask_key)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Seal, send, open.

        Raises:
            InputError: ``sealed.kind``: this is no POST to the service.
            UnreachableError: ``sealed.refused``: what answers in the clear is an error.
            EvidenceError, RefusedError, UnreachableError: see :meth:`ensconce.client.sealed.Sealer.ask`.
        """
        url = request.url
        here = (self._base_url.scheme, self._base_url.host, self._base_url.port)
        if request.method != "POST" or (url.scheme, url.host, url.port) != here:
            raise InputError(
                "sealed.kind", "this request cannot be sealed", found=request.method, rule=f"POST to {self._base_url}"
            )
        timeout = {"timeout": request.extensions["timeout"]} if "timeout" in request.extensions else {}

        def send(fields: dict[str, str], sealed: bytes) -> tuple[None, bytes] | None:
            fields = {**fields, "content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
            outer = httpx.Request("POST", url, headers=fields, content=sealed, extensions=timeout)
            status, answer = self._send(outer, MAX_MESSAGE)
            if status == _OTHER_KEY:
                return None
            if status != httpx.codes.OK:
                # Said in the clear: by somebody between, or about the sealing itself.
                raise UnreachableError(
                    "sealed.refused",
                    "the request was refused before the enclave opened it, or it could not be opened",
                    found=f"HTTP {status}: {answer[:200].decode('utf-8', 'replace')}",
                )
            return None, answer

        path = url.raw_path.decode("ascii")
        _, status, body = self.sealer.ask("rest", path, request.read(), send)
        return httpx.Response(status, headers={"content-type": "application/json"}, content=body, request=request)

    def close(self) -> None:
        """Close the transport below, too."""
        self._transport.close()

    def _ask_key(self, fields: dict[str, str]) -> Statement:
        url = self._base_url.copy_with(raw_path=SEALING_KEY_PATH.encode())
        timeout = httpx.Timeout(10).as_dict()
        status, body = self._send(
            httpx.Request("GET", url, headers=fields, extensions={"timeout": timeout}), _MOST_STATEMENT
        )
        if status != httpx.codes.OK:
            raise not_sealing(f"HTTP {status}")
        try:
            document = json.loads(body)
            certificate, key, signature = (
                b64decode(document[name], validate=True) for name in ("certificate", "key", "signature")
            )
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise not_sealing("an answer that cannot be read") from error
        return Statement(certificate, key, signature)

    def _send(self, request: httpx.Request, most: int) -> tuple[int, bytes]:
        response = self._transport.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        try:
            body = bytearray()
            for part in response.stream:
                body += part
                if len(body) > most:
                    raise UnreachableError(
                        "sealed.length", "the answer is too long", found=f"over {most} bytes", rule=f"{most} bytes"
                    )
        finally:
            response.close()
        return response.status_code, bytes(body)
