"""What a server says on a connection that nobody has used yet: whether it is worth being used."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from ensconce.ratls.stream import TlsStream

__all__ = ["said_early"]

_RECORD: Final = 16 * 1024
_MOST: Final = 128 * 1024
_HEADER: Final = 9
_GOAWAY: Final = 7


def said_early(tls: TlsStream) -> bytes | None:
    """What has arrived, read without waiting; or that this connection is none to begin with.

    gRPC's channel (1.85) that reads GOAWAY together with the server's SETTINGS makes its calls on that connection
    again and again, with all of a processor, until their deadline: "transparent retries" without an end.

    Args:
        tls: its handshake is done, and nothing was written.

    Returns:
        128 KiB at most, usually SETTINGS. None where the other side has ended the connection, or says over HTTP/2 that
        it will (GOAWAY, RFC 9113 section 6.8).
    """
    said = bytearray()
    try:
        while len(said) < _MOST:
            try:
                said += tls.connection.recv(_RECORD)
            except SSL.WantReadError:
                if not tls.pull():
                    break
    except (OSError, SSL.Error):
        return None
    is_http2 = tls.connection.get_alpn_proto_negotiated().endswith(b"h2")
    return None if is_http2 and _goes_away(bytes(said)) else bytes(said)


def _goes_away(said: bytes) -> bool:
    """Whether GOAWAY is among these frames (RFC 9113 section 4.1)."""
    at = 0
    while len(said) - at >= _HEADER:
        if said[at + 3] == _GOAWAY:
            return True
        at += _HEADER + int.from_bytes(said[at : at + 3])
    return False
