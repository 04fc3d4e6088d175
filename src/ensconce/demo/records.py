"""How much a client said, by the record headers in a recording; what it said is encrypted."""

from __future__ import annotations

__all__ = ["HANDSHAKE_BYTES", "encrypted_bytes"]

_HEADER = 5
_APPLICATION_DATA = 23

HANDSHAKE_BYTES = 128
"""Most encrypted bytes of a client that ends the handshake and leaves: Finished (48 bytes of hash, 4 of header) and
close_notify, each with a content type and an authentication tag (RFC 8446 sections 4.4.4, 5.2 and 6.1)."""


def encrypted_bytes(stream: bytes) -> int:
    """The bytes in encrypted records of one direction of a TLS 1.3 connection (RFC 8446 section 5.2).

    Raises:
        ValueError: the stream is not one of TLS records.
    """
    total = place = 0
    while place < len(stream):
        header = stream[place : place + _HEADER]
        if len(header) < _HEADER or header[1] != 3:
            raise ValueError("no TLS record header")
        size = int.from_bytes(header[3:], "big")
        if header[0] == _APPLICATION_DATA:
            total += size
        place += _HEADER + size
    return total
