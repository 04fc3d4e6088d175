"""The one thing that a pass-through reads: the server name in a TLS ClientHello.

Format: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3. The hello may be spread over several records. Extensions
that are unknown (GREASE, RFC 8701; Encrypted ClientHello, whose outer name is what counts here) are skipped unread.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Literal

from ensconce.errors import UnreachableError

__all__ = ["MAX_HELLO", "NEED_MORE", "NeedMore", "parse_sni"]

MAX_HELLO = 16 * 1024
"""Longest ClientHello that is read, in bytes as they come over the wire; post-quantum key shares need about 2 KiB."""

# A hello in one-byte records would make the reader walk the same records over and over.
_MAX_RECORDS = 128
_MAX_RECORD = 1 << 14

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME = 0
_NAME = re.compile(rb"(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


class NeedMore(Enum):
    """The hello is not complete yet."""

    NEED_MORE = "need more"


NEED_MORE: Final = NeedMore.NEED_MORE


def parse_sni(data: bytes) -> str | Literal[NeedMore.NEED_MORE] | None:
    """Read the server name from the first bytes of a connection.

    Args:
        data: all that the client has sent so far.

    Returns:
        The name in lower case; ``None`` when the hello is complete and names no server; ``NEED_MORE`` when it is not
        complete.

    Raises:
        UnreachableError: check ``tls.client_hello``; this is no ClientHello, a malformed one, or one too long.
    """
    handshake = _handshake(data)
    if handshake is NEED_MORE:
        return NEED_MORE
    return _server_name(handshake)


def _malformed(problem: str, found: str | None = None) -> UnreachableError:
    return UnreachableError(
        "tls.client_hello",
        f"the connection does not begin with a TLS ClientHello that can be routed: {problem}",
        found=found,
        rule="RFC 8446 section 4.1.2",
        remedy="connect with TLS, and name the service's domain in the server name extension",
    )


def _handshake(data: bytes) -> bytes | Literal[NeedMore.NEED_MORE]:
    """Join the records of the first handshake message; returns its body."""
    message = bytearray()
    at = 0
    for _ in range(_MAX_RECORDS):
        header = data[at : at + 5]
        if header[:1] and header[0] != _HANDSHAKE:
            raise _malformed("not a handshake record", f"content type {header[0]}")
        if len(header) >= 2 and header[1] != 3:
            raise _malformed("not a TLS record", f"version byte {header[1]}")
        if len(header) < 5:
            return _more(data)
        length = int.from_bytes(header[3:5])
        if not 1 <= length <= _MAX_RECORD:
            raise _malformed("a record is empty or too long", f"{length} bytes")
        message += data[at + 5 : at + 5 + length]
        if message and message[0] != _CLIENT_HELLO:
            raise _malformed("not a ClientHello", f"handshake type {message[0]}")
        if len(message) >= 4:
            end = 4 + int.from_bytes(message[1:4])
            if end > MAX_HELLO:
                raise _malformed("too long", f"{end} bytes, at most {MAX_HELLO}")
            if len(message) > end:
                raise _malformed("something follows it in its record")
            if len(message) == end:
                return bytes(message[4:])
        if at + 5 + length > len(data):
            return _more(data)
        at += 5 + length
    raise _malformed("it is spread over too many records", f"more than {_MAX_RECORDS}")


def _more(data: bytes) -> Literal[NeedMore.NEED_MORE]:
    if len(data) >= MAX_HELLO + 5 * _MAX_RECORDS:
        raise _malformed("too long", f"{len(data)} bytes and not complete")
    return NEED_MORE


class _Fields:
    """Reads length-prefixed fields in order, and never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) < count:
            raise _malformed("a field is cut short")
        self._at += count
        return part

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width))

    def vector(self, width: int) -> bytes:
        """A field that its own length in ``width`` bytes precedes."""
        return self.take(self.number(width))


def _server_name(hello: bytes) -> str | None:
    fields = _Fields(hello)
    fields.take(2 + 32)  # legacy_version, random
    fields.vector(1)  # legacy_session_id
    fields.vector(2)  # cipher_suites
    fields.vector(1)  # legacy_compression_methods
    if not fields:
        return None
    extensions = _Fields(fields.vector(2))
    if fields:
        raise _malformed("something follows the extensions")
    name: str | None = None
    while extensions:
        kind, value = extensions.number(2), extensions.vector(2)
        if kind != _SERVER_NAME:
            continue
        if name is not None:
            raise _malformed("two server_name extensions")
        name = _host_name(value)
    return name


def _host_name(value: bytes) -> str:
    outer = _Fields(value)
    names = _Fields(outer.vector(2))
    if outer:
        raise _malformed("something follows the list of server names")
    # RFC 6066: at most one name of each type, and host_name (0) is the only type that was ever defined.
    if names.number(1) != 0:
        raise _malformed("the server name is not a host name")
    name = names.vector(2)
    if names:
        raise _malformed("more than one server name")
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise _malformed("the server name is not a DNS name", repr(name[:80]))
    return name.decode("ascii").lower()
