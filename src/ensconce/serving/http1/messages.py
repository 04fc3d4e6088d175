"""A request and a response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ensconce.errors import EnsconceError
from ensconce.serving.tls_object import TlsObject

__all__ = ["HttpError", "Request", "Response"]

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}


class HttpError(EnsconceError):
    """A request that HTTP itself, or one of its limits, refuses; ``status`` is the answer's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__("serving.http", text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has arrived whole.

    Attributes:
        method: e.g. ``POST``.
        target: path and query, as sent.
        fields: header fields by lower-case name; a repeated one joined with commas.
        body: without chunks and content coding.
        received: bytes of the body as they came.
        peer: the address that it came from, with port; "local" for a UNIX socket.
        channel: the TLS connection that it came on, if it is one.
    """

    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes
    received: int = 0
    peer: str = ""
    channel: TlsObject | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Attributes:
        status: of HTTP.
        body: of the answer.
        content_type: of the body; none is named when empty.
        headers: further fields, names in lower case.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def head(self, *, date: bytes, close: bool, coding: str = "", length: int) -> bytes:
        """The status line and the header fields, with the empty line that ends them."""
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}"]
        if self.content_type:
            lines.append(f"content-type: {self.content_type}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if coding:
            lines.append(f"content-encoding: {coding}")
        lines.append(f"content-length: {length}")
        if close:
            lines.append("connection: close")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n" + date + b"\r\n"
