"""Header blocks: HPACK to requests, with bounds (RFC 9113, section 8; RFC 7541), and our few answers to HPACK.

What we send is encoded without the dynamic table, so that blocks can be made in advance and hold for every connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from ensconce.serving.http2.frames import ErrorCode, Http2Error

__all__ = ["HeaderDecoder", "Request", "encode_block"]

_MOST_CACHED: Final = 64
_LONGEST_CACHED: Final = 512
# A few bytes can stand for 16 KiB of fields.
_LARGEST_CACHED: Final = 4096
# What a request and a field take in memory beside their bytes.
_REQUEST_BYTES: Final = 1024
_FIELD_BYTES: Final = 96
# RFC 7541, 6.3: comes first in a block, and changes what later blocks do.
_SIZE_UPDATE: Final = 0x20
_SIZE_MASK: Final = 0xE0
# Of the connection and not of the request (section 8.2.2).
_CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_NAME_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_STATUS_INDEX: Final = {b"200": 8, b"204": 9, b"206": 10, b"304": 11, b"400": 12, b"404": 13, b"500": 14}


@dataclass(frozen=True, slots=True)
class Request:
    """What a request says before its body. Shared by all requests of a connection that say the same.

    Attributes:
        method: such as POST.
        scheme: http or https; nothing depends on it.
        path: with the query, as it was sent.
        authority: ``:authority``, or ``host``, or nothing.
        fields: all others by name in lower case; values of the same name are joined with commas.
        content_length: bytes that the body says to have, or -1.
        size: bytes of memory that it takes, with the stream that it opens; roughly.
    """

    method: bytes
    scheme: bytes
    path: bytes
    authority: bytes
    fields: Mapping[bytes, bytes]
    content_length: int = -1
    size: int = 0


class HeaderDecoder:
    """The decoding end of one connection."""

    def __init__(self, longest_list: int) -> None:
        """Start with an empty table.

        Args:
            longest_list: most bytes of the fields of one block, as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
        """
        self._hpack = Decoder(max_header_list_size=longest_list)
        self._cache: dict[bytes, Request | None] = {}

    def request(self, block: bytes) -> Request | None:
        """The request in a block, or None when it is malformed (section 8.1.1), which ends its stream only.

        Raises:
            Http2Error: the block cannot be decoded, or holds too much.
        """
        try:
            return self._cache[block]
        except KeyError:
            pass
        count, newest = self._table()
        request = _to_request(self._decode(block))
        count_now, newest_now = self._table()
        if count_now != count or newest_now is not newest:
            self._cache.clear()
        elif (
            len(block) <= _LONGEST_CACHED
            and block[:1]
            and block[0] & _SIZE_MASK != _SIZE_UPDATE
            and (request is None or request.size <= _LARGEST_CACHED)
        ):
            # It left the table as it was, so the same bytes will mean the same while the table stays.
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[block] = request
        return request

    def _table(self) -> tuple[int, object]:
        """How many entries the table has, and the newest one: whatever adds or evicts changes one of these."""
        entries = self._hpack.header_table.dynamic_entries
        return len(entries), entries[0] if entries else None

    def trailers(self, block: bytes) -> bool:
        """Take the block behind a body, which says nothing to us; whether it is well-formed.

        Raises:
            Http2Error: as in :meth:`request`.
        """
        fields = self.fields(block)
        return not any(name.startswith(b":") for name, _ in fields)

    def fields(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The fields of any block in their order, for those who pass them on.

        Raises:
            Http2Error: as in :meth:`request`.
        """
        self._cache.clear()
        return self._decode(block)

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        try:
            return [(bytes(name), bytes(value)) for name, value in self._hpack.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "the header fields are too long") from None
        except (HPACKError, IndexError, ValueError):
            raise Http2Error(ErrorCode.COMPRESSION_ERROR, "a header block cannot be decoded") from None


def _to_request(pairs: list[tuple[bytes, bytes]]) -> Request | None:
    pseudo: dict[bytes, bytes] = {}
    fields: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name[:1] == b":":
            if fields or name in pseudo or name not in _PSEUDO:
                return None
            pseudo[name] = value
            continue
        if not name or not _NAME_BYTES.issuperset(name) or name in _CONNECTION_FIELDS:
            return None
        if b"\0" in value or b"\r" in value or b"\n" in value or (name == b"te" and value != b"trailers"):
            return None
        fields[name] = fields[name] + b"," + value if name in fields else value
    path, method, scheme = pseudo.get(b":path"), pseudo.get(b":method"), pseudo.get(b":scheme")
    if not path or not method or not scheme:
        return None
    length = -1
    if (text := fields.get(b"content-length")) is not None:
        if not text.isdigit() or len(text) > 18:
            return None
        length = int(text)
    authority = pseudo.get(b":authority") or fields.get(b"host", b"")
    size = _REQUEST_BYTES + sum(len(name) + len(value) + _FIELD_BYTES for name, value in pairs)
    return Request(method, scheme, path, authority, fields, length, size)


def encode_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block that every peer understands at any time: literal fields that enter no table (RFC 7541, 6.2.2)."""
    out = bytearray()
    for name, value in fields:
        if name == b":status" and value in _STATUS_INDEX:
            out.append(0x80 | _STATUS_INDEX[value])
            continue
        if name == b":status":
            out.append(8)  # the name of static entry 8, the value as it is
        else:
            out.append(0)
            out += _string(name)
        out += _string(value)
    return bytes(out)


def _string(text: bytes) -> bytes:
    """A string without Huffman's code, its length before it (RFC 7541, 5.1 and 5.2)."""
    rest = len(text)
    if rest < 127:
        return bytes((rest,)) + text
    length, rest = bytearray((127,)), rest - 127
    while rest >= 128:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes(length) + text
