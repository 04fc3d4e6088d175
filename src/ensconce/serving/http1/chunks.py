"""A chunked body (RFC 9112, section 7.1), as it arrives."""

from __future__ import annotations

import re
from typing import Final

from ensconce.serving.http1.head import parse_fields
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError

__all__ = ["Chunks"]

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~]*)?\r\n")
_LONGEST_LINE: Final = 256
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "host"})
# How much a body may cost beyond what it brings: a chunk of one byte costs five others.
_FREE_OVERHEAD: Final = 16 * 1024
_OVERHEAD_PER_BYTE: Final = 16


class Chunks:
    """Takes bytes from the wire, gives those of the body; extensions and trailers are checked and forgotten."""

    def __init__(self, limits: Http1Limits) -> None:
        """Begin before the first chunk."""
        self._limits = limits
        self._left = 0
        """Bytes of the chunk that are still to come, the CRLF after them included; 0: a line is to come."""
        self._rest = b""
        self._in_trailers = False
        self._seen = self._brought = 0
        self.is_done = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Take some bytes.

        Returns:
            parts of the body; and, once :attr:`is_done`, what came after it.

        Raises:
            HttpError: 400; or 413 or 431, the framing is out of proportion to the body, or trailers are too long.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        parts: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self._in_trailers:
            at = self._chunk(data, at, parts) if self._left else self._line(data, at)
            if self._rest:
                return parts, b""
        if self._in_trailers:
            return parts, self._trailers(data, at)
        return parts, b""

    def _chunk(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """As much of a chunk as is here, and of the CRLF that ends it."""
        if self._left > 2:
            part = data[at : at + self._left - 2]
            parts.append(part)
            self._brought += len(part)
            self._left -= len(part)
            at += len(part)
        if self._left <= 2:
            ending = data[at : at + self._left]
            if ending != b"\r\n"[2 - self._left :][: len(ending)]:
                raise HttpError(400, "A chunk does not end where it should")
            self._left -= len(ending)
            at += len(ending)
        return at

    def _line(self, data: bytes, at: int) -> int:
        """A line with a chunk's size."""
        end = data.find(b"\n", at, at + _LONGEST_LINE)
        if end < 0:
            if len(data) - at >= _LONGEST_LINE:
                raise HttpError(400, "A chunk's size has no end")
            self._rest = data[at:]
            return len(data)
        line = _SIZE.fullmatch(data, at, end + 1)
        if line is None:
            raise HttpError(400, "A chunk's size is malformed")
        self._seen += line.end() - at + 2
        if self._seen > _FREE_OVERHEAD + _OVERHEAD_PER_BYTE * self._brought:
            raise HttpError(413, "The chunks are out of proportion to what they bring")
        number = int(line[1], 16)
        if number:
            self._left = number + 2
        else:
            self._in_trailers = True
        return end + 1

    def _trailers(self, data: bytes, at: int) -> bytes:
        most = self._limits.header_bytes
        if data.startswith(b"\r\n", at):
            self.is_done = True
            return data[at + 2 :]
        end = data.find(b"\r\n\r\n", at, at + most)
        if end < 0:
            if len(data) - at >= most:
                raise HttpError(431, f"The trailers are longer than {most} bytes")
            self._rest = data[at:]
            return b""
        if not _FRAMING.isdisjoint(parse_fields(data[at : end + 4], 0, self._limits.fields)):
            raise HttpError(400, "The trailers say where the body ends")
        self.is_done = True
        return data[end + 4 :]
