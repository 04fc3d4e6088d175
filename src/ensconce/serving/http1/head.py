"""The head of a request (RFC 9112, sections 2 to 6), judged more strictly than must be.

Whoever stands before this server may read doubtful bytes otherwise than it does, and so find other requests in them.
So nothing doubtful is accepted: lines end in CRLF, fields are not folded, and there is one length or one coding, never
both.
The expressions match without backtracking: each repeated class excludes what follows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError

__all__ = ["Head", "parse_fields", "parse_head"]

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)\r\n")
_ORIGIN: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_LONGEST_LENGTH: Final = 18
# Fields of which a second one would be a second opinion.
_SINGLE: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "content-encoding", "content-type", "expect"}
)


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says before its body.

    Attributes:
        method: a token.
        target: path and query; what of an absolute form comes after the host.
        fields: by lower-case name; a repeated one joined with commas.
        length: of the body in bytes; None when it comes in chunks.
        keep_alive: whether the client may ask again on this connection.
        expects_continue: whether it waits for leave to send the body.
    """

    method: str
    target: str
    fields: dict[str, str]
    length: int | None
    keep_alive: bool
    expects_continue: bool


def parse_head(data: bytes, limits: Http1Limits) -> Head:
    """Read a head.

    Args:
        data: from the request line to the empty line, with both.
        limits: see there.

    Raises:
        HttpError: 400, 414, 417, 431, 501 or 505.
    """
    line = _LINE.match(data)
    if line is None or line.end() > limits.line_bytes:
        if data.find(b"\r\n") + 2 > limits.line_bytes:
            raise HttpError(414, f"The request line is longer than {limits.line_bytes} bytes")
        raise HttpError(400, "The request line is malformed")
    if line[3] != b"1" or line[4] not in b"01":
        raise HttpError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here")
    fields = parse_fields(data, line.end(), limits.fields)
    recent = line[4] == b"1"
    if recent and "host" not in fields:
        raise HttpError(400, "The Host field is missing")
    connection = fields.get("connection", "").lower()
    options = {option.strip() for option in connection.split(",")} if connection else ()
    expect = fields.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise HttpError(417, "The only expectation that can be met is 100-continue")
    return Head(
        line[1].decode(),
        _path(line[2].decode()),
        fields,
        _length(fields, recent=recent),
        "close" not in options if recent else "keep-alive" in options,
        recent and expect is not None,
    )


def _path(target: str) -> str:
    """What names the resource here, in a target of any form (section 3.2)."""
    if target.startswith("/"):
        return target
    origin = _ORIGIN.match(target)
    return (target[origin.end() :] or "/") if origin else target


def parse_fields(data: bytes, at: int, most: int) -> dict[str, str]:
    """Field lines, from ``at`` to the empty line that ends ``data``.

    Raises:
        HttpError: 400 or 431.
    """
    fields: dict[str, str] = {}
    count, end = 0, len(data) - 2
    while at < end:
        field = _FIELD.match(data, at)
        if field is None:
            raise HttpError(400, "A header field is malformed")
        at = field.end()
        count += 1
        if count > most:
            raise HttpError(431, f"There are more than {most} header fields")
        name, value = field[1].decode().lower(), field[2].strip(b"\t ").decode("latin-1")
        if name in fields:
            if name in _SINGLE:
                raise HttpError(400, f"There are two fields {name}")
            value = f"{fields[name]}, {value}"
        fields[name] = value
    return fields


def _length(fields: dict[str, str], *, recent: bool) -> int | None:
    """Bytes of the body; None: chunks (section 6.3)."""
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if coding is not None:
        if length is not None:
            raise HttpError(400, "Content-Length and Transfer-Encoding exclude each other")
        if not recent:
            raise HttpError(400, "HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != "chunked":
            raise HttpError(501, "The only transfer coding that is understood is chunked")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise HttpError(400, "Content-Length is no number")
    if len(length) > _LONGEST_LENGTH:
        raise HttpError(413, "Content-Length is too large")
    return int(length)
